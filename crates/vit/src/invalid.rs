//! What a card, a configuration or a preprocessing says and cannot mean.

/// A field whose value nothing can be done with. Shown, it is the sentence alone; whose field it is, the caller knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Invalid {
    /// The field, by the name that it has in Rust and in files; of tensors the tensor's name.
    pub field: &'static str,
    /// What was found there, and what was expected.
    pub reason: String,
}

impl Invalid {
    /// The refusal of a field.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Invalid { field, reason: reason.into() }
    }

    /// The sentence, with the field's name in front where it does not say it.
    pub fn named(&self) -> String {
        match self.reason.contains(self.field) || self.field == "json" {
            true => self.reason.clone(),
            false => format!("`{}`: {}", self.field, self.reason),
        }
    }

    /// The same, said of a part of something larger.
    pub(crate) fn within(self, whole: &str) -> Self {
        Invalid { reason: format!("{whole}{}", self.reason), ..self }
    }
}
