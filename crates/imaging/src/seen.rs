//! What a decoder saw that its user may have to hear: which image of several, how much of the range, a picture without
//! contrast.

use std::path::{Path, PathBuf};

/// Facts of one decoded image; each door says them in its own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Which image of the file was decoded, where it holds several.
    pub place: Option<Place>,
    /// Share, 0 to 1, of the values that the samples could have which lies between the least and the largest, where samples of
    /// more than 8 bits became 8 by their width alone.
    pub range_used: Option<f32>,
    /// The values of the file differ, and all pixels came out equal.
    pub flat: bool,
    /// A window was asked for, and the file is of a kind that none is laid on: 8 bits, or colour.
    pub window_unused: bool,
}

/// One image of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, 1 the first; of slices and arrays its index, 0 the first, as their paths count.
    pub number: usize,
    /// How many there are.
    pub count: usize,
    /// `"frame"`, `"page"`, `"slice"` or `"image"`.
    pub kind: &'static str,
}

impl Place {
    /// Of the one at `place`, 0 the first; nothing where it is the only one.
    pub(crate) fn of(place: usize, count: usize, kind: &'static str) -> Option<Self> {
        (count > 1).then_some(Self { number: place + 1, count, kind })
    }

    /// The same, counted from 0.
    pub(crate) fn indexed(index: usize, count: usize, kind: &'static str) -> Option<Self> {
        (count > 1).then_some(Self { number: index, count, kind })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, count, kind } = self;
        write!(f, "{kind} {number} of {count}")
    }
}

impl Seen {
    /// Share of the range below which a picture is nearly black, grey or white: 14 bits of 16.
    pub const LITTLE: f32 = 0.25;

    /// What there is to be said, in words.
    pub fn remarks(&self) -> Vec<String> {
        let place = self.place.map(|place| place.to_string());
        let little = self.little_range();
        let little = little.map(|share| format!("within {:.0} % of the range of its samples", (100.0 * share).ceil()));
        let flat = self.flat.then(|| "one flat colour, although the values differ".to_owned());
        [place, little, flat].into_iter().flatten().collect()
    }

    /// The share of the range, where it is below [`Seen::LITTLE`].
    pub fn little_range(&self) -> Option<f32> {
        self.range_used.filter(|&share| share < Self::LITTLE)
    }
}

/// What was seen of many images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Those with [`Seen::little_range`], and the largest share of one of them.
    pub little: Found,
    /// That share; nothing where there are none.
    pub little_share: Option<f32>,
    /// Those with [`Seen::flat`].
    pub flat: Found,
    /// Those with [`Seen::window_unused`].
    pub unused: Found,
    /// Those with a [`Seen::place`].
    pub several: Found,
    /// The place of the first.
    pub place: Option<Place>,
}

/// What is odd about some of many images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// [`Seen::little_range`].
    LittleRange,
    /// [`Seen::flat`].
    Flat,
    /// [`Seen::window_unused`].
    WindowUnused,
    /// [`Seen::place`], one of several of this kind.
    Several(&'static str),
}

/// Some images: how many, and the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: Option<PathBuf>,
}

impl Found {
    /// `3 images`
    fn images(&self) -> String {
        if self.count == 1 { "1 image".to_owned() } else { format!("{} images", self.count) }
    }

    fn add(&mut self, path: &Path) {
        self.count += 1;
        self.first.get_or_insert_with(|| path.into());
    }
}

impl Tally {
    /// What there is to be said, a sentence without its stop each.
    pub fn remarks(&self) -> Vec<(Oddity, String)> {
        let of = |found: &Found, said: &str| {
            let such = found.first.as_ref().map_or_else(String::new, |path| format!(", such as {}", path.display()));
            format!("{} {said}{such}", found.images())
        };
        let little = self.little_share.map(|share| {
            let said = format!("within {} % of the range of their samples, nearly black", (100.0 * share).ceil());
            (Oddity::LittleRange, of(&self.little, &said))
        });
        let flat = "of one flat colour, although the values differ";
        let flat = (self.flat.count > 0).then(|| (Oddity::Flat, of(&self.flat, flat)));
        let unused = "of 8 bits or in colour, which no window is laid on";
        let unused = (self.unused.count > 0).then(|| (Oddity::WindowUnused, of(&self.unused, unused)));
        let several = self.place.zip(self.several.first.as_ref()).map(|(place, path)| {
            let others = match self.several.count {
                1 => String::new(),
                count => format!(", and so of {} more", Found { count: count - 1, first: None }.images()),
            };
            (Oddity::Several(place.kind), format!("{}: {place}{others}", path.display()))
        });
        [little, flat, unused, several].into_iter().flatten().collect()
    }

    /// Counts one more image.
    pub fn add(&mut self, path: &Path, seen: &Seen) {
        if let Some(share) = seen.little_range() {
            self.little.add(path);
            self.little_share = Some(self.little_share.map_or(share, |most| most.max(share)));
        }
        if seen.flat {
            self.flat.add(path);
        }
        if seen.window_unused {
            self.unused.add(path);
        }
        if let Some(place) = seen.place {
            self.several.add(path);
            self.place.get_or_insert(place);
        }
    }
}

/// Least and largest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range(Option<(f64, f64)>);

impl Range {
    /// Of the finite ones.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let levels = crate::levels::Levels::min_max(values);
        Self(levels.map(|levels| (levels.black, levels.white)))
    }

    pub(crate) fn is_varied(self) -> bool {
        self.0.is_some_and(|(least, most)| least < most)
    }

    /// Of all that `bits` can tell; nothing where all values are equal.
    pub(crate) fn share_of(self, bits: u32) -> Option<f32> {
        let (least, most) = self.0.filter(|_| self.is_varied())?;
        Some(((most - least) / f64::from(u32::MAX >> (32 - bits))) as f32)
    }
}

/// True where all pixels are equal.
pub(crate) fn is_flat(rgb: &[u8]) -> bool {
    rgb.as_chunks::<3>().0.windows(2).all(|pair| pair[0] == pair[1])
}
