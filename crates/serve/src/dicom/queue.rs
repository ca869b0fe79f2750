//! Objects that wait, by sender: senders take turns, so that none waits behind all objects of another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Who waits and who is in work. Objects of one sender come in the order of their names, which is that of arrival.
#[derive(Default)]
pub(super) struct Queue {
    waiting: BTreeMap<String, BTreeSet<String>>,
    /// Name to sender.
    working: BTreeMap<String, String>,
    /// Those of a series that is coming in, name to sender.
    shelved: BTreeMap<String, String>,
    /// Size of every object, bytes.
    sizes: HashMap<String, u64>,
    bytes: u64,
    /// When a sender was served last, by a counter.
    served: HashMap<String, u64>,
    turn: u64,
}

/// The sender in an object's name, `TIME-COUNT-VIA-WHO.dcm`; all that were put there by hand are one sender's.
pub(super) fn sender(name: &str) -> &str {
    name.strip_suffix(".dcm").unwrap_or(name).splitn(4, '-').nth(3).unwrap_or_default()
}

impl Queue {
    /// Objects that are waiting or in work.
    pub(super) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Their size.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Objects of one sender and their size.
    pub(super) fn of(&self, sender: &str) -> (usize, u64) {
        let waiting = self.waiting.get(sender).into_iter().flatten();
        let others = self.working.iter().chain(&self.shelved);
        let working = others.filter(|(_, of)| *of == sender).map(|(name, _)| name);
        let size = |name| self.sizes.get(name).copied().unwrap_or(0);
        waiting.chain(working).fold((0, 0), |(count, bytes), name| (count + 1, bytes + size(name)))
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.sizes.contains_key(name)
    }

    /// An object waits, for the first time or again.
    pub(super) fn wait(&mut self, name: String, size: u64) {
        let sender = sender(&name).to_owned();
        self.working.remove(&name);
        self.bytes += size;
        self.bytes -= self.sizes.insert(name.clone(), size).unwrap_or(0);
        self.served.entry(sender.clone()).or_insert(self.turn);
        self.waiting.entry(sender).or_default().insert(name);
    }

    /// An object waits for others of its series.
    pub(super) fn shelve(&mut self, name: String, size: u64) {
        let sender = sender(&name).to_owned();
        self.end(&name);
        self.bytes += size;
        self.sizes.insert(name.clone(), size);
        self.shelved.insert(name, sender);
    }

    /// Whether so many of a sender are in work.
    pub(super) fn is_busy(&self, sender: &str, most: usize) -> bool {
        self.working.values().filter(|of| *of == sender).count() >= most
    }

    /// What of a sender waits or is in work.
    pub(super) fn names_of(&self, sender: &str) -> impl Iterator<Item = &String> {
        let working = self.working.iter().filter(move |(_, of)| *of == sender).map(|(name, _)| name);
        self.waiting.get(sender).into_iter().flatten().chain(working)
    }

    /// A series is in work.
    pub(super) fn begin(&mut self, series: &str, sender: &str) {
        self.working.insert(series.to_owned(), sender.to_owned());
    }

    /// The oldest object of the sender that was served longest ago, and that has less than `most` in work.
    pub(super) fn take(&mut self, most: usize) -> Option<String> {
        let free = self.waiting.iter().filter(|(sender, _)| !self.is_busy(sender, most));
        let served = |sender: &str| self.served.get(sender).copied().unwrap_or(0);
        let (sender, _) = free.min_by_key(|(sender, names)| (served(sender), names.first()))?;
        let sender = sender.clone();
        let names = self.waiting.get_mut(&sender)?;
        let name = names.pop_first()?;
        if names.is_empty() {
            self.waiting.remove(&sender);
        }
        self.turn += 1;
        self.served.insert(sender.clone(), self.turn);
        self.working.insert(name.clone(), sender);
        Some(name)
    }

    /// An object goes.
    pub(super) fn end(&mut self, name: &str) {
        self.bytes -= self.sizes.remove(name).unwrap_or(0);
        self.shelved.remove(name);
        if let Some(sender) = self.working.remove(name)
            && !self.waiting.contains_key(&sender)
            && !self.working.values().any(|of| *of == sender)
        {
            self.served.remove(&sender);
        }
    }

    /// An object that was in work waits again.
    pub(super) fn put_back(&mut self, name: &str) {
        let size = self.sizes.get(name).copied().unwrap_or(0);
        self.wait(name.to_owned(), size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(count: usize, who: &str) -> String {
        format!("{count:020}-0000-dicom-{who}.dcm")
    }

    #[test]
    fn senders_take_turns_and_none_takes_every_worker() {
        let mut queue = Queue::default();
        (0..6).for_each(|count| queue.wait(name(count, "HEAVY"), 100));
        queue.wait(name(6, "SMALL%2d1"), 1);
        queue.wait(name(7, "SMALL%2d1"), 1);
        assert_eq!((queue.len(), queue.bytes(), queue.of("HEAVY")), (8, 602, (6, 600)));
        let mut taken = Vec::new();
        while let Some(name) = queue.take(2) {
            taken.push(name);
        }
        assert_eq!(taken, [name(0, "HEAVY"), name(6, "SMALL%2d1"), name(1, "HEAVY"), name(7, "SMALL%2d1")]);
        queue.end(&name(6, "SMALL%2d1"));
        queue.put_back(&name(1, "HEAVY"));
        assert_eq!((queue.len(), queue.bytes()), (7, 601));
        assert_eq!(queue.take(2), Some(name(1, "HEAVY")));
        queue.end(&name(0, "HEAVY"));
        queue.wait(name(9, "NEW"), 5);
        assert!(
            queue.take(2) == Some(name(9, "NEW")) || queue.take(2) == Some(name(9, "NEW")),
            "not behind all of them"
        );
    }

    #[test]
    fn what_was_put_there_by_hand_is_one_senders() {
        assert_eq!((sender("film.dcm"), sender("1-2-dicom-A%2db.dcm")), ("", "A%2db"));
        let mut queue = Queue::default();
        queue.wait("film.dcm".to_owned(), 3);
        assert_eq!(queue.take(1), Some("film.dcm".to_owned()));
        queue.end("film.dcm");
        assert_eq!((queue.len(), queue.bytes(), queue.take(1)), (0, 0, None));
    }
}
