//! Plain data as JSON values whose numbers are as short as they can be.

use serde::Serialize;
use serde_json::Value;

/// The value, every f32 as the shortest decimal that reads back as it: 0.485, where `serde_json::to_value` widens it to
/// 0.48500001430511475.
///
/// # Panics
/// If `data` is no plain data: a key that is no text, or a serialisation that fails.
pub(crate) fn value(data: &impl Serialize) -> Value {
    let text = serde_json::to_vec(data).expect("plain data");
    serde_json::from_slice(&text).expect("what was just written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_32_bits_stay_short_and_read_back_as_themselves() {
        let numbers = [0.485_f32, 1.0 / 3.0, 1e-12, f32::MIN_POSITIVE, 16_777_217.0, 0.0, -0.1];
        let shortest = value(&numbers);
        assert_eq!(shortest[0].to_string(), "0.485");
        assert_eq!(serde_json::from_value::<[f32; 7]>(shortest).expect("numbers"), numbers);
        assert!(value(&[f32::NAN])[0].is_null());
    }
}
