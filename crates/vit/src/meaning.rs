//! What turns a plug-in's numbers into an answer, as its self-test remembers it: a card in which it was changed since is refused.

use crate::card::TaskCard;
use crate::digest::hex;
use crate::scope::ScopeLimits;
use crate::sets::SetRule;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Digits of a digest that are kept.
const DIGITS: usize = 16;

/// Fields of a card by name, each as the first 16 digits of the SHA-256 of its JSON.
pub(crate) type Meaning = BTreeMap<String, String>;

/// What answers are read by: fields of a card or of a calibration.
#[derive(Clone, Copy, Debug)]
pub struct ReadBy<'a> {
    /// Logits are divided by it.
    pub temperature: f32,
    /// Of findings, `[c]`.
    pub thresholds: &'a [f32],
    /// How prediction sets are made.
    pub sets: Option<&'a SetRule>,
    /// From which distances on an image is out of scope.
    pub scope_limits: Option<&'a ScopeLimits>,
}

/// What a card says now, where answers are read so.
pub(crate) fn meaning(card: &TaskCard, by: ReadBy<'_>) -> Meaning {
    let ReadBy { temperature, thresholds, sets, scope_limits } = by;
    let mut meaning = Meaning::new();
    let mut add = |field: &str, json: Vec<u8>| {
        let mut digest = hex(&Sha256::digest(json));
        digest.truncate(DIGITS);
        meaning.insert(field.to_owned(), digest);
    };
    add("kind", json(&card.kind));
    add("classes", json(&card.classes));
    add("preprocess", json(&card.preprocess));
    add("temperature", json(&temperature));
    add("thresholds", json(&thresholds));
    if card.members() > 1 {
        add("members", json(&card.members()));
    }
    if let Some(sets) = sets {
        add("sets", json(sets));
    }
    if let Some(scope) = &card.scope {
        add("scope", json(scope));
    }
    if let Some(limits) = scope_limits {
        add("scope_limits", json(limits));
    }
    if let Some(decoder) = &card.decoder {
        add("decoder", json(decoder));
    }
    if let Some(bag) = &card.bag {
        add("bag", json(bag));
    }
    if let Some(volume) = &card.volume {
        add("volume", json(volume));
    }
    meaning
}

fn json(field: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(field).expect("fields of a card are plain data")
}

/// The fields that are others now, or came or went.
pub(crate) fn changed(then: &Meaning, now: &Meaning) -> Vec<String> {
    let fields = then.keys().chain(now.keys().filter(|field| !then.contains_key(*field)));
    fields.filter(|field| then.get(*field) != now.get(*field)).cloned().collect()
}
