//! What a panic said.

use std::any::Any;

/// The sentence of a panic that was caught (`std::panic::catch_unwind`); `no message` where it has none.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_plain_and_other_panics_have_a_sentence() {
        let said = |work: fn()| panic_message(&*std::panic::catch_unwind(work).expect_err("it panics")).to_owned();
        assert_eq!(said(|| panic!("block {} of 2", 3)), "block 3 of 2");
        assert_eq!(said(|| panic!("plain")), "plain");
        assert_eq!(said(|| std::panic::panic_any(7)), "no message");
    }
}
