//! What else is known of each image: columns of a CSV, for subgroups.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::csv_file::CsvFile;
use crate::roles::{Roles, has_image_column, only};
use crate::{Error, ReadOptions};

/// How many names an error shows of either side.
const SHOWN: usize = 3;

/// Columns of a table, by image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The table.
    pub path: PathBuf,
    /// Names of the columns, without their bins.
    pub names: Vec<String>,
    /// The images that it lists, in order, as it writes them.
    images: Vec<String>,
    /// Values of each image, by [`key`], in order of `names`.
    values: HashMap<String, Vec<Option<String>>>,
}

/// Images that have one value in one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGroup {
    /// Name of the column, without its bins.
    pub column: String,
    /// The value, or the bin.
    pub value: String,
    /// Places of the images in the list that was given, ascending.
    pub rows: Vec<usize>,
}

impl Columns {
    /// `images` by value of each column: in order of the columns and then of the values. An image without a value in a
    /// column, or that the table does not list, is in none of its groups.
    ///
    /// # Errors
    /// [`Error::NothingMatched`] if the table lists none of them.
    pub fn groups<'a>(&self, images: impl IntoIterator<Item = &'a str>) -> Result<Vec<ImageGroup>, Error> {
        let images: Vec<&str> = images.into_iter().collect();
        if !images.is_empty() && !images.iter().any(|image| self.of(image).is_some()) {
            return Err(Error::NothingMatched {
                path: self.path.clone(),
                images: images.len(),
                expected: images.iter().take(SHOWN).map(|&image| image.to_owned()).collect(),
                found: self.images.iter().take(SHOWN).cloned().collect(),
            });
        }
        let mut rows: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
        for (row, image) in images.into_iter().enumerate() {
            for (column, value) in self.of(image).unwrap_or_default().iter().enumerate() {
                if let Some(value) = value {
                    rows.entry((column, value)).or_default().push(row);
                }
            }
        }
        let group = |((column, value), rows): ((usize, &str), _)| ImageGroup {
            column: self.names[column].clone(),
            value: value.to_owned(),
            rows,
        };
        Ok(rows.into_iter().map(group).collect())
    }

    /// The values of an image, by its name as the table writes it, in order of [`names`](Columns::names); `None` within
    /// where the field is empty. `None` if the table does not list the image.
    pub fn of(&self, image: &str) -> Option<&[Option<String>]> {
        self.values.get(&key(image)).map(Vec::as_slice)
    }
}

/// A path without what does not tell images apart: `.\\a\\b.png` is `a/b.png`.
fn key(image: &str) -> String {
    let slashed = image.replace('\\', "/");
    slashed.strip_prefix("./").unwrap_or(&slashed).to_owned()
}

/// [`columns_with`], told nothing.
///
/// # Errors
/// As there.
pub fn columns(csv: &Path, names: &[String]) -> Result<Columns, Error> {
    columns_with(csv, names, &ReadOptions::default())
}

/// Reads columns of any table that has a column of images: a manifest, or a file beside it.
///
/// A name of `names` is that of a column, whose text is taken as it is; or of a column of numbers with the bounds of
/// bins, ascending: `age:40,60` makes of each number `<40`, `40-60` (40 ≤ age < 60) or `>=60`. Where fields are not separated
/// by commas, `63,5` is a number.
///
/// # Errors
/// [`Error::Bins`] for bounds that are not ascending numbers; [`Error::NoColumn`], [`Error::NoPathColumn`],
/// [`Error::DuplicateColumn`] about the header; [`Error::EmptyPath`], [`Error::FieldCount`], [`Error::NotNumber`] about a line;
/// [`Error::DuplicatePath`] for lines of one image that say different things; [`Error::Read`], [`Error::NotText`].
pub fn columns_with(csv: &Path, names: &[String], options: &ReadOptions) -> Result<Columns, Error> {
    let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::parse(name)).collect::<Result<_, _>>()?;
    let usual = ReadOptions::default();
    let knows = |header: &_| has_image_column(header, options) || has_image_column(header, &usual);
    let mut file = CsvFile::read(csv, &knows)?;
    // A file beside the manifest may call its column of images as usual.
    let options = if has_image_column(&file.header, options) { options } else { &usual };
    let image = Roles::image_of(csv, &file, options)?;
    let place = |wanted: &Wanted| match only(csv, &file, |column| column == wanted.name)? {
        Some(index) => Ok(index),
        None => Err(Error::NoColumn { path: csv.into(), column: wanted.name.clone(), found: file.names() }),
    };
    let places: Vec<usize> = wanted.iter().map(place).collect::<Result<_, _>>()?;

    let decimal_comma = file.decimal_comma;
    let mut values: HashMap<String, Vec<Option<String>>> = HashMap::new();
    let (mut images, mut first_lines) = (Vec::new(), HashMap::new());
    for (line, record) in file.take_rows(&[image])? {
        let name = record[image].to_owned();
        if name.is_empty() {
            return Err(Error::EmptyPath { path: csv.into(), line });
        }
        let value = |(wanted, &place): (&Wanted, &usize)| {
            let found = &record[place];
            if found.is_empty() {
                return Ok(None);
            }
            wanted.value(found, decimal_comma).map(Some).ok_or_else(|| Error::NotNumber {
                path: csv.into(),
                line,
                column: wanted.name.clone(),
                found: found.to_owned(),
            })
        };
        let row: Vec<Option<String>> = wanted.iter().zip(&places).map(value).collect::<Result<_, _>>()?;
        let key = key(&name);
        let first = *first_lines.entry(key.clone()).or_insert(line);
        match values.get(&key) {
            None => {
                images.push(name);
                values.insert(key, row);
            }
            Some(before) if *before == row => {}
            Some(before) => {
                let differs = before.iter().zip(&row).position(|(before, here)| before != here).unwrap_or(0);
                let says = format!("with another \"{}\"", wanted[differs].name);
                return Err(Error::DuplicatePath { path: csv.into(), line, first, name, says });
            }
        }
    }
    Ok(Columns { path: csv.into(), names: wanted.into_iter().map(|wanted| wanted.name).collect(), images, values })
}

/// A column, and the bounds of its bins if it has any.
struct Wanted {
    name: String,
    /// Each bound, as a number and as it was written; ascending.
    bounds: Vec<(f64, String)>,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Error> {
        let refused = || Error::Bins { found: text.to_owned() };
        let (name, bounds) = match text.rsplit_once(':') {
            None => (text, Vec::new()),
            Some((name, bounds)) => {
                let bound = |bound: &str| Some((number(bound)?, bound.trim().to_owned()));
                (name, bounds.split(',').map(bound).collect::<Option<_>>().ok_or_else(refused)?)
            }
        };
        let name = name.trim().to_owned();
        let ascending = bounds.windows(2).all(|pair: &[(f64, String)]| pair[0].0 < pair[1].0);
        if name.is_empty() || !ascending { Err(refused()) } else { Ok(Self { name, bounds }) }
    }

    /// The text, or its bin; `None` if it is no number and should be.
    fn value(&self, found: &str, decimal_comma: bool) -> Option<String> {
        let (Some((_, first)), Some((_, last))) = (self.bounds.first(), self.bounds.last()) else {
            return Some(found.to_owned());
        };
        let found = if decimal_comma { number(&found.replacen(',', ".", 1)) } else { number(found) }?;
        Some(match self.bounds.iter().position(|(bound, _)| found < *bound) {
            Some(0) => format!("<{first}"),
            Some(above) => format!("{}-{}", self.bounds[above - 1].1, self.bounds[above].1),
            None => format!(">={last}"),
        })
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}
