//! What peers of the DICOM network send: PDUs, command sets, data sets. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_serve::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => fuzzing::pdu(bytes),
        1 => fuzzing::command_set(bytes),
        _ => fuzzing::data_set(bytes),
    }
});
