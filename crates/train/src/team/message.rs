//! What ranks say to each other, in bytes: numbers little-endian, texts and lists after their lengths.

use super::TeamError;

/// What every exchange carries.
pub(super) struct Message {
    /// What the rank is doing.
    pub(super) what: String,
    /// Its machine.
    pub(super) host: String,
    /// What it has to say, or why it failed.
    pub(super) content: Result<Vec<u8>, String>,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Writer::default();
        bytes.text(&self.what);
        bytes.text(&self.host);
        bytes.number(u64::from(self.content.is_ok()));
        match &self.content {
            Ok(content) => bytes.0.extend(content),
            Err(reason) => bytes.text(reason),
        }
        bytes.bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, TeamError> {
        let mut reader = Reader::new(bytes);
        let mut read = || {
            let (what, host) = (reader.try_text()?, reader.try_text()?);
            let content = match reader.try_number()? {
                0 => Err(reader.try_text()?),
                _ => Ok(reader.0.to_vec()),
            };
            Some(Message { what, host, content })
        };
        read().ok_or_else(|| TeamError::Lost { reason: "what they say is not understood".to_owned() })
    }

    pub(super) fn failure(&self, rank: usize) -> TeamError {
        let message = self.content.as_ref().err().cloned().unwrap_or_default();
        TeamError::Failed { rank, host: self.host.clone(), message }
    }
}

/// Puts things into bytes.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn double(&mut self, number: f64) {
        self.number(number.to_bits());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub(crate) fn values(&mut self, values: &[f32]) {
        self.number(values.len() as u64);
        self.0.reserve(4 * values.len());
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes them out again, in the same order. What a [`Message`] holds was put in by this version.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.try_number().expect("a number was put in")
    }

    pub(crate) fn index(&mut self) -> usize {
        usize::try_from(self.number()).expect("an index was put in")
    }

    pub(crate) fn double(&mut self) -> f64 {
        f64::from_bits(self.number())
    }

    pub(crate) fn text(&mut self) -> String {
        self.try_text().expect("a text was put in")
    }

    pub(crate) fn values(&mut self) -> Vec<f32> {
        let length = 4 * self.index();
        let bytes = self.take(length).expect("values were put in");
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect()
    }

    fn try_number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn try_text(&mut self) -> Option<String> {
        let length = usize::try_from(self.try_number()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_other_bytes_are_refused() {
        for content in [Ok(vec![1, 2, 3]), Ok(Vec::new()), Err("a full disk".to_owned())] {
            let bytes = Message { what: "a step".into(), host: "b".into(), content: content.clone() }.encode();
            let back = Message::decode(&bytes).expect("what was put in");
            assert_eq!((back.what.as_str(), back.host.as_str(), &back.content), ("a step", "b", &content));
            assert!(Message::decode(&bytes[..20]).is_err());
        }
        assert!(Message::decode(&[255; 16]).is_err());
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let (mut writer, values) = (Writer::default(), [0.1, -0.0, f32::INFINITY]);
        writer.values(&values);
        writer.double(0.1 + 0.2);
        let bytes = writer.bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.values().iter().map(|x| x.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
        assert_eq!(reader.double(), 0.1 + 0.2);
        assert!(reader.is_empty());
    }
}
