//! Keys, signatures, lists of trusted keys, signed notes: what is read can be written, and is read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_sign::{Note, PublicKey, Signature, TrustedKeys};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(signature) = text.parse::<Signature>() {
        assert_eq!(signature.to_string().parse::<Signature>().as_ref(), Ok(&signature));
    }
    if let Ok(note) = text.parse::<Note>() {
        let _ = note.to_string().parse::<Note>();
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string().parse::<PublicKey>().as_ref(), Ok(&key));
    }
    let _ = text.parse::<TrustedKeys>();
});
