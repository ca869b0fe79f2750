//! A record of the audit as a message of RFC 5424 with the DICOM Audit Message XML (PS3.15, A.5 and A.6), as receivers of IHE's ATNA take it.

use crate::audit::{Action, Head, Record};
use crate::clock::rfc3339;
use crate::replica::host_name;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// Bytes of a message that every receiver must take (PS3.15, A.6); what would make it longer is left out.
const BYTES: usize = 32_768;
/// Facility 10, security, with severity 5, notice, and with 4, warning (PS3.15, A.6).
const PRIORITIES: [u8; 2] = [85, 84];
/// What says that the text is UTF-8 (RFC 5424, section 6.4).
const BOM: &str = "\u{feff}";

/// Who sends.
pub(super) struct Source {
    /// Name of the machine.
    host: String,
    /// Which of several servers.
    replica: String,
    process: u32,
}

impl Source {
    /// This process, as a replica of that name.
    pub(super) fn here(replica: &str) -> Self {
        Source { host: host_name(), replica: replica.to_owned(), process: std::process::id() }
    }

    /// The message of a row that was written at a time, ms since 1970 in UTC.
    pub(super) fn message(&self, record: &Record, row: &Head, time_ms: i64) -> Vec<u8> {
        let meaning = Meaning::of(record);
        let priority = PRIORITIES[usize::from(meaning.outcome != 0)];
        let (time, Source { host, process, .. }) = (rfc3339(time_ms), self);
        let head = format!("<{priority}>1 {time} {host} melo {process} DICOM+RFC3881 - {BOM}");
        let whole = self.xml(record, &meaning, row, time_ms, true);
        match head.len() + whole.len() <= BYTES {
            true => (head + &whole).into_bytes(),
            false => (head + &self.xml(record, &meaning, row, time_ms, false)).into_bytes(),
        }
    }

