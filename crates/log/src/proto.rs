//! The few messages of TensorBoard's event files, in the wire format of protocol buffers
//! (<https://protobuf.dev/programming-guides/encoding/>; `tensorboard/compat/proto/{event,summary,tensor}.proto`).

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    pub(crate) fn int(mut self, field: u64, value: u64) -> Self {
        self.key(field, VARINT);
        self.varint(value);
        self
    }

    pub(crate) fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    pub(crate) fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// `Event` with a wall time in seconds and a step; what it holds is still to be added.
pub(crate) fn event(seconds: f64, step: u64) -> Message {
    Message::default().double(1, seconds).int(2, step)
}

/// `Event.file_version`, the first of a file.
pub(crate) fn file_version(seconds: f64) -> Message {
    Message::default().double(1, seconds).bytes(3, b"brain.Event:2")
}

/// `Event.session_log` of a start: what other files of the folder hold from its step on no longer counts.
pub(crate) fn session_start(seconds: f64, step: u64) -> Message {
    event(seconds, step).message(7, Message::default().int(1, 1))
}

/// `Event.summary` of values.
pub(crate) fn summary(seconds: f64, step: u64, values: Vec<Message>) -> Message {
    let summary = values.into_iter().fold(Message::default(), |summary, value| summary.message(1, value));
    event(seconds, step).message(5, summary)
}

/// `Summary.Value` of a number.
pub(crate) fn scalar(tag: &str, value: f32) -> Message {
    Message::default().bytes(1, tag.as_bytes()).float(2, value)
}

/// `Summary.Value` of an encoded RGB picture.
pub(crate) fn picture(tag: &str, height: usize, width: usize, encoded: &[u8]) -> Message {
    let image = Message::default().int(1, height as u64).int(2, width as u64).int(3, 3).bytes(4, encoded);
    Message::default().bytes(1, tag.as_bytes()).message(4, image)
}

/// `Summary.Value` of Markdown.
pub(crate) fn text(tag: &str, markdown: &str) -> Message {
    let tensor = Message::default().int(1, STRING).message(2, shape(&[1])).bytes(8, markdown.as_bytes());
    Message::default().bytes(1, tag.as_bytes()).message(9, plugin("text", Message::default())).message(8, tensor)
}

/// `Summary.Value` of a curve of precision and recall: rows `[6, n]` of true positives, false positives, true negatives, false negatives,
/// precision and recall at `n` thresholds.
pub(crate) fn pr_curve(tag: &str, rows: &[f32], thresholds: usize) -> Message {
    let content: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor =
        Message::default().int(1, FLOAT).message(2, shape(&[rows.len() / thresholds, thresholds])).bytes(4, &content);
    let metadata = plugin("pr_curves", Message::default().int(2, thresholds as u64));
    Message::default().bytes(1, tag.as_bytes()).message(9, metadata).message(8, tensor)
}

/// `DataType`s of `TensorProto`.
const FLOAT: u64 = 1;
const STRING: u64 = 7;
/// `DataClass` of what is a tensor.
const TENSOR: u64 = 2;

/// `TensorShapeProto`.
fn shape(sizes: &[usize]) -> Message {
    let dim = |size: &usize| Message::default().int(1, *size as u64);
    sizes.iter().fold(Message::default(), |shape, size| shape.message(2, dim(size)))
}

/// `SummaryMetadata` of a part of TensorBoard, and what it wants to know.
fn plugin(name: &str, content: Message) -> Message {
    let plugin = Message::default().bytes(1, name.as_bytes()).bytes(2, content.encoded());
    Message::default().message(1, plugin).int(4, TENSOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_several_bytes_are_varints() {
        assert_eq!(Message::default().int(1, 150).encoded(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().int(16, 1).encoded(), [0x80, 0x01, 0x01]);
        let most = Message::default().int(1, u64::MAX);
        assert_eq!(most.encoded().len(), 11);
    }
}
