//! Unique identifiers that are functions of what they name, so that a repeated result is the same object.

use sha2::{Digest, Sha256};

/// `2.25.` and the first 128 bits of SHA-256 over the parts (PS3.5, section B.2), with the version and variant of a
/// name-based UUID (RFC 9562, version 8).
pub fn derived(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    let digest = digest.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

/// True for digits and dots, 1 to 64 (PS3.5, section 9.1); leading zeros are let pass, as writers do.
pub fn is_valid(uid: &str) -> bool {
    (1..=64).contains(&uid.len())
        && uid.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_give_the_same_identifier_and_others_another() {
        let uid = derived(&["1.2.3", "abc", "report"]);
        assert_eq!(uid, derived(&["1.2.3", "abc", "report"]));
        assert!(is_valid(&uid) && uid.starts_with("2.25."), "{uid}");
        for other in [["1.2.3", "abc", "capture"], ["1.2.3a", "bc", "report"], ["1.2.4", "abc", "report"]] {
            assert_ne!(uid, derived(&other));
        }
    }

    #[test]
    fn identifiers_are_digits_and_dots() {
        assert!(is_valid("1.2.840.10008.1.1"));
        for wrong in ["", ".", "1..2", "1.2.", "1.2/3", "1.2.a", &"1".repeat(65)] {
            assert!(!is_valid(wrong), "{wrong}");
        }
    }
}
