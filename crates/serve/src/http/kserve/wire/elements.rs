//! The elements of a tensor in JSON.

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// Files of an input: more than any limit on images, and so few that those of no bytes take no memory.
pub(super) const FILES: usize = 1 << 16;

/// Numbers or texts, flat, though they may come as nested arrays. They are kept as what they become: as JSON values they
/// would take a multiple of the memory that the request's body has.
#[derive(Default)]
pub(super) struct Elements {
    numbers: Vec<f32>,
    texts: Vec<String>,
}

impl Elements {
    /// None where there are texts.
    pub(super) fn numbers(self) -> Option<Vec<f32>> {
        self.texts.is_empty().then_some(self.numbers)
    }

    /// None where there are numbers.
    pub(super) fn texts(self) -> Option<Vec<String>> {
        self.numbers.is_empty().then_some(self.texts)
    }
}

impl<'de> serde::Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut elements = Elements::default();
        deserializer.deserialize_seq(Adding(&mut elements))?;
        Ok(elements)
    }
}

/// Adds what comes.
struct Adding<'a>(&'a mut Elements);

impl<'de> DeserializeSeed<'de> for Adding<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Adding<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("numbers, texts, or arrays of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Adding(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.numbers.push(value as f32);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.0.texts.len() == FILES {
            return Err(E::custom(format_args!("more than {FILES} texts")));
        }
        self.0.texts.push(text.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Elements, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn arrays_in_arrays_are_flat() {
        let both_ways = |json: &str| (read(json).expect(json).numbers(), read(json).expect(json).texts());
        assert_eq!(both_ways("[[1, -2], [[0.5]], 3e2]"), (Some(vec![1.0, -2.0, 0.5, 300.0]), None));
        assert_eq!(both_ways(r#"[["a"], "b"]"#), (None, Some(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(both_ways(r#"[1, "a"]"#), (None, None));
        assert_eq!(both_ways("[[]]"), (Some(Vec::new()), Some(Vec::new())));
    }

    #[test]
    fn other_values_and_too_much_of_them_are_refused() {
        for json in ["1", r#""a""#, "{}", "[true]", "[null]", "[{}]", "[1"] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(read(&format!("{}{}", "[".repeat(1000), "]".repeat(1000))).is_err(), "too deep");
        let texts = |n: usize| format!("[{}]", vec![r#""""#; n].join(","));
        assert!(read(&texts(FILES)).is_ok() && read(&texts(FILES + 1)).is_err());
    }
}
