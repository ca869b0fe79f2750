//! Requests of the Open Inference Protocol: JSON alone, or binary data behind as many bytes of it as the next two say.
//! The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_serve::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if kind % 2 == 0 {
        fuzzing::infer(None, bytes);
    } else if let Some((length, body)) = bytes.split_first_chunk() {
        fuzzing::infer(Some(u16::from_le_bytes(*length).into()), body);
    }
});
