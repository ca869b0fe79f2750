//! Images by their identifiers: two with one SOP Instance UID are a mistake, or a forgery, of whoever sent them.

use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Identifiers that are remembered; the oldest are forgotten, and all when the server ends.
const REMEMBERED: usize = 65_536;

/// What was answered lately.
#[derive(Default)]
pub(super) struct Known(Mutex<Answered>);

/// SHA-256 of data sets by SOP Instance UID, and these in the order in which they came.
#[derive(Default)]
struct Answered {
    digests: HashMap<String, [u8; 32]>,
    order: VecDeque<String>,
}

impl Known {
    /// # Errors
    /// A sentence, where the identifier is known with another content.
    pub(super) fn check(&self, instance: &str, digest: [u8; 32]) -> Result<(), String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.digests.get(instance) {
            Some(other) if *other != digest => {
                Err("another image with this SOP Instance UID was answered before: one of them is not what it says"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// An image was answered.
    pub(super) fn answered(&self, instance: &str, digest: [u8; 32]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Answered { digests, order } = &mut *known;
        if digests.insert(instance.to_owned(), digest).is_none() {
            order.push_back(instance.to_owned());
            if order.len() > REMEMBERED
                && let Some(oldest) = order.pop_front()
            {
                digests.remove(&oldest);
            }
        }
    }
}

/// SHA-256 of an object without its file meta group, which names who sent it (PS3.10, section 7.1).
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    let group = |bytes: &[u8]| -> Option<usize> {
        let is_length = bytes.get(128..140)? == b"DICM\x02\0\0\0UL\x04\0";
        let length = u32::from_le_bytes(*bytes.get(140..)?.first_chunk()?);
        is_length.then_some(144 + length as usize)
    };
    let behind = group(bytes).and_then(|at| bytes.get(at..)).unwrap_or(bytes);
    Sha256::digest(behind).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identifier_with_two_contents_is_told_and_senders_do_not_matter() {
        let file = |sender: &[u8], content: &[u8]| {
            let head = [&[0; 128][..], b"DICM\x02\0\0\0UL\x04\0", &(sender.len() as u32).to_le_bytes()].concat();
            [&head, sender, content].concat()
        };
        let (one, other) = (digest(&file(b"A", b"pixels")), digest(&file(b"ELSE", b"pixels")));
        assert_eq!(one, other);
        let forged = digest(&file(b"A", b"others"));
        assert!(one != forged && digest(b"short") != digest(b"other"));
        let known = Known::default();
        known.check("1.2", one).unwrap();
        known.answered("1.2", one);
        known.check("1.2", one).unwrap();
        known.check("1.3", forged).unwrap();
        assert!(known.check("1.2", forged).unwrap_err().contains("another image"));
    }
}
