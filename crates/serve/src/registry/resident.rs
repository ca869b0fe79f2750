//! Plug-ins in memory, least recently used out first.

use melo_vit::{BoundPlugin, Plugin};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) struct Resident {
    cap: usize,
    bytes: usize,
    clock: u64,
    /// By digest.
    plugins: HashMap<String, Entry>,
}

struct Entry {
    plugin: Arc<BoundPlugin>,
    bytes: usize,
    used: u64,
}

impl Resident {
    pub(super) fn new(cap: usize) -> Self {
        Resident { cap, bytes: 0, clock: 0, plugins: HashMap::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, digest: &str) -> bool {
        self.plugins.contains_key(digest)
    }

    pub(super) fn get(&mut self, digest: &str) -> Option<Arc<BoundPlugin>> {
        self.clock += 1;
        let entry = self.plugins.get_mut(digest)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.plugin))
    }

    /// Keeps a plug-in, and lets others go until all fit; one that is alone above the cap stays. Of two that were read
    /// at the same time, one is kept.
    pub(super) fn insert(&mut self, plugin: Arc<BoundPlugin>) -> Arc<BoundPlugin> {
        if let Some(known) = self.get(&plugin.digest) {
            return known;
        }
        let bytes = weights_bytes(&plugin);
        self.bytes += bytes;
        let entry = Entry { plugin: Arc::clone(&plugin), bytes, used: self.clock };
        self.plugins.insert(plugin.digest.clone(), entry);
        while self.bytes > self.cap && self.plugins.len() > 1 {
            let oldest = self.plugins.iter().min_by_key(|(_, entry)| entry.used).map(|(digest, _)| digest.clone());
            oldest.iter().for_each(|digest| self.remove(digest));
        }
        plugin
    }

    pub(super) fn remove(&mut self, digest: &str) {
        if let Some(entry) = self.plugins.remove(digest) {
            self.bytes -= entry.bytes;
        }
    }
}

/// Bytes of a plug-in's weights in memory.
fn weights_bytes(plugin: &Plugin) -> usize {
    plugin.parameters() * size_of::<f32>()
}
