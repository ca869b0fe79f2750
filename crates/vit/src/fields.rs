//! The fields of another program's JSON: every one is read, known to be without effect, or refused by its name.

use crate::invalid::Invalid;
use serde_json::{Map, Value};

/// An object whose fields all have to be accounted for.
///
/// A field that is `null` is taken as not there, as the programs do that write these files.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// What stands before a field's name in messages: `pretrained_cfg.`, or nothing.
    whole: &'a str,
    fields: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, an object that messages call `whole`, a name that ends in a dot, or nothing.
    ///
    /// # Errors
    /// [`Invalid`] for what is no object.
    pub fn of(whole: &'a str, value: &'a Value) -> Result<Self, Invalid> {
        let name = if whole.is_empty() { "the description" } else { whole.trim_end_matches('.') };
        let wrong = || Invalid::new("json", format!("{name} is no JSON object"));
        Ok(Fields { whole, fields: value.as_object().ok_or_else(wrong)? })
    }

    /// The field, where it is there and not `null`.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// True for a field that is there as `null`.
    pub fn is_null(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(Value::is_null)
    }

    /// Refuses the first field that is in none of the tables.
    ///
    /// # Errors
    /// [`Invalid`] that names it.
    pub fn all_in(&self, known: &[&[&str]]) -> Result<(), Invalid> {
        let is_known = |name: &str| known.iter().any(|names| names.contains(&name));
        match self.fields.iter().find(|(name, value)| !value.is_null() && !is_known(name)) {
            None => Ok(()),
            Some((name, value)) => {
                Err(self.wrong(name, value, "a field that is not known here may change the answers"))
            }
        }
    }

    /// Refuses a field that is `null` and is not among those that may be.
    ///
    /// # Errors
    /// [`Invalid`] that names it.
    pub fn not_null(&self, nullable: &[&str]) -> Result<(), Invalid> {
        match self.fields.iter().find(|(name, value)| value.is_null() && !nullable.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, value)) => Err(self.wrong(name, value, "expected a value, or no such field")),
        }
    }

    /// Refuses a field that is there with any other value than `usual`.
    ///
    /// # Errors
    /// [`Invalid`] that names it, with the reason.
    pub fn only(&self, name: &str, usual: &Value, reason: &str) -> Result<(), Invalid> {
        match self.get(name) {
            Some(value) if value != usual => Err(self.wrong(name, value, reason)),
            _ => Ok(()),
        }
    }

    /// The field as `read` understands it.
    ///
    /// # Errors
    /// [`Invalid`] for a value that it does not.
    pub fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, Invalid> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, value, &format!("expected {expected}")))
    }

    /// A whole number.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn count(&self, name: &str) -> Result<Option<usize>, Invalid> {
        self.read(name, count, "a whole number")
    }

    /// A truth value.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn truth(&self, name: &str) -> Result<Option<bool>, Invalid> {
        self.read(name, Value::as_bool, "true or false")
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Invalid> {
        self.read(name, Value::as_str, "a text")
    }

    /// A finite number.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn number(&self, name: &str) -> Result<Option<f64>, Invalid> {
        self.read(name, Value::as_f64, "a number")
    }

    /// A side in pixels: a number, or two that are equal.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn side(&self, name: &str) -> Result<Option<usize>, Invalid> {
        let side = |value: &Value| match value {
            Value::Array(sides) => match sides.as_slice() {
                [height, width] if height == width => count(height),
                _ => None,
            },
            one => count(one),
        };
        self.read(name, side, "one side of a square, or two that are equal")
    }

    /// A number a channel: three, or one for all.
    ///
    /// # Errors
    /// As [`Fields::read`], also for what f32 cannot hold.
    pub fn channels(&self, name: &str) -> Result<Option<[f32; 3]>, Invalid> {
        let one = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        let read = |value: &Value| match value {
            Value::Array(values) => match values.as_slice() {
                [r, g, b] => Some([one(r)?, one(g)?, one(b)?]),
                [all] => Some([one(all)?; 3]),
                _ => None,
            },
            all => Some([one(all)?; 3]),
        };
        self.read(name, read, "three numbers, or one for all channels")
    }

    /// The refusal of a field.
    pub fn wrong(&self, name: &str, value: &Value, reason: &str) -> Invalid {
        let shown: String = value.to_string().chars().take(80).collect();
        Invalid::new("json", format!("`{}{name}` is {shown}: {reason}", self.whole))
    }
}

fn count(value: &Value) -> Option<usize> {
    let whole = value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64));
    whole.and_then(|count| usize::try_from(count).ok())
}

/// JSON text as a value, also where a byte order mark stands in front of it.
///
/// # Errors
/// [`serde_json::Error`].
pub fn parse_json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_of_no_table_is_refused_and_one_that_is_null_is_not_there() {
        let value = json!({ "known": 1, "free": "x", "empty": null, "other": [1, 2] });
        let fields = Fields::of("args.", &value).unwrap();
        let error = fields.all_in(&[&["known"], &["free"]]).unwrap_err().to_string();
        assert!(error.contains("`args.other` is [1,2]"), "{error}");
        fields.all_in(&[&["known", "other"], &["free"]]).unwrap();
        assert!(fields.get("empty").is_none());
    }

    #[test]
    fn sides_and_channels_are_one_number_or_equal_ones() {
        let value =
            json!({ "a": 16, "b": [16, 16], "c": [16, 8], "m": 0.5, "n": [1, 2, 3], "o": [1, 2], "p": [1, 2, 1e40] });
        let fields = Fields::of("", &value).unwrap();
        assert_eq!((fields.side("a").unwrap(), fields.side("b").unwrap()), (Some(16), Some(16)));
        assert!(fields.side("c").is_err());
        assert_eq!(
            (fields.channels("m").unwrap(), fields.channels("n").unwrap()),
            (Some([0.5; 3]), Some([1.0, 2.0, 3.0]))
        );
        assert!(fields.channels("o").is_err() && fields.channels("p").is_err());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_json() {
        assert_eq!(parse_json("\u{feff}{\"a\": 1}").unwrap(), json!({ "a": 1 }));
    }
}
