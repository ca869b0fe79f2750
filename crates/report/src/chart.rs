//! Charts as SVG and heat tables as HTML, for pages that work offline: no script, no font, no file from elsewhere.
//!
//! Every chart is drawn in CSS pixels for a phone's width or less and may be scaled up. Text is real text; colours, dashes
//! and fonts come from [`STYLE`], which a page includes once. A chart without a finite point is `None`, never an empty box.
//! Lengths are in SVG user units, `y` grows downwards.
//!
//! ```
//! use melo_report::chart::{Axis, Line, LineChart};
//!
//! let roc = LineChart {
//!     title: "ROC of edema".into(),
//!     description: "AUC 0.81".into(),
//!     width: 168.0,
//!     height: 178.0,
//!     x: Axis::unit("1 − specificity"),
//!     y: Axis::unit("sensitivity"),
//!     guide: vec![(0.0, 0.0), (1.0, 1.0)],
//!     lines: vec![Line::new(0, vec![(0.0, 0.0), (0.2, 0.7), (1.0, 1.0)])],
//! };
//! let svg = roc.draw().expect("it has points").to_string();
//! assert!(svg.starts_with("<svg"));
//! ```

mod axis;
mod bars;
mod curve;
mod forest;
mod frame;
mod heat;
mod lines;
mod measure;
mod reliability;
mod scatter;
mod series;

pub use axis::{Axis, nice_range};
pub use bars::{Bar, Bars};
pub use curve::{MOST_POINTS, decimate};
pub use forest::{Forest, ForestRow};
pub use heat::HeatTable;
pub use lines::{Line, LineChart};
pub use reliability::{Bin, Reliability};
pub use scatter::Scatter;
pub use series::{SERIES, swatch};

/// The style sheet of every chart and heat table, light and dark (on screens alone: print is always light). It holds
/// neither `<` nor `&`, so that it may stand in a `style` element as it is.
pub const STYLE: &str = include_str!("chart/style.css");

/// Size of the charts' text.
const FONT: f64 = 11.0;
