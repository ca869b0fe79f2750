//! Panics as reasons.

use melo_vit::panic_message;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `work` gives, or what it said when it panicked. It must leave nothing half done that is used afterwards.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("panicked while it was read: {}", panic_message(&*panic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_reason() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 3;
        let said = caught(|| {
            if number == 3 {
                panic!("block {number} of 2")
            }
        });
        assert_eq!(said, Err("panicked while it was read: block 3 of 2".to_owned()));
    }
}
