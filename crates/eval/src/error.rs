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
    /// More classes than a label map can tell apart.
    #[error("expected at most {limit} classes, found {found}")]
    TooManyClasses {
        /// Largest number allowed.
        limit: usize,
        /// Number given.
        found: usize,
    },
    /// A predicted or true number, or the baseline, is NaN or infinite.
    #[error("{what} of case {row}: expected a finite number, found {found}")]
    NotFinite {
        /// Which of them.
        what: &'static str,
        /// The case.
        row: usize,
        /// The number.
        found: f64,
    },
    /// A grade is too high.
    #[error("{what} of case {row}: expected a grade below {grades}, found {found}")]
    GradeOutOfRange {
        /// Prediction or truth.
        what: &'static str,
        /// The case.
        row: usize,
        /// Number of grades.
        grades: usize,
        /// The grade.
        found: usize,
    },
    /// A label map is neither a plane nor a stack, or has no pixel.
    #[error("label map: expected a shape [h, w] or [d, h, w] with pixels, found {found:?}")]
    MapShape {
        /// The shape.
        found: Vec<usize>,
    },
    /// Reference and prediction do not lie on each other.
    #[error("label maps: the reference is {reference:?}, the prediction {prediction:?}")]
    ShapesDiffer {
        /// Shape of the reference.
        reference: Vec<usize>,
        /// Shape of the prediction.
        prediction: Vec<usize>,
    },
    /// A pixel of a label map has no class.
    #[error("{what} at {at:?}: expected a class below {classes}, found {found}")]
    ClassOutOfRange {
        /// Reference or prediction.
        what: &'static str,
        /// Index along each axis: row and column, or slice, row and column.
        at: Vec<usize>,
        /// Number of classes.
        classes: usize,
        /// The label.
        found: u8,
    },
    /// Distances of pixels are not one positive number an axis.
    #[error("spacing: expected {axes} positive, finite numbers, found {found:?}")]
    Spacing {
        /// Axes of the label maps.
        axes: usize,
        /// The spacing.
        found: Vec<f64>,
    },
    /// A tolerance of a surface Dice is negative or not finite.
    #[error("tolerance: expected a finite number of at least 0, found {found}")]
    Tolerance {
        /// The tolerance.
        found: f64,
    },
}
