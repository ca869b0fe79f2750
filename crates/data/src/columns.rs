//! What else is known of each image: columns of a CSV, for subgroups.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::Error;
use crate::csv_file::CsvFile;

/// Columns of a CSV, by image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Names of the columns, without their bins.
    pub names: Vec<String>,
    /// Values of each image, in order of `names`.
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
    /// column, or that the CSV does not list, is in none of its groups.
    pub fn groups<'a>(&self, images: impl IntoIterator<Item = &'a str>) -> Vec<ImageGroup> {
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
        rows.into_iter().map(group).collect()
    }

    /// The values of an image, by its name as the CSV writes it, in order of [`names`](Columns::names); `None` within
    /// where the field is empty. `None` if the CSV does not list the image.
    pub fn of(&self, image: &str) -> Option<&[Option<String>]> {
        self.values.get(image).map(Vec::as_slice)
    }
}

/// Reads columns of any CSV that has a column `path` (in any case): a manifest, or a file beside it.
///
/// A name of `names` is that of a column, whose text is taken as it is; or of a column of numbers with the bounds of
/// bins, ascending: `age:40,60` makes of each number `<40`, `40-60` (40 ≤ age < 60) or `>=60`.
///
/// # Errors
/// [`Error::Bins`] for bounds that are not ascending numbers; [`Error::NoColumn`], [`Error::NoPathColumn`],
/// [`Error::DuplicateColumn`] about the header; [`Error::EmptyPath`], [`Error::DuplicatePath`], [`Error::FieldCount`],
/// [`Error::NotNumber`] about a line; [`Error::Read`], [`Error::NotUtf8`].
pub fn columns(csv: &Path, names: &[String]) -> Result<Columns, Error> {
    let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::parse(name)).collect::<Result<_, _>>()?;
    let file = CsvFile::read(csv)?;
    let image = match find(csv, &file, |column| column.eq_ignore_ascii_case("path"))? {
        Some(index) => index,
        None => return Err(Error::NoPathColumn { path: csv.into(), header: header(&file).join(",") }),
    };
    let place = |wanted: &Wanted| match find(csv, &file, |column| column == wanted.name)? {
        Some(index) => Ok(index),
        None => Err(Error::NoColumn { path: csv.into(), column: wanted.name.clone(), found: header(&file) }),
    };
    let places: Vec<usize> = wanted.iter().map(place).collect::<Result<_, _>>()?;

    let mut values = HashMap::new();
    let mut first_lines: HashMap<&str, usize> = HashMap::new();
    for record in file.records() {
        let (line, record) = record?;
        let name = &record[image];
        if name.is_empty() {
            return Err(Error::EmptyPath { path: csv.into(), line });
        }
        if let Some(first) = first_lines.insert(name, line) {
            return Err(Error::DuplicatePath { path: csv.into(), line, first, name: name.to_owned() });
        }
        let value = |(wanted, &place): (&Wanted, &usize)| {
            let found = &record[place];
            if found.is_empty() {
                return Ok(None);
            }
            wanted.value(found).map(Some).ok_or_else(|| Error::NotNumber {
                path: csv.into(),
                line,
                column: wanted.name.clone(),
                found: found.to_owned(),
            })
        };
        values.insert(name.to_owned(), wanted.iter().zip(&places).map(value).collect::<Result<_, _>>()?);
    }
    Ok(Columns { names: wanted.into_iter().map(|wanted| wanted.name).collect(), values })
}

fn header(file: &CsvFile) -> Vec<String> {
    file.header.iter().map(str::to_owned).collect()
}

/// The one column that is `wanted`.
fn find(csv: &Path, file: &CsvFile, wanted: impl Fn(&str) -> bool) -> Result<Option<usize>, Error> {
    let mut found = file.header.iter().enumerate().filter(|(_, column)| wanted(column));
    match (found.next(), found.next()) {
        (Some(_), Some((_, column))) => Err(Error::DuplicateColumn { path: csv.into(), column: column.to_owned() }),
        (first, _) => Ok(first.map(|(index, _)| index)),
    }
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
    fn value(&self, found: &str) -> Option<String> {
        let (Some((_, first)), Some((_, last))) = (self.bounds.first(), self.bounds.last()) else {
            return Some(found.to_owned());
        };
        let found = number(found)?;
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
