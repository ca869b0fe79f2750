//! Forms of `/v1/predict` and related parts of STOW-RS. The first byte chooses, the first line is the content type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_serve::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (content_type, body) = (&bytes[..line], &bytes[line + 1..]);
    match kind % 2 {
        0 => fuzzing::form(content_type, body),
        _ => fuzzing::related(content_type, body),
    }
});
