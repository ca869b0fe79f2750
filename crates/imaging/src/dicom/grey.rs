//! Grey values to 8 bits: modality, value of interest, inversion (DICOM PS3.3, sections C.11.1 and C.11.2; PS3.4,
//! section N.2).

use melo_vit::Rendering;
use melo_vit::rendering::Window;

use super::data_set::{DataSet, Fault};
use super::layout::{Layout, Photometric};
use super::lut::{self, Lut};
use super::samples::{Samples, signed_value};
use super::tag::{self, Tag};
use crate::levels::Levels;

/// Where the attributes of a frame may be: its own functional groups, the shared ones, the data set (C.7.6.16).
pub(super) struct Scopes<'s, 'a> {
    groups: Vec<&'s DataSet<'a>>,
    root: &'s DataSet<'a>,
}

impl<'s, 'a> Scopes<'s, 'a> {
    pub(super) fn of_frame(root: &'s DataSet<'a>, place: usize) -> Self {
        let own = root.items(tag::FRAME_GROUPS).get(place);
        Self { groups: own.into_iter().chain(root.items(tag::SHARED_GROUPS).first()).collect(), root }
    }

    /// The first scope that holds a table in `tables`: an item of `sequence` in the groups, a group, or the data set.
    fn tables(&self, sequence: Tag, tables: Tag) -> Vec<&'s DataSet<'a>> {
        let in_groups = self.groups.iter().flat_map(|group| group.items(sequence).iter().take(1).chain([*group]));
        let scopes = in_groups.chain([self.root]);
        let found = scopes.map(|set| set.items(tables).iter().filter(|item| is_table(item)).collect::<Vec<_>>());
        found.into_iter().find(|items| !items.is_empty()).unwrap_or_default()
    }

    /// The first scope that holds `wanted`: an item of `sequence` in the groups, or the data set itself.
    fn find(&self, sequence: Tag, wanted: &[Tag]) -> &'s DataSet<'a> {
        let holds = |set: &&DataSet| wanted.iter().any(|&tag| set.find(tag).is_some());
        self.groups.iter().filter_map(|group| group.items(sequence).first()).find(holds).unwrap_or(self.root)
    }
}

/// Some writers leave an item whose attributes are all empty: that is no table.
fn is_table(item: &DataSet) -> bool {
    item.bytes(tag::LUT_DESCRIPTOR).is_some() || item.bytes(tag::LUT_DATA).is_some()
}

/// Stored values to real ones (C.11.1).
enum Modality {
    Table(Lut),
    Rescale { slope: f64, intercept: f64 },
}

impl Modality {
    fn of(scopes: &Scopes, samples: &Samples) -> Result<Self, Fault> {
        let attributes = [tag::RESCALE_SLOPE, tag::RESCALE_INTERCEPT];
        let set = scopes.find(tag::TRANSFORMATION_SEQUENCE, &attributes);
        if let Some(item) = scopes.tables(tag::TRANSFORMATION_SEQUENCE, tag::MODALITY_SEQUENCE).first() {
            return Ok(Self::Table(Lut::read(item, lut::ITEM, samples.signed, samples.range())?));
        }
        let first = |tag, default| Ok(set.decimals(tag)?.and_then(|values| values.first().copied()).unwrap_or(default));
        let (slope, intercept) = (first(tag::RESCALE_SLOPE, 1.0)?, first(tag::RESCALE_INTERCEPT, 0.0)?);
        if slope == 0.0 {
            return Err(Fault::new(tag::RESCALE_SLOPE, "is 0"));
        }
        Ok(Self::Rescale { slope, intercept })
    }

    fn value(&self, stored: i64) -> f64 {
        match self {
            Self::Table(table) => table.entry(stored).into(),
            Self::Rescale { slope, intercept } => stored as f64 * slope + intercept,
        }
    }
}

/// How a window maps (C.11.2.1.3).
#[derive(Clone, Copy)]
enum Function {
    Linear,
    LinearExact,
    Sigmoid,
}

