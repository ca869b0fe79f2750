/// Why scores and labels cannot be evaluated. Rows and classes count from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no image to evaluate.
    #[error("expected at least one image, found none")]
    NoRows,
    /// Fewer classes than the task can have.
    #[error("expected at least {expected} class(es), found {found}")]
    TooFewClasses {
        /// Smallest number allowed: 2 where each image has one label, else 1.
        expected: usize,
        /// Number given.
        found: usize,
    },
    /// An array does not hold one value for each image and class.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The argument.
        what: &'static str,
        /// Values needed.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// An array does not divide into rows of one value a class.
    #[error("{what}: expected a multiple of {classes} values, one row an image, found {found}")]
    Ragged {
        /// The argument.
        what: &'static str,
        /// Values in one row.
        classes: usize,
        /// Values given.
        found: usize,
    },
    /// A score is NaN or infinite.
    #[error("score of image {row}, class {class}: expected a finite number, found {found}")]
    ScoreNotFinite {
        /// The image.
        row: usize,
        /// The class.
        class: usize,
        /// The score.
        found: f32,
    },
    /// A probability is above 1 or negative.
    #[error("probability of image {row}, class {class}: expected a number from 0 to 1, found {found}")]
    ProbabilityOutOfRange {
        /// The image.
        row: usize,
        /// The class.
        class: usize,
        /// The probability.
        found: f32,
    },
    /// A class index is too large.
    #[error("label of image {row}: expected a class below {classes}, found {found}")]
    LabelOutOfRange {
        /// The image.
        row: usize,
        /// Number of classes.
        classes: usize,
        /// The label.
        found: usize,
    },
    /// A finding is neither absent (0) nor present (1).
    #[error("label of image {row}, class {class}: expected 0 or 1, found {found}")]
    LabelNotBinary {
        /// The image.
        row: usize,
        /// The class.
        class: usize,
        /// The label.
        found: u8,
    },
    /// A threshold is NaN: nothing compares with it.
    #[error("threshold of class {class}: expected a number, found NaN")]
    ThresholdNan {
        /// The class.
        class: usize,
    },
}
