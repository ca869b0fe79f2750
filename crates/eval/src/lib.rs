//! How good a model is, from its answers and the truth: the numbers of scikit-learn and MONAI, without Python.
//!
//! Letters: `n` images, `c` classes (or findings). Matrices are row-major `[n, c]`.
//!
//! | question | answer |
//! |---|---|
//! | how good | [`single_label`], [`multi_label`], [`roc_auc`], [`average_precision`] |
//! | how sure is that, by patient | [`ClusteredAuc`], [`ClusteredShare`] |
//! | the same of independent cases | [`delong`], [`wilson`], [`clopper_pearson`] |
//! | is it any use | [`Metrics::collapse`], [`too_few`], [`why_undefined`] |
//! | is one better | [`Resampling`] with [`RankedScores`] and [`PairedDifference`]; [`delong_paired`], [`bootstrap_p_zero`], [`bootstrap_p_inferior`]; many at once, [`holm`] |
//! | is it honest | [`reliability_single_label`], [`brier_single_label`], [`fit_temperature_single_label`] |
//! | where to cut | [`youden`], [`at_sensitivity`], [`at_specificity`] |
//! | which answers may be true, with a promised coverage | [`conformal_threshold`], [`clusters_needed`], [`means_by_cluster`], [`mean_over_clusters`] |
//! | how well masks overlap | [`compare_segmentations`], [`segmentation_metrics`] |
//! | how far numbers and grades are off | [`regression`], [`ordinal`] |
//! | how to draw it | [`roc_points`], [`precision_recall_points`] |
//!
//! What cannot be known is `None`, never a number such as 0.5, and [`why_undefined`] says why.
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
mod calibration;
mod checks;
mod clustered_auc;
mod clustered_share;
mod collapse;
mod conformal;
mod contributions;
mod curves;
mod decision_curve;
mod delong;
mod distributions;
mod error;
mod estimate;
mod holm;
mod mean;
mod metrics;
mod operating;
mod ordinal;
mod paired;
mod proportion;
mod ranked;
mod regression;
mod resampled;
mod segmentation;
mod table;
mod temperature;
mod undefined;

pub use auc::roc_auc;
pub use bootstrap::{Resampling, bootstrap_p_inferior, bootstrap_p_zero, percentile_interval};
pub use calibration::{
    Reliability, ReliabilityBin, brier_multi_label, brier_single_label, reliability_multi_label,
    reliability_single_label,
};
pub use clustered_auc::ClusteredAuc;
pub use clustered_share::ClusteredShare;
pub use collapse::{Collapse, Dominant, Never, too_few};
pub use conformal::{ConformalThreshold, clusters_needed, conformal_threshold, mean_over_clusters, means_by_cluster};
pub use curves::{PrecisionRecallPoint, RocPoint, average_precision, precision_recall_points, roc_points};
pub use decision_curve::{NetBenefit, decision_curve};
pub use delong::{AucEstimate, PairedAuc, delong, delong_paired};
pub use error::Error;
pub use estimate::Estimate;
pub use holm::holm;
pub use mean::mean_of_defined;
pub use metrics::{Counts, Metrics, argmax, multi_label, multi_label_decided, single_label, single_label_decided};
pub use operating::{OperatingPoint, at_sensitivity, at_specificity, youden};
pub use ordinal::{OrdinalMetrics, ordinal};
pub use paired::PairedDifference;
pub use proportion::{clopper_pearson, wilson};
pub use ranked::RankedScores;
pub use regression::{RegressionBaseline, RegressionMetrics, regression};
pub use resampled::{Bootstrap, Resampled};
pub use segmentation::{
    LabelMap, SegmentationClass, SegmentationFigures, SegmentationMetrics, SegmentationSettings, SegmentedClass,
    compare_segmentations, segmentation_metrics,
};
pub use table::table;
pub use temperature::{Temperature, fit_temperature_multi_label, fit_temperature_single_label};
pub use undefined::{FEW_CASES, why_undefined};
