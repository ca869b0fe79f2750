//! How good a classifier is, from its scores and the truth: the numbers of scikit-learn, without Python.
//!
//! Letters: `n` images, `c` classes (or findings). Matrices are row-major `[n, c]`.
//!
//! ```
//! let probabilities = [0.9, 0.1, 0.2, 0.8, 0.6, 0.4, 0.7, 0.3];
//! let metrics = melo_eval::single_label(&probabilities, &[0, 1, 1, 0], 2)?;
//! assert_eq!(metrics.acc, 0.75);
//! assert_eq!(metrics.auc_macro, Some(1.0));
//! println!("{}", melo_eval::table(&metrics, &["normal".into(), "pneumonia".into()]));
//! # Ok::<(), melo_eval::Error>(())
//! ```

mod auc;
mod bootstrap;
mod curves;
mod delong;
mod distributions;
mod error;
mod holm;
mod metrics;
mod operating;
mod proportion;
mod ranked;
mod table;
mod undefined;

pub use auc::roc_auc;
pub use bootstrap::{Resampling, bootstrap_p_inferior, bootstrap_p_zero, percentile_interval};
pub use curves::{PrecisionRecallPoint, RocPoint, average_precision, precision_recall_points, roc_points};
pub use delong::{AucEstimate, PairedAuc, delong, delong_paired};
pub use error::Error;
pub use holm::holm;
pub use metrics::{Counts, Metrics, multi_label, single_label};
pub use operating::{OperatingPoint, at_sensitivity, at_specificity, youden};
pub use proportion::{clopper_pearson, wilson};
pub use ranked::RankedScores;
pub use table::table;
pub use undefined::why_undefined;
