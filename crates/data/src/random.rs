//! Randomness that can be repeated: a stream for every (seed, epoch, row, purpose), whoever asks and when.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// What a stream is for, so that two purposes never share numbers.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Split = 0,
    Shuffle = 1,
    Augment = 2,
    Folds = 3,
    ValOfFold = 4,
    Subset = 5,
}

/// The stream whose ChaCha key is `seed`, `epoch`, `row` and `purpose`, each a little-endian `u64`.
///
/// Nothing is mixed or hashed: different arguments are different keys, and ChaCha makes unrelated streams of them.
pub(crate) fn stream(purpose: Purpose, seed: u64, epoch: u64, row: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (word, value) in key.chunks_exact_mut(8).zip([seed, epoch, row, purpose as u64]) {
        word.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The numbers below `len` in an order that depends on `seed` and `epoch` alone.
pub fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut stream(Purpose::Shuffle, seed, epoch, 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_is_a_permutation_that_repeats_and_changes_with_seed_and_epoch() {
        // Pinned: another value here means that a resumed training run differs.
        assert_eq!(shuffled(8, 1, 2), [4, 3, 1, 7, 0, 2, 5, 6]);
        let order = shuffled(100, 1, 2);
        assert_eq!(order, shuffled(100, 1, 2));
        assert_ne!(order, shuffled(100, 1, 3));
        assert_ne!(order, shuffled(100, 2, 2));
        assert_ne!(order, shuffled(100, 2, 1));
        let mut sorted = order;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100));
        assert!(shuffled(0, 1, 2).is_empty());
    }
}
