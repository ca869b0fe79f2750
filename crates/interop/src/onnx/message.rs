//! A graph as the bytes of `ModelProto`; field numbers from `onnx.proto3` of ONNX 1.17, IR version 8.

use super::external::large;
use super::graph::{Attribute, Constant, Graph, Node, Numbers};
use super::protobuf::Message;

/// IR version of opset 17.
const IR_VERSION: i64 = 8;
/// LayerNormalization came with it.
const OPSET: i64 = 17;
/// `TensorProto.DataType`.
const FLOAT: i64 = 1;
const INT64: i64 = 7;
/// `AttributeProto.AttributeType`.
const ATTRIBUTE_FLOAT: i64 = 1;
const ATTRIBUTE_INT: i64 = 2;
const ATTRIBUTE_INTS: i64 = 7;

/// `TensorProto.DataLocation`.
const EXTERNAL: i64 = 1;

/// `ModelProto` with these entries of `metadata_props`; large constants lie in the file `beside`, where there is one.
pub(super) fn model(graph: &Graph, properties: &[(&str, &str)], beside: Option<&str>) -> Vec<u8> {
    let opset = Message::default().text(1, "").int(2, OPSET);
    let model = Message::default()
        .int(1, IR_VERSION)
        .text(2, "melo")
        .text(3, env!("CARGO_PKG_VERSION"))
        .message(7, graph_proto(graph, beside))
        .message(8, opset);
    let entry =
        |model: Message, (key, value): &(&str, &str)| model.message(14, Message::default().text(1, key).text(2, value));
    properties.iter().fold(model, entry).finish()
}

/// `GraphProto`.
fn graph_proto(graph: &Graph, beside: Option<&str>) -> Message {
    let message = graph.nodes.iter().fold(Message::default(), |message, node| message.message(1, node_proto(node)));
    let message = message.text(2, "melo");
    let mut offset = 0;
    let tensors = |message: Message, constant: &Constant| {
        let place = beside.zip(large(constant)).map(|(file, bytes)| (file, offset, bytes.len()));
        offset += place.map_or(0, |(.., len)| len);
        message.message(5, tensor_proto(constant, place))
    };
    let message = graph.constants.iter().fold(message, tensors);
    let (input, shape) = &graph.input;
    let message = message.message(11, value_info(input, shape));
    let outputs = |message: Message, output: &String| message.message(12, value_info(output, &[graph.classes]));
    graph.outputs.iter().fold(message, outputs)
}

/// `NodeProto`.
fn node_proto(node: &Node) -> Message {
    let message = node.inputs.iter().fold(Message::default(), |message, input| message.text(1, input));
    let message = message.text(2, &node.output).text(3, &node.output).text(4, node.operator);
    node.attributes.iter().fold(message, |message, (name, value)| message.message(5, attribute_proto(name, value)))
}

/// `AttributeProto`.
fn attribute_proto(name: &str, value: &Attribute) -> Message {
    let message = Message::default().text(1, name);
    match value {
        Attribute::Float(value) => message.float(2, *value).int(20, ATTRIBUTE_FLOAT),
        Attribute::Int(value) => message.int(3, *value).int(20, ATTRIBUTE_INT),
        Attribute::Ints(values) => {
            values.iter().fold(message, |message, &value| message.int(8, value)).int(20, ATTRIBUTE_INTS)
        }
    }
}

/// `TensorProto` with its numbers in `raw_data`, or in another file from an offset on.
fn tensor_proto(constant: &Constant, place: Option<(&str, usize, usize)>) -> Message {
    let message = constant.shape.iter().fold(Message::default(), |message, &size| message.int(1, size as i64));
    let (kind, bytes) = match &constant.numbers {
        Numbers::F32(bytes) => (FLOAT, bytes),
        Numbers::I64(bytes) => (INT64, bytes),
    };
    let message = message.int(2, kind).text(8, &constant.name);
    let Some((file, offset, len)) = place else {
        return message.bytes(9, bytes);
    };
    let entries = [("location", file.to_owned()), ("offset", offset.to_string()), ("length", len.to_string())];
    let entry = |message: Message, (key, value): &(&str, String)| {
        message.message(13, Message::default().text(1, key).text(2, value))
    };
    entries.iter().fold(message, entry).int(14, EXTERNAL)
}

/// `ValueInfoProto` of f32 numbers, `[n, …]` with `n` open.
fn value_info(name: &str, shape: &[usize]) -> Message {
    let batch = Message::default().message(1, Message::default().text(2, "n"));
    let sizes = |message: Message, &size: &usize| message.message(1, Message::default().int(1, size as i64));
    let tensor = Message::default().int(1, FLOAT).message(2, shape.iter().fold(batch, sizes));
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}
