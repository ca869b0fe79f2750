//! What tells backbones apart.

use crate::config::VitConfig;
use crate::weights::Weights;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// SHA-256 over the configuration's JSON, then `name`, NUL and the SHA-256 of the little-endian f32 values of every tensor
/// in the order of [`VitConfig::tensor_shapes`].
pub(crate) fn digest(config: &VitConfig, weights: &Weights) -> String {
    let hashes: Vec<[u8; 32]> = weights
        .tensors()
        .into_par_iter()
        .map(|values| {
            let mut hash = Sha256::new();
            hash_numbers(&mut hash, values);
            hash.finalize().into()
        })
        .collect();
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(config).expect("a configuration is plain data"));
    for ((name, _), tensor) in config.tensor_shapes().iter().zip(hashes) {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(tensor);
    }
    hex(&hash.finalize())
}

/// Adds the little-endian bytes of numbers to a digest.
pub fn hash_numbers(hash: &mut Sha256, values: &[f32]) {
    let mut bytes = Vec::with_capacity(4 * values.len().min(4096));
    for chunk in values.chunks(4096) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
        hash.update(&bytes);
    }
}

/// Lower-case hexadecimal digits, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
