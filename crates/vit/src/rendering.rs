//! Which image of a file is meant, and which of its grey values become black and white: the *specification* only.
//! `melo-imaging` executes it; files of 8 bits and one image need none of it.

use crate::invalid::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How files that hold more than one 8-bit image (DICOM, NIfTI, NumPy arrays) become one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rendering {
    /// Which grey values become black and white.
    #[serde(skip_serializing_if = "is_default")]
    pub window: Window,
    /// Which frame of a DICOM file, or image of an array.
    #[serde(skip_serializing_if = "is_default")]
    pub frame: Frame,
    /// Along which plane a volume (NIfTI, or an array of volumes) is cut.
    #[serde(skip_serializing_if = "is_default")]
    pub plane: Plane,
    /// Which slice of that plane.
    #[serde(skip_serializing_if = "is_default")]
    pub slice: Slice,
    /// What the axes of an array are.
    #[serde(skip_serializing_if = "is_default")]
    pub layout: Layout,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Rendering {
    /// True for the default, which cards leave out.
    pub fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Checks that it can be carried out.
    ///
    /// # Errors
    /// [`Invalid`] for the window.
    pub fn check(&self) -> Result<(), Invalid> {
        self.window.check().map_err(|error| error.within("rendering: window "))
    }
}

impl fmt::Display for Rendering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rendering { window, frame, plane, slice, layout } = self;
        write!(f, "window {window}, frame {frame}, {plane} slice {slice}")?;
        if is_default(layout) { Ok(()) } else { write!(f, ", layout {layout}") }
    }
}

/// Which grey values become black and white. As text: `auto`, `index=2`, `name=LUNG`, `preset=lung`,
/// `center=40,width=400`, `minmax`, `percentile=1,99`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Window {
    /// What the file says: its first value-of-interest table, else its first window, else [`Window::MinMax`].
    #[default]
    Auto,
    /// The file's window of this place, 0 the first (DICOM PS3.3, C.11.2).
    Index(usize),
    /// The file's window or table of this explanation (0028,1055), in any case.
    Name(String),
    /// A usual window of computed tomography, in Hounsfield units.
    Preset(Preset),
    /// Center and width, in units of the rescaled values (DICOM PS3.3, C.11.2.1.2).
    Values {
        /// Value that becomes mid-grey.
        center: f64,
        /// Values from black to white.
        width: f64,
    },
    /// Least and largest value of the image.
    MinMax,
    /// Percentiles of the image's values, in 0 to 100; what is outside becomes black or white.
    Percentile {
        /// Black.
        low: f64,
        /// White.
        high: f64,
    },
}

impl Window {
    fn check(&self) -> Result<(), Invalid> {
        let wrong = |expected: &str| Err(Invalid::new("window", format!("`{self}`: expected {expected}")));
        match self {
            Self::Values { center, width } if !(center.is_finite() && width.is_finite() && *width > 0.0) => {
                wrong("a finite center and a width above 0")
            }
            Self::Percentile { low, high } if !(0.0 <= *low && low < high && *high <= 100.0) => {
                wrong("0 <= low < high <= 100")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Index(index) => write!(f, "index={index}"),
            Self::Name(name) => write!(f, "name={name}"),
            Self::Preset(preset) => write!(f, "preset={}", preset.name()),
            Self::Values { center, width } => write!(f, "center={center},width={width}"),
            Self::MinMax => write!(f, "minmax"),
            Self::Percentile { low, high } => write!(f, "percentile={low},{high}"),
        }
    }
}

impl FromStr for Window {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let window = match key {
            "auto" if value.is_empty() => Some(Self::Auto),
            "minmax" if value.is_empty() => Some(Self::MinMax),
            "index" => value.parse().ok().map(Self::Index),
            "name" if !value.is_empty() => Some(Self::Name(value.to_owned())),
            "preset" => Preset::ALL.into_iter().find(|preset| preset.name() == value).map(Self::Preset),
            "center" => value
                .split_once(",width=")
                .and_then(|(center, width)| Some(Self::Values { center: number(center)?, width: number(width)? })),
            "percentile" => value
                .split_once(',')
                .and_then(|(low, high)| Some(Self::Percentile { low: number(low)?, high: number(high)? })),
            _ => None,
        };
        let window = window.ok_or_else(|| {
            let presets = Preset::ALL.map(Preset::name).join(", ");
            let forms = "auto, minmax, index=N, name=NAME, center=C,width=W, percentile=LOW,HIGH";
            Invalid::new("window", format!("`{text}` is no window: {forms}, preset={{{presets}}}"))
        })?;
        window.check()?;
        Ok(window)
    }
}