    fn xml(&self, record: &Record, meaning: &Meaning, row: &Head, time_ms: i64, with_output: bool) -> String {
        let Record { request_id, who, via, input_digest, sop_instance_uid, task, plugin_digest, .. } = record;
        let mut xml = r#"<?xml version="1.0" encoding="UTF-8"?><AuditMessage>"#.to_owned();
        let Meaning { event, kind, action, outcome } = meaning;
        let time = rfc3339(time_ms);
        element(
            &mut xml,
            "EventIdentification",
            &[("EventActionCode", action), ("EventDateTime", &time), ("EventOutcomeIndicator", &outcome.to_string())],
            |xml| {
                code(xml, "EventID", event, "DCM");
                kind.iter().for_each(|kind| code(xml, "EventTypeCode", kind, "DCM"));
                let own = record.action.name();
                code(xml, "EventTypeCode", &(own, own), "99MELO");
            },
        );
        let is_asked = via != "server";
        let address = record.output.get("address").and_then(serde_json::Value::as_str).filter(|_| is_asked);
        let mut asks = vec![("UserID", who.as_str()), ("UserIsRequestor", "true")];
        // An IP address (RFC 3881, section 5.2.5).
        asks.extend(
            address
                .iter()
                .flat_map(|address| [("NetworkAccessPointID", *address), ("NetworkAccessPointTypeCode", "2")]),
        );
        if is_asked {
            element(&mut xml, "ActiveParticipant", &asks, |_| ());
        }
        let process = self.process.to_string();
        let own = [
            ("UserID", process.as_str()),
            ("UserName", "melo"),
            ("UserIsRequestor", if is_asked { "false" } else { "true" }),
        ];
        element(&mut xml, "ActiveParticipant", &own, |xml| code(xml, "RoleIDCode", &("110150", "Application"), "DCM"));
        element(&mut xml, "AuditSourceIdentification", &[("AuditSourceID", &self.replica)], |_| ());
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        // Roles 3, report, and 13, security resource; type 2, system object (RFC 3881, section 5.4).
        let mut object = |id: &str, role: &str, kind: &str, name: &str, details: &[(&str, &str)]| {
            let id = [
                ("ParticipantObjectID", id),
                ("ParticipantObjectTypeCode", "2"),
                ("ParticipantObjectTypeCodeRole", role),
            ];
            element(&mut xml, "ParticipantObjectIdentification", &id, |xml| {
                code(xml, "ParticipantObjectIDTypeCode", &(kind, kind), "99MELO");
                xml.push_str("<ParticipantObjectName>");
                escaped(xml, name);
                xml.push_str("</ParticipantObjectName>");
                for (kind, value) in details.iter().filter(|(_, value)| !value.is_empty()) {
                    element(
                        xml,
                        "ParticipantObjectDetail",
                        &[("type", kind), ("value", &STANDARD.encode(value))],
                        |_| (),
                    );
                }
            });
        };
        if let Some(uid) = sop_instance_uid {
            object(uid, "3", "sop_instance_uid", "image", &[("input_digest", &text(input_digest))]);
        } else if let Some(digest) = input_digest {
            object(digest, "3", "input_digest", "image", &[]);
        }
        if !task.is_empty() {
            let about = [("backbone_digest", record.backbone_digest.as_str()), ("precision", &record.precision)];
            object(&text(plugin_digest), "13", "plugin_digest", task, &about);
        }
        let output = if with_output { record.output.to_string() } else { r#""too long for a message""#.to_owned() };
        let about = [("via", via.as_str()), ("request_id", request_id), ("output", &output)];
        object(&row.to_string(), "13", "audit_row", "row of the audit", &about);
        xml.push_str("</AuditMessage>");
        xml
    }
}

/// A code and its meaning.
type Code = (&'static str, &'static str);

/// What an action is called (PS3.16, CID 400 and 401), done to (PS3.15, A.5.2: create, read, update, delete, execute), and how it ended.
struct Meaning {
    event: Code,
    kind: Option<Code>,
    action: &'static str,
    /// 0 success, 8 serious failure.
    outcome: u8,
}

impl Meaning {
    fn of(record: &Record) -> Self {
        const ACTIVITY: Code = ("110100", "Application Activity");
        const LOG_USED: Code = ("110101", "Audit Log Used");
        const ACCESSED: Code = ("110103", "DICOM Instances Accessed");
        const ALERT: Code = ("110113", "Security Alert");
        const AUTHENTICATION: Code = ("110114", "User Authentication");
        let (event, kind, action, outcome) = match record.action {
            Action::Answer => (ACCESSED, None, "R", 0),
            Action::Put | Action::Remove | Action::Pin | Action::Unpin | Action::Serve | Action::Withdraw => {
                (ALERT, Some(("110131", "Software Configuration")), "E", 0)
            }
            Action::Login => (AUTHENTICATION, Some(("110122", "Login")), "E", 0),
            Action::Refuse => (AUTHENTICATION, Some(("110122", "Login")), "E", 8),
            Action::Keys => (ALERT, Some(("110137", "User Security Attributes Changed")), "E", 0),
            Action::Start => (ACTIVITY, Some(("110120", "Application Start")), "E", 0),
            Action::Stop => (ACTIVITY, Some(("110121", "Application Stop")), "E", 0),
            Action::Archive => (LOG_USED, None, "U", 0),
        };
        Meaning { event, kind, action, outcome }
    }
}

fn code(xml: &mut String, name: &str, (code, meaning): &(&str, &str), system: &str) {
    element(xml, name, &[("csd-code", code), ("codeSystemName", system), ("originalText", meaning)], |_| ());
}

fn element(xml: &mut String, name: &str, attributes: &[(&str, &str)], inner: impl FnOnce(&mut String)) {
    let _ = write!(xml, "<{name}");
    for (name, value) in attributes {
        let _ = write!(xml, " {name}=\"");
        escaped(xml, value);
        xml.push('"');
    }
    xml.push('>');
    inner(xml);
    let _ = write!(xml, "</{name}>");
}

/// As text or the value of an attribute; what XML 1.0 has no character for is shown as such (section 2.2).
fn escaped(xml: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => xml.push('\u{fffd}'),
            c => xml.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(action: Action) -> Record {
        Record {
            action,
            request_id: "pacs-7".to_owned(),
            who: "R&D \"one\" <x>\n".to_owned(),
            via: "http".to_owned(),
            input_digest: Some("ab".repeat(32)),
            sop_instance_uid: Some("1.2.3".to_owned()),
            task: "chest".to_owned(),
            plugin_digest: Some("cd".repeat(32)),
            backbone_digest: "ef".repeat(32),
            precision: "f32".to_owned(),
            output: json!({ "effusion": 0.5 }),
        }
    }

    fn sent(record: &Record) -> String {
        let source = Source { host: "node-1".to_owned(), replica: "melo-2".to_owned(), process: 42 };
        let row = Head { rows: 7, hash: "01".repeat(32) };
        String::from_utf8(source.message(record, &row, 1_790_856_000_250)).unwrap()
    }

    #[test]
    fn an_answer_is_a_message_that_holds_its_row() {
        let row = format!("{}@7", "01".repeat(32));
        let detail = |kind: &str, value: &str| {
            format!(
                r#"<ParticipantObjectDetail type="{kind}" value="{}"></ParticipantObjectDetail>"#,
                STANDARD.encode(value)
            )
        };
        let object = |id: &str, role: &str, kind: &str, name: &str, details: String| {
            format!(
                "<ParticipantObjectIdentification ParticipantObjectID=\"{id}\" ParticipantObjectTypeCode=\"2\" \
                 ParticipantObjectTypeCodeRole=\"{role}\"><ParticipantObjectIDTypeCode csd-code=\"{kind}\" \
                 codeSystemName=\"99MELO\" originalText=\"{kind}\"></ParticipantObjectIDTypeCode>\
                 <ParticipantObjectName>{name}</ParticipantObjectName>{details}</ParticipantObjectIdentification>"
            )
        };
        let expected = [
            "<85>1 2026-10-01T12:00:00.250Z node-1 melo 42 DICOM+RFC3881 - \u{feff}".to_owned(),
            r#"<?xml version="1.0" encoding="UTF-8"?><AuditMessage>"#.to_owned(),
            r#"<EventIdentification EventActionCode="R" EventDateTime="2026-10-01T12:00:00.250Z" EventOutcomeIndicator="0">"#.to_owned(),
            r#"<EventID csd-code="110103" codeSystemName="DCM" originalText="DICOM Instances Accessed"></EventID>"#.to_owned(),
            r#"<EventTypeCode csd-code="answer" codeSystemName="99MELO" originalText="answer"></EventTypeCode>"#.to_owned(),
            "</EventIdentification>".to_owned(),
            "<ActiveParticipant UserID=\"R&amp;D &quot;one&quot; &lt;x&gt;\u{fffd}\" UserIsRequestor=\"true\"></ActiveParticipant>".to_owned(),
            r#"<ActiveParticipant UserID="42" UserName="melo" UserIsRequestor="false">"#.to_owned(),
            r#"<RoleIDCode csd-code="110150" codeSystemName="DCM" originalText="Application"></RoleIDCode></ActiveParticipant>"#.to_owned(),
            r#"<AuditSourceIdentification AuditSourceID="melo-2"></AuditSourceIdentification>"#.to_owned(),
            object("1.2.3", "3", "sop_instance_uid", "image", detail("input_digest", &"ab".repeat(32))),
            object(
                &"cd".repeat(32),
                "13",
                "plugin_digest",
                "chest",
                detail("backbone_digest", &"ef".repeat(32)) + &detail("precision", "f32"),
            ),
            object(
                &row,
                "13",
                "audit_row",
                "row of the audit",
                detail("via", "http") + &detail("request_id", "pacs-7") + &detail("output", r#"{"effusion":0.5}"#),
            ),
            "</AuditMessage>".to_owned(),
        ];
        assert_eq!(sent(&record(Action::Answer)), expected.concat());
    }

    #[test]
    fn who_is_turned_away_is_a_failure_with_an_address() {
        let output = json!({ "address": "10.0.0.7", "reason": "the key is not known", "before": 3 });
        let message = sent(&Record {
            output,
            input_digest: None,
            sop_instance_uid: None,
            task: String::new(),
            ..record(Action::Refuse)
        });
        for part in [
            "<84>1 ",
            r#"EventOutcomeIndicator="8""#,
            r#"csd-code="110114""#,
            r#"csd-code="110122" codeSystemName="DCM" originalText="Login""#,
            r#"NetworkAccessPointID="10.0.0.7" NetworkAccessPointTypeCode="2""#,
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(message.matches("<ParticipantObjectIdentification").count(), 1);
        let own = sent(&Record { via: "server".to_owned(), who: "melo".to_owned(), ..record(Action::Start) });
        assert!(own.matches("<ActiveParticipant").count() == 1 && own.contains(r#"UserIsRequestor="true""#), "{own}");
    }

    #[test]
    fn a_message_is_never_longer_than_every_receiver_takes() {
        let classes: serde_json::Map<_, _> = (0..9000).map(|class| (format!("class {class}"), json!(0.5))).collect();
        let message = sent(&Record { output: classes.into(), ..record(Action::Answer) });
        assert!(message.len() <= BYTES && message.ends_with("</AuditMessage>"), "{}", message.len());
        assert!(
            message.contains(&STANDARD.encode("\"too long for a message\"")) && message.contains("@7\""),
            "{message}"
        );
    }
}
