//! What all of this may be used for: one sentence for every door.

/// Stands on the page, in cards, reports, DICOM results and help, word for word.
pub const INTENDED_USE: &str = "Research software. It is no medical device and must not be used for diagnosis.";