impl TryFrom<String> for Window {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

/// Windows that viewers offer for computed tomography.
/// Centers and widths: W. D. Herring, "Learning Radiology", and radiopaedia.org "Windowing (CT)".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Lung parenchyma.
    Lung,
    /// Mediastinum.
    Mediastinum,
    /// Soft tissue of abdomen and pelvis.
    SoftTissue,
    /// Liver.
    Liver,
    /// Bone.
    Bone,
    /// Brain.
    Brain,
    /// Blood beside the skull.
    Subdural,
    /// Early infarction.
    Stroke,
    /// Contrast-filled vessels.
    Angio,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Lung,
        Self::Mediastinum,
        Self::SoftTissue,
        Self::Liver,
        Self::Bone,
        Self::Brain,
        Self::Subdural,
        Self::Stroke,
        Self::Angio,
    ];

    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lung => "lung",
            Self::Mediastinum => "mediastinum",
            Self::SoftTissue => "soft-tissue",
            Self::Liver => "liver",
            Self::Bone => "bone",
            Self::Brain => "brain",
            Self::Subdural => "subdural",
            Self::Stroke => "stroke",
            Self::Angio => "angio",
        }
    }

    /// Center and width, Hounsfield units.
    pub fn center_width_hu(self) -> (f64, f64) {
        match self {
            Self::Lung => (-600.0, 1500.0),
            Self::Mediastinum => (50.0, 350.0),
            Self::SoftTissue => (50.0, 400.0),
            Self::Liver => (30.0, 150.0),
            Self::Bone => (400.0, 1800.0),
            Self::Brain => (40.0, 80.0),
            Self::Subdural => (75.0, 215.0),
            Self::Stroke => (40.0, 40.0),
            Self::Angio => (300.0, 600.0),
        }
    }
}

/// Which frame of several. As text: `first`, `middle`, or a number, 1 the first (as DICOM counts them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Frame {
    /// The first.
    #[default]
    First,
    /// The one at `count / 2`.
    Middle,
    /// The one of this number, 1 the first.
    Number(u32),
}

impl Frame {
    /// Its place among `count`, 0 the first; `None` if there is none.
    pub fn place(self, count: usize) -> Option<usize> {
        let place = match self {
            Self::First => 0,
            Self::Middle => count / 2,
            Self::Number(number) => (number as usize).checked_sub(1)?,
        };
        (place < count).then_some(place)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => write!(f, "first"),
            Self::Middle => write!(f, "middle"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for Frame {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "first" => Ok(Self::First),
            "middle" => Ok(Self::Middle),
            _ => match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(Invalid::new("frame", format!("`{text}` is no frame: first, middle, or a number from 1"))),
            },
        }
    }
}

impl TryFrom<String> for Frame {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Frame> for String {
    fn from(frame: Frame) -> Self {
        frame.to_string()
    }
}

/// Planes of the body, of a volume whose axes point to the right, the front and the head (as NIfTI's nearly do).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Across the long axis of the body.
    #[default]
    Axial,
    /// Front from back.
    Coronal,
    /// Left from right.
    Sagittal,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
            Self::Sagittal => "sagittal",
        })
    }
}

