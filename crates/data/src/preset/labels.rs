//! What the fields of an image say that it shows.

use super::schema::LabelRule;
use super::{Policy, PresetError};

/// What one image shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Class(String),
    /// 0 or 1 for each finding of the rule.
    Findings(Vec<u8>),
    /// The preset leaves images with this value out.
    LeftOut(String),
    /// `field "value"` that the preset does not know.
    Unknown(String),
}

/// A rule for labels, and what it does with uncertain ones.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    rule: &'a LabelRule,
    /// `None` where nothing can be uncertain.
    pub(crate) policy: Option<Policy>,
}

impl<'a> Judge<'a> {
    /// # Errors
    /// [`PresetError::Policy`] for a policy that the rule cannot follow.
    pub(crate) fn new(preset: &str, rule: &'a LabelRule, policy: Option<Policy>) -> Result<Self, PresetError> {
        let default = match rule {
            LabelRule::Class { uncertain: Some(_), .. } => Some(Policy::Ignore),
            LabelRule::Columns { uncertain, .. } if !uncertain.is_empty() => Some(Policy::Zeros),
            _ => None,
        };
        let refuse = |policy: Policy, reason| {
            Err(PresetError::Policy { preset: preset.to_owned(), policy: policy.word(), reason })
        };
        match (default, policy) {
            (None, Some(policy)) => refuse(policy, "the set marks no label as uncertain; leave the policy out"),
            (Some(_), Some(Policy::Ignore)) if matches!(rule, LabelRule::Columns { .. }) => refuse(
                Policy::Ignore,
                "a manifest holds 0 or 1 for every finding of an image, never an unknown one; use zeros or ones",
            ),
            _ => Ok(Self { rule, policy: policy.or(default) }),
        }
    }

    /// The findings of a multi-label rule.
    pub(crate) fn findings(&self) -> Option<&'a [String]> {
        match self.rule {
            LabelRule::List { findings, .. } | LabelRule::Columns { findings, .. } => Some(findings),
            LabelRule::Class { .. } | LabelRule::OneHot { .. } => None,
        }
    }

    /// What the fields say, and whether any of them was uncertain.
    pub(crate) fn judge<'f>(&self, field: impl Fn(&str) -> &'f str) -> (Judged, bool) {
        match self.rule {
            LabelRule::Class { .. } => self.class(field),
            LabelRule::List { field: name, separator, findings, none } => {
                (list(name, field(name), separator, findings, none), false)
            }
            LabelRule::Columns { .. } => self.columns(field),
            LabelRule::OneHot { classes } => {
                let mut shown = classes.iter().filter(|(column, _)| is_one(field(column)));
                let judged = match (shown.next(), shown.next()) {
                    (Some((_, class)), None) => Judged::Class(class.clone()),
                    (None, _) => Judged::Unknown("no column is 1".to_owned()),
                    (Some((first, _)), Some((second, _))) => {
                        Judged::Unknown(format!("both {first} and {second} are 1"))
                    }
                };
                (judged, false)
            }
        }
    }

    fn class<'f>(&self, field: impl Fn(&str) -> &'f str) -> (Judged, bool) {
        let LabelRule::Class { field: name, classes, exclude, uncertain, .. } = self.rule else {
            unreachable!("asked of a class alone")
        };
        let value = field(name);
        if exclude.iter().any(|excluded| excluded == value) {
            return (Judged::LeftOut(format!("{name} \"{value}\"")), false);
        }
        if let Some(uncertain) = uncertain
            && uncertain.values.iter().any(|known| known == value)
        {
            let judged = match self.policy {
                Some(Policy::Zeros) => Judged::Class(uncertain.zeros.clone()),
                Some(Policy::Ones) => Judged::Class(uncertain.ones.clone()),
                Some(Policy::Ignore) | None => Judged::LeftOut(format!("{name} \"{value}\", uncertain")),
            };
            return (judged, true);
        }
        let judged = match classes.get(value) {
            Some(class) => Judged::Class(class.clone()),
            None if classes.is_empty() && !value.is_empty() => Judged::Class(value.to_owned()),
            None => Judged::Unknown(format!("{name} \"{value}\"")),
        };
        (judged, false)
    }

    fn columns<'f>(&self, field: impl Fn(&str) -> &'f str) -> (Judged, bool) {
        let LabelRule::Columns { findings, present, absent, uncertain } = self.rule else {
            unreachable!("asked of columns alone")
        };
        let mut any_uncertain = false;
        let mut shown = Vec::with_capacity(findings.len());
        for finding in findings {
            let value = field(finding);
            let is = |known: &[String]| known.iter().any(|known| known == value);
            shown.push(if is(present) {
                1
            } else if is(absent) {
                0
            } else if is(uncertain) {
                any_uncertain = true;
                u8::from(self.policy == Some(Policy::Ones))
            } else {
                return (Judged::Unknown(format!("{finding} \"{value}\"")), false);
            });
        }
        (Judged::Findings(shown), any_uncertain)
    }
}

fn list(name: &str, value: &str, separator: &str, findings: &[String], none: &[String]) -> Judged {
    let mut shown = vec![0; findings.len()];
    if none.iter().any(|none| none == value) {
        return Judged::Findings(shown);
    }
    for word in value.split(separator).map(str::trim) {
        match findings.iter().position(|finding| finding == word) {
            Some(index) => shown[index] = 1,
            None => return Judged::Unknown(format!("{name} \"{word}\"")),
        }
    }
    Judged::Findings(shown)
}

fn is_one(value: &str) -> bool {
    value.parse::<f64>() == Ok(1.0)
}
