//! Packs: the index or the shard, with checksums made right. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melo_data::Manifest;
use melo_fuzz::{SHARD, a_pack, folder, preprocess, with_checksum, write};
use std::sync::LazyLock;

static SOUND: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(a_pack);
/// Where checksums stand, and where begins what they are of: `docs/pack-format.md`.
const INDEX: (usize, usize) = (24, 56);
const SHARDS: (usize, usize) = (56, 88);

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let (index, shard) = &*SOUND;
    let (index, shard) = if kind % 2 == 0 {
        (with_checksum(bytes, INDEX.0, INDEX.1), shard.clone())
    } else {
        let fuzzed = with_checksum(bytes, SHARDS.0, SHARDS.1);
        let checksum = |shard: &[u8]| shard.get(56..88).map(melo_vit::hex).unwrap_or_default();
        let text = String::from_utf8_lossy(&index[56..]).replace(&checksum(shard), &checksum(&fuzzed));
        (with_checksum(&[&index[..56], text.as_bytes()].concat(), INDEX.0, INDEX.1), fuzzed)
    };
    let folder = folder();
    write(&folder, "pack.index", &index);
    write(&folder, SHARD, &shard);
    let Ok(manifest) = Manifest::read(folder.path()) else { return };
    for packed in manifest.rows.iter().filter_map(|row| row.packed.as_ref()) {
        let _ = packed.fitted(&preprocess());
    }
});