impl Function {
    /// Widths below 1, for which C.11.2.1.2.1 has no line, are of values that were rescaled to fractions.
    fn of_width(self, width: f64) -> Self {
        if matches!(self, Self::Linear) && width < 1.0 { Self::LinearExact } else { self }
    }
}

/// Real values to levels (C.11.2).
enum Interest {
    Table(Lut),
    Window { center: f64, width: f64, function: Function },
    Levels(Levels),
}

impl Interest {
    fn level(&self, value: f64) -> u8 {
        match *self {
            Self::Table(ref table) => table.level(value.round() as i64),
            Self::Levels(levels) => levels.level(value),
            Self::Window { center, width, function } => {
                let part = match function {
                    // C.11.2.1.2.1; a width of 1 is a threshold.
                    Function::Linear if width <= 1.0 => f64::from(value > center - 0.5),
                    Function::Linear => (value - (center - 0.5)) / (width - 1.0) + 0.5,
                    Function::LinearExact => (value - center) / width + 0.5,
                    Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
                };
                (255.0 * part).round().clamp(0.0, 255.0) as u8
            }
        }
    }
}

/// The file's own tables and windows.
struct Offered {
    tables: Vec<(String, Result<Lut, Fault>)>,
    windows: Vec<(String, f64, f64)>,
    function: Function,
}

impl Offered {
    /// For values, after the modality transformation, within `range`.
    fn of(scopes: &Scopes, range: Option<(f64, f64)>) -> Result<Self, Fault> {
        let set = scopes.find(tag::FRAME_VOI_SEQUENCE, &[tag::WINDOW_CENTER]);
        let whole = range.map(|(least, most)| (least.round() as i64, most.round() as i64));
        let read = |item: &&DataSet| {
            let name = item.text(tag::LUT_EXPLANATION).unwrap_or_default();
            let signed = whole.is_some_and(|(least, _)| least < 0);
            let table = Lut::read(item, lut::ITEM, signed, whole).map(|table| {
                let bits = table.used_bits();
                table.narrowed(bits)
            });
            (name, table)
        };
        let tables = scopes.tables(tag::FRAME_VOI_SEQUENCE, tag::VOI_SEQUENCE).iter().map(read).collect();
        // A centre without a width is no window.
        let centers = set.decimals(tag::WINDOW_CENTER)?.unwrap_or_default();
        let widths = set.decimals(tag::WINDOW_WIDTH)?.unwrap_or_default();
        let names = set.text(tag::WINDOW_EXPLANATION).unwrap_or_default();
        let names = names.split('\\').map(|name| name.trim().to_owned()).chain(std::iter::repeat(String::new()));
        let windows = names.zip(centers.into_iter().zip(widths)).map(|(name, (center, width))| (name, center, width));
        let function = match set.text(tag::VOI_FUNCTION).map(|name| name.to_ascii_uppercase()).as_deref() {
            None | Some("LINEAR") => Function::Linear,
            Some("LINEAR_EXACT") => Function::LinearExact,
            Some("SIGMOID") => Function::Sigmoid,
            Some(other) => {
                let reason = format!("is {}; LINEAR, LINEAR_EXACT and SIGMOID are read", other.escape_debug());
                return Err(Fault::new(tag::VOI_FUNCTION, reason));
            }
        };
        Ok(Self { tables, windows: windows.collect(), function })
    }

    fn window(&self, place: usize) -> Result<Interest, Fault> {
        let &(_, center, width) = &self.windows[place];
        if width <= 0.0 {
            return Err(Fault::new(tag::WINDOW_WIDTH, format!("is {width}")));
        }
        Ok(Interest::Window { center, width, function: self.function.of_width(width) })
    }

    /// The first table, else the first window that is one.
    fn first(mut self) -> Result<Option<Interest>, Fault> {
        if !self.tables.is_empty() {
            return Ok(Some(Interest::Table(self.tables.swap_remove(0).1?)));
        }
        let place = self.windows.iter().position(|&(_, _, width)| width > 0.0);
        place.map(|place| self.window(place)).transpose()
    }

