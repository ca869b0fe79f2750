//! DIMSE command sets (PS3.7, section 6.3 and annex E): flat, implicit VR little endian, group 0.
//!
//! They are read here and not by `dicom-object`, whose parser nests without a bound: a command set holds no sequence.

/// C-STORE-RQ.
pub(super) const STORE: u16 = 0x0001;
/// C-ECHO-RQ.
pub(super) const ECHO: u16 = 0x0030;
/// Set in the command field of every response.
pub(super) const RESPONSE: u16 = 0x8000;
/// No data set follows.
const NO_DATA_SET: u16 = 0x0101;

/// Status codes (PS3.7, annex C; PS3.4, table B.2-1).
pub(super) mod status {
    pub(crate) const SUCCESS: u16 = 0x0000;
    pub(crate) const OUT_OF_RESOURCES: u16 = 0xa700;
    pub(crate) const DOES_NOT_MATCH: u16 = 0xa900;
    pub(crate) const CANNOT_UNDERSTAND: u16 = 0xc000;
    pub(crate) const NOT_AUTHORIZED: u16 = 0x0124;
    pub(crate) const UNRECOGNIZED_OPERATION: u16 = 0x0211;
}

const AFFECTED_CLASS: u16 = 0x0002;
const REQUESTED_CLASS: u16 = 0x0003;
const FIELD: u16 = 0x0100;
const MESSAGE: u16 = 0x0110;
const ANSWERED_MESSAGE: u16 = 0x0120;
const PRIORITY: u16 = 0x0700;
const DATA_SET_TYPE: u16 = 0x0800;
const STATUS: u16 = 0x0900;
const COMMENT: u16 = 0x0902;
const AFFECTED_INSTANCE: u16 = 0x1000;
/// Longest text of LO.
const COMMENT_CHARS: usize = 64;

/// What a command set says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Command {
    pub(super) field: u16,
    /// Message ID, of a response the one that it answers.
    pub(super) message: u16,
    pub(super) class: String,
    pub(super) instance: String,
    pub(super) status: u16,
    pub(super) comment: String,
    pub(super) data_set: bool,
}

impl Command {
    /// A C-STORE-RQ of medium priority.
    pub(super) fn store(message: u16, class: &str, instance: &str) -> Self {
        let (class, instance) = (class.to_owned(), instance.to_owned());
        Command { field: STORE, message, class, instance, data_set: true, ..Self::default() }
    }

    /// The answer to this request.
    pub(super) fn answer(&self, status: u16, comment: &str) -> Self {
        // Repertoire of LO without the backslash; the rest would be of some character set.
        let plain = |c: &char| (*c == ' ' || c.is_ascii_graphic()) && *c != '\\';
        Command {
            field: self.field | RESPONSE,
            message: self.message,
            class: self.class.clone(),
            instance: self.instance.clone(),
            status,
            comment: comment.chars().filter(plain).take(COMMENT_CHARS).collect(),
            data_set: false,
        }
    }

    /// Reads a command set; none where it is damaged or names no command.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut command = Command::default();
        let (mut field, mut message, mut rest) = (None, None, bytes);
        while !rest.is_empty() {
            let (head, behind) = rest.split_first_chunk::<8>()?;
            let [g0, g1, e0, e1, l0, l1, l2, l3] = *head;
            let value = behind.get(..u32::from_le_bytes([l0, l1, l2, l3]) as usize)?;
            rest = &behind[value.len()..];
            if [g0, g1] != [0, 0] {
                return None;
            }
            let number = || Some(u16::from_le_bytes(*value.first_chunk::<2>()?));
            match u16::from_le_bytes([e0, e1]) {
                AFFECTED_CLASS | REQUESTED_CLASS => command.class = text(value)?,
                FIELD => field = number(),
                MESSAGE | ANSWERED_MESSAGE => message = number(),
                DATA_SET_TYPE => command.data_set = number()? != NO_DATA_SET,
                STATUS => command.status = number()?,
                COMMENT => command.comment = text(value)?,
                AFFECTED_INSTANCE => command.instance = text(value)?,
                _ => {}
            }
        }
        (command.field, command.message) = (field?, message?);
        Some(command)
    }

    /// The command set, its group length first.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut put = |element: u16, value: &[u8], padding: u8| {
            let odd = value.len() % 2;
            body.extend_from_slice(&[0, 0]);
            body.extend_from_slice(&element.to_le_bytes());
            body.extend_from_slice(&((value.len() + odd) as u32).to_le_bytes());
            body.extend_from_slice(value);
            body.extend(std::iter::repeat_n(padding, odd));
        };
        let response = self.field & RESPONSE != 0;
        if !self.class.is_empty() {
            put(AFFECTED_CLASS, self.class.as_bytes(), 0);
        }
        put(FIELD, &self.field.to_le_bytes(), 0);
        put(if response { ANSWERED_MESSAGE } else { MESSAGE }, &self.message.to_le_bytes(), 0);
        if self.field == STORE {
            put(PRIORITY, &[0, 0], 0);
        }
        let data_set: u16 = if self.data_set { 1 } else { NO_DATA_SET };
        put(DATA_SET_TYPE, &data_set.to_le_bytes(), 0);
        if response {
            put(STATUS, &self.status.to_le_bytes(), 0);
        }
        if !self.comment.is_empty() {
            put(COMMENT, self.comment.as_bytes(), b' ');
        }
        if !self.instance.is_empty() {
            put(AFFECTED_INSTANCE, self.instance.as_bytes(), 0);
        }
        let mut bytes = vec![0, 0, 0, 0, 4, 0, 0, 0];
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes
    }
}

fn text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    Some(text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let request = Command::store(7, "1.2.840.10008.5.1.4.1.1.7", "1.2.3");
        assert_eq!(Command::read(&request.write()), Some(request.clone()));
        let answer = request.answer(status::OUT_OF_RESOURCES, "the disk is full\\ü");
        assert_eq!(answer.comment, "the disk is full");
        assert_eq!(Command::read(&answer.write()), Some(answer));
    }

    #[test]
    fn a_command_set_cut_anywhere_is_refused_or_read() {
        let whole = Command::store(7, "1.2.840.10008.5.1.4.1.1.7", "1.2.3");
        let bytes = whole.write();
        for length in 0..bytes.len() {
            // Cut between two elements, it says less of the same.
            if let Some(cut) = Command::read(&bytes[..length]) {
                assert_eq!((cut.field, cut.message, &cut.class), (whole.field, whole.message, &whole.class));
                assert!(!cut.data_set || cut.instance.is_empty(), "cut at {length}: {cut:?}");
            }
        }
        for position in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] = value;
                if let Some(read) = Command::read(&damaged) {
                    let again = Command::read(&read.write());
                    assert_eq!(
                        again.as_ref().map(|again| (again.field, again.message)),
                        Some((read.field, read.message))
                    );
                    assert_eq!(again.map(|again| (again.class, again.instance)), Some((read.class, read.instance)));
                }
            }
        }
        assert_eq!(Command::read(&[]), None);
    }
}
