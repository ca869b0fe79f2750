//! Patterns of paths: which files are meant, and what their names say.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// A path with places left open, compared without regard to the case of ASCII letters.
///
/// | written | matches |
/// |---|---|
/// | `*` | any text without `/`, or none |
/// | `**/` | any number of folders, or none |
/// | `{name}` | some text without `/`, the shortest that fits, kept as field `name` |
/// | `{name:d}` | digits, the longest that fit |
/// | `{name:n}` | digits, kept without leading zeros |
///
/// A name that stands twice must match equal texts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text(String),
    Star,
    Folders,
    Field(String, Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Digits,
    Number,
}

/// What the fields of a pattern matched.
pub(crate) type Fields = BTreeMap<String, String>;

/// An image of the set, and what its name says.
pub(crate) struct Image {
    /// Relative to the set's folder, with `/`.
    pub(crate) name: String,
    pub(crate) fields: Fields,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPattern {
    /// A field that does not end.
    #[error("pattern \"{pattern}\": no }}")]
    Open { pattern: String },
    /// A field without a name, or of a kind that is none.
    #[error("pattern \"{pattern}\": expected {{name}}, {{name:d}} or {{name:n}}, found {{{field}}}")]
    Field { pattern: String, field: String },
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        let mut tokens = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (token, after) = if let Some(after) = rest.strip_prefix("**/") {
                (Token::Folders, after)
            } else if let Some(after) = rest.strip_prefix('*') {
                (Token::Star, after)
            } else if let Some(after) = rest.strip_prefix('{') {
                let open = || InvalidPattern::Open { pattern: text.clone() };
                let (field, after) = after.split_once('}').ok_or_else(open)?;
                let wrong = || InvalidPattern::Field { pattern: text.clone(), field: field.to_owned() };
                (Self::field(field).ok_or_else(wrong)?, after)
            } else {
                let end = rest.find(['*', '{']).unwrap_or(rest.len());
                (Token::Text(rest[..end].to_owned()), &rest[end..])
            };
            tokens.push(token);
            rest = after;
        }
        Ok(Self { text, tokens })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    fn field(text: &str) -> Option<Token> {
        let (name, kind) = match text.split_once(':') {
            None => (text, Kind::Any),
            Some((name, "d")) => (name, Kind::Digits),
            Some((name, "n")) => (name, Kind::Number),
            Some(_) => return None,
        };
        (!name.is_empty()).then(|| Token::Field(name.to_owned(), kind))
    }

    /// Names of the fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Field(name, _) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What the fields are in `path`, if it matches as a whole.
    pub(crate) fn read(&self, path: &str) -> Option<Fields> {
        let mut taken = Vec::new();
        if !matches(&self.tokens, path, &mut taken) {
            return None;
        }
        Some(taken.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect())
    }
}

/// True if `tokens` match all of `text`; `taken` then holds the fields.
fn matches<'a>(tokens: &'a [Token], text: &'a str, taken: &mut Vec<(&'a str, &'a str)>) -> bool {
    let Some((token, rest)) = tokens.split_first() else { return text.is_empty() };
    match token {
        Token::Text(literal) => match text.get(..literal.len()) {
            Some(start) if start.eq_ignore_ascii_case(literal) => matches(rest, &text[literal.len()..], taken),
            _ => false,
        },
        Token::Star => ends(text, 0).any(|end| matches(rest, &text[end..], taken)),
        Token::Folders => {
            let after_slash = text.match_indices('/').map(|(slash, _)| slash + 1);
            std::iter::once(0).chain(after_slash).any(|start| matches(rest, &text[start..], taken))
        }
        Token::Field(name, kind) => {
            let mut try_field = |end: usize| {
                let found = match kind {
                    Kind::Number => trim_zeros(&text[..end]),
                    Kind::Any | Kind::Digits => &text[..end],
                };
                if taken.iter().any(|(known, before)| known == name && *before != found) {
                    return false;
                }
                taken.push((name, found));
                let matched = matches(rest, &text[end..], taken);
                if !matched {
                    taken.pop();
                }
                matched
            };
            match kind {
                Kind::Any => ends(text, 1).any(&mut try_field),
                Kind::Digits | Kind::Number => {
                    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                    (1..=digits).rev().any(&mut try_field)
                }
            }
        }
    }
}

/// Lengths from `least` characters on, up to the next `/`.
fn ends(text: &str, least: usize) -> impl Iterator<Item = usize> {
    let segment = &text[..text.find('/').unwrap_or(text.len())];
    segment.char_indices().map(|(at, _)| at).chain([segment.len()]).skip(least)
}

/// `7` of `007`, `0` of `000`.
fn trim_zeros(digits: &str) -> &str {
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() { &digits[digits.len().saturating_sub(1)..] } else { trimmed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str, path: &str) -> Option<String> {
        let pattern = Pattern::try_from(pattern.to_owned()).expect("the pattern is one");
        let fields = pattern.read(path)?;
        Some(fields.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn patterns_read_names() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("**/images/{image}.png", "images_001/images/00000001_000.PNG"), some("image=00000001_000"));
        assert_eq!(read("**/images/{image}.png", "images/1.png"), some("image=1"));
        assert_eq!(read("**/images/{image}.png", "my_images/1.png"), None);
        assert_eq!(read("**/images/{image}.png", "images/deep/1.png"), None);
        assert_eq!(
            read("{file}_{patient}_MG_{side}_{view}_ANON.dcm", "2058_6c61_MG_R_CC_ANON.dcm"),
            some("file=2058 patient=6c61 side=R view=CC")
        );
        assert_eq!(read("{patient:d}{side}.png", "9003175L.png"), some("patient=9003175 side=L"));
        assert_eq!(read("B_{n:n}.jpg", "B_00007.jpg"), some("n=7"));
        assert_eq!(read("B_{n:n}.jpg", "B_00000.jpg"), some("n=0"));
        assert_eq!(read("{class}/{class} (*).png", "benign/benign (1).png"), some("class=benign"));
        assert_eq!(read("{class}/{class} (*).png", "benign/normal (1).png"), None);
        assert_eq!(read("**/*_mask*", "a/b/benign (1)_mask_1.png"), some(""));
        assert_eq!(read("{a}.png", ".png"), None);
        assert_eq!(read("ä{a}ö", "äüö"), some("a=ü"));
    }

    #[test]
    fn wrong_patterns_are_refused() {
        let said = |text: &str| Pattern::try_from(text.to_owned()).expect_err("it is no pattern").to_string();
        assert_eq!(said("{a"), "pattern \"{a\": no }");
        for (text, field) in [("{}", "{}"), ("{a:x}", "{a:x}"), ("b{:d}", "{:d}")] {
            let expected = format!("pattern \"{text}\": expected {{name}}, {{name:d}} or {{name:n}}, found {field}");
            assert_eq!(said(text), expected);
        }
    }
}