    fn named(self, wanted: &str) -> Result<Interest, Fault> {
        let names = || self.windows.iter().map(|window| &window.0).chain(self.tables.iter().map(|table| &table.0));
        let is_wanted = |name: &String| name.eq_ignore_ascii_case(wanted);
        if let Some(place) = self.windows.iter().position(|window| is_wanted(&window.0)) {
            return self.window(place);
        }
        let found: Vec<&String> = names().collect();
        let reason = format!("names no window `{}`: found {found:?}", wanted.escape_debug());
        match self.tables.into_iter().find(|table| is_wanted(&table.0)) {
            Some((_, table)) => table.map(Interest::Table),
            None => Err(Fault::new(tag::WINDOW_EXPLANATION, reason)),
        }
    }
}

/// Stored values that stand for no value (C.7.5.1.1.2).
struct Padding(Option<(i64, i64)>);

impl Padding {
    fn of(set: &DataSet, layout: &Layout) -> Self {
        let number = |tag| {
            let raw = u32::from(set.number(tag)?);
            Some(if layout.signed { signed_value(raw, 16, true) } else { raw.into() })
        };
        let range = number(tag::PADDING).map(|value| (value, number(tag::PADDING_LIMIT).unwrap_or(value)));
        Self(range.map(|(one, other)| (one.min(other), one.max(other))))
    }

    fn holds(&self, stored: i64) -> bool {
        self.0.is_some_and(|(least, most)| (least..=most).contains(&stored))
    }
}

/// Levels of a grey frame, `[rows, columns]`: 0 is black. Padding is black, whatever the photometric; (2050,0020)
/// PresentationLUTShape, which repeats it, is left alone.
pub(super) fn levels(
    set: &DataSet,
    layout: &Layout,
    samples: &Samples,
    place: usize,
    rendering: &Rendering,
) -> Result<Vec<u8>, Fault> {
    let scopes = Scopes::of_frame(set, place);
    let modality = Modality::of(&scopes, samples)?;
    let padding = Padding::of(set, layout);
    let values = || {
        let stored = samples.values.iter().map(|&stored| samples.value(stored));
        stored.filter(|&stored| !padding.holds(stored)).map(|stored| modality.value(stored))
    };
    // An image of padding alone has no value: it is black.
    let flat = Levels { black: 0.0, white: 0.0 };
    let min_max = || Interest::Levels(Levels::min_max(values()).unwrap_or(flat));
    let offered = || {
        let range = Levels::min_max(values()).map(|levels| (levels.black, levels.white));
        Offered::of(&scopes, range)
    };
    let interest = match &rendering.window {
        Window::MinMax => min_max(),
        Window::Percentile { low, high } => {
            Interest::Levels(Levels::percentiles(values(), *low, *high).unwrap_or(flat))
        }
        Window::Preset(preset) => {
            let (center, width) = preset.center_width_hu();
            Interest::Window { center, width, function: Function::Linear }
        }
        Window::Values { center, width } => {
            let function = Function::Linear.of_width(*width);
            Interest::Window { center: *center, width: *width, function }
        }
        Window::Name(name) => offered()?.named(name)?,
        Window::Index(index) => {
            let offered = offered()?;
            if *index >= offered.windows.len() {
                let reason = format!("holds {} windows: there is none of index {index}", offered.windows.len());
                return Err(Fault::new(tag::WINDOW_CENTER, reason));
            }
            offered.window(*index)?
        }
        Window::Auto => offered()?.first()?.unwrap_or_else(min_max),
    };
    let inverted = layout.photometric == Photometric::Monochrome1;
    let level = |stored: u32| {
        let stored = samples.value(stored);
        match interest.level(modality.value(stored)) {
            _ if padding.holds(stored) => 0,
            level if inverted => 255 - level,
            level => level,
        }
    };
    // Of few possible values each is mapped once.
    if samples.bits <= 16 && samples.values.len() > 1 << samples.bits {
        let table: Vec<u8> = (0..1u32 << samples.bits).map(level).collect();
        return Ok(samples.values.iter().map(|&stored| table[stored as usize]).collect());
    }
    Ok(samples.values.iter().map(|&stored| level(stored)).collect())
}