impl FromStr for Plane {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "axial" => Ok(Self::Axial),
            "coronal" => Ok(Self::Coronal),
            "sagittal" => Ok(Self::Sagittal),
            _ => Err(Invalid::new("plane", format!("`{text}` is no plane: axial, coronal, sagittal"))),
        }
    }
}

/// Which slice of a volume. As text: `middle`, or an index, 0 the first (as NumPy counts them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Slice {
    /// The one at `count / 2`.
    #[default]
    Middle,
    /// The one at this index, 0 the first.
    Index(usize),
}

impl Slice {
    /// Its place among `count`, 0 the first; `None` if there is none.
    pub fn place(self, count: usize) -> Option<usize> {
        let place = match self {
            Self::Middle => count / 2,
            Self::Index(index) => index,
        };
        (place < count).then_some(place)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Middle => write!(f, "middle"),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

impl FromStr for Slice {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "middle" => Ok(Self::Middle),
            _ => match text.parse() {
                Ok(index) => Ok(Self::Index(index)),
                Err(_) => Err(Invalid::new("slice", format!("`{text}` is no slice: middle, or an index from 0"))),
            },
        }
    }
}

impl TryFrom<String> for Slice {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Slice> for String {
    fn from(slice: Slice) -> Self {
        slice.to_string()
    }
}

/// What the axes of a NumPy array are: `n` images, rows `h`, columns `w`, channels `c`. A further axis in front is `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// By the shape, where it leaves no doubt.
    #[default]
    Auto,
    /// One grey image.
    Hw,
    /// Channels last.
    Hwc,
    /// Channels first.
    Chw,
    /// Grey images, or volumes, one behind the other.
    Nhw,
}

impl Layout {
    const ALL: [(Self, &str); 5] =
        [(Self::Auto, "auto"), (Self::Hw, "hw"), (Self::Hwc, "hwc"), (Self::Chw, "chw"), (Self::Nhw, "nhw")];
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.into_iter().find(|(layout, _)| layout == self).map_or("auto", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Layout {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        let wrong = || Invalid::new("layout", format!("`{text}` is no layout: auto, hw, hwc, chw, nhw"));
        found.map(|(layout, _)| layout).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_reads_back_from_its_text() {
        let windows = [
            Window::Auto,
            Window::Index(2),
            Window::Name("LUNG 1=2".into()),
            Window::Preset(Preset::SoftTissue),
            Window::Values { center: -600.5, width: 1500.0 },
            Window::MinMax,
            Window::Percentile { low: 0.5, high: 99.5 },
        ];
        for window in windows {
            assert_eq!(window.to_string().parse(), Ok(window));
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in ["", "lung", "preset=foot", "center=1", "center=1,width=0", "center=nan,width=1", "percentile=9,1"]
        {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
        assert!("0".parse::<Frame>().is_err());
        assert!("-1".parse::<Slice>().is_err());
        assert!("whc".parse::<Layout>().is_err());
        for (layout, name) in Layout::ALL {
            assert_eq!((layout.to_string().as_str(), name.parse()), (name, Ok(layout)));
        }
    }

    #[test]
    fn the_default_is_written_as_nothing() {
        assert_eq!(serde_json::to_string(&Rendering::default()).unwrap(), "{}");
        let rendering =
            Rendering { window: Window::Preset(Preset::Lung), frame: Frame::Number(3), ..Rendering::default() };
        let text = r#"{"window":"preset=lung","frame":"3"}"#;
        assert_eq!(serde_json::to_string(&rendering).unwrap(), text);
        assert_eq!(serde_json::from_str::<Rendering>(text).unwrap(), rendering);
        assert!(serde_json::from_str::<Rendering>(r#"{"windows":"auto"}"#).is_err());
    }

    #[test]
    fn places() {
        assert_eq!(Frame::Number(3).place(3), Some(2));
        assert_eq!(Frame::Number(4).place(3), None);
        assert_eq!(Frame::Middle.place(0), None);
        assert_eq!(Slice::Middle.place(5), Some(2));
        assert_eq!(Slice::Index(5).place(5), None);
    }
}
