//! Memory that decoders share: what an image's header claims is waited for before anything is allocated by it.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Bytes that a decoder of any format holds for a pixel at most, its own buffers, 16-bit samples and colours together: JPEG 2000's is
/// the largest, 22.
const BYTES_PER_PIXEL: u64 = 24;

/// Bytes that the decoders of all threads may hold at a time, by what headers claim.
///
/// An image waits until there is room for it, and holds nothing meanwhile; one that claims more than there is at all is decoded
/// alone. A file's further images, such as tiles, that claim more than its first one do not wait.
#[derive(Debug)]
pub struct DecodeMemory {
    bytes: u64,
    left: Mutex<u64>,
    changed: Condvar,
}

/// What this thread's decoder holds.
struct Claim {
    memory: Arc<DecodeMemory>,
    held: u64,
}

thread_local! {
    static CLAIM: RefCell<Option<Claim>> = const { RefCell::new(None) };
}

impl DecodeMemory {
    /// With room for `bytes`.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(DecodeMemory { bytes, left: Mutex::new(bytes), changed: Condvar::new() })
    }

    /// Decodes within the memory: on this thread, what `decode` claims is taken from it until `decode` returns or panics.
    pub fn within<T>(self: &Arc<Self>, decode: impl FnOnce() -> T) -> T {
        struct Restore(Option<Claim>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let before = self.0.take();
                drop(CLAIM.with(|claim| claim.replace(before)));
            }
        }
        let claim = Claim { memory: Arc::clone(self), held: 0 };
        let _restore = Restore(CLAIM.with(|current| current.replace(Some(claim))));
        decode()
    }

    /// Bytes that nobody holds.
    pub fn left(&self) -> u64 {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        *self.memory.left.lock().unwrap_or_else(PoisonError::into_inner) += self.held;
        self.memory.changed.notify_all();
    }
}

/// A header claims so many pixels.
pub(crate) fn claim(pixels: u64) {
    CLAIM.with_borrow_mut(|claim| {
        let Some(claim) = claim else { return };
        let wanted = pixels.saturating_mul(BYTES_PER_PIXEL).min(claim.memory.bytes);
        let more = wanted.saturating_sub(claim.held);
        let memory = &claim.memory;
        let mut left = memory.left.lock().unwrap_or_else(PoisonError::into_inner);
        // Who holds something and waits for more could wait for another that does the same.
        while claim.held == 0 && *left < more {
            left = memory.changed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = more.min(*left);
        *left -= taken;
        claim.held += taken;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn decoders_share_what_there_is_wait_for_it_and_give_it_back() {
        let memory = DecodeMemory::new(100 * BYTES_PER_PIXEL);
        memory.within(|| {
            claim(60);
            claim(50);
            assert_eq!(memory.left(), 40 * BYTES_PER_PIXEL, "a file's further claims are in its first");
            claim(1_000_000);
            assert_eq!(memory.left(), 0, "one that is larger than all is alone");
        });
        assert_eq!(memory.left(), 100 * BYTES_PER_PIXEL);
        // Outside of `within` nothing is counted.
        claim(60);
        assert_eq!(memory.left(), 100 * BYTES_PER_PIXEL);
        let (told, tell) = std::sync::mpsc::channel();
        memory.within(|| {
            claim(60);
            let (memory, told) = (Arc::clone(&memory), told.clone());
            let other = std::thread::spawn(move || memory.within(|| (claim(60), told.send(memory.left()))));
            assert!(tell.recv_timeout(Duration::from_millis(100)).is_err(), "the second waits");
            other
        });
        assert_eq!(tell.recv_timeout(Duration::from_secs(10)), Ok(40 * BYTES_PER_PIXEL));
        let panics = || {
            claim(99);
            panic!("a decoder's")
        };
        let panicked = std::panic::catch_unwind(|| memory.within(panics));
        assert!(panicked.is_err());
        for _ in 0..1000 {
            if memory.left() == 100 * BYTES_PER_PIXEL {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not given back: {}", memory.left());
    }
}
