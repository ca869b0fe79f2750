//! Seeds that come over a network: what a client of the tests sends.

use super::seed;
use crate::form::{Field, form};
use crate::peer::{CLASS, command, data_set, image, part10};
use dicom_transfer_syntax_registry::entries;
use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AssociationRQ, PDataValue, PDataValueType, PresentationContextProposed, UserVariableItem, write_pdu,
};
use melo_fuzz::golden;

pub(crate) fn seeds() {
    for (index, pdu) in pdus().iter().enumerate() {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).expect("in memory");
        seed("dimse", &format!("pdu{index}"), &[0], &bytes);
    }
    seed("dimse", "store", &[1], &store());
    seed("dimse", "echo", &[1], &command(&[(0x0100, &[0x30, 0]), (0x0110, &[9, 0]), (0x0800, &[1, 1])]));
    let answer: [(u16, &[u8]); 5] =
        [(0x0100, &[1, 0x80]), (0x0120, &[1, 0]), (0x0800, &[1, 1]), (0x0900, &[0, 0xa7]), (0x0902, b"full")];
    seed("dimse", "answer", &[1], &command(&answer));
    seed("dimse", "explicit", &[2, 0], &data_set(&image("1.2.3", "DX")));
    let mut implicit = Vec::new();
    let syntax = entries::IMPLICIT_VR_LITTLE_ENDIAN.erased();
    image("1.2.3", "DX").write_dataset_with_ts(&mut implicit, &syntax).expect("in memory");
    seed("dimse", "implicit", &[2, 1], &implicit);
    multipart();
    infer();
}

fn store() -> Vec<u8> {
    command(&[
        (0x0002, CLASS.as_bytes()),
        (0x0100, &[1, 0]),
        (0x0110, &[1, 0]),
        (0x0700, &[0, 0]),
        (0x0800, &[0, 0]),
        (0x1000, b"1.2.3"),
    ])
}

/// An association in which an image is stored.
fn pdus() -> [Pdu; 4] {
    let context = PresentationContextProposed {
        id: 3,
        abstract_syntax: CLASS.to_owned(),
        transfer_syntaxes: vec!["1.2.840.10008.1.2.1".to_owned(), "1.2.840.10008.1.2".to_owned()],
    };
    let request = AssociationRQ {
        protocol_version: 1,
        calling_ae_title: "PEER".to_owned(),
        called_ae_title: "MELO".to_owned(),
        application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
        presentation_contexts: vec![context],
        user_variables: vec![
            UserVariableItem::MaxLength(16_384),
            UserVariableItem::ImplementationClassUID("1.2.3".to_owned()),
            UserVariableItem::ImplementationVersionName("PEER".to_owned()),
        ],
    };
    let data = |value_type, data| Pdu::PData {
        data: vec![PDataValue { presentation_context_id: 3, value_type, is_last: true, data }],
    };
    [
        request.into(),
        data(PDataValueType::Command, store()),
        data(PDataValueType::Data, data_set(&image("1.2.3", "DX"))),
        Pdu::ReleaseRQ,
    ]
}

fn multipart() {
    let seed = |name: &str, kind: u8, content_type: &str, body: &[u8]| {
        seed("multipart", name, &[kind], &[content_type.as_bytes(), b"\n", body].concat());
    };
    let png = std::fs::read(golden("imaging", "grey8.png")).expect("a golden file");
    let forms: [&[Field<'_>]; 2] = [
        &[("image", Some("film.png"), &png), ("tasks", None, b"all"), ("heatmap", None, b"true")],
        &[("image", Some("a"), b"x"), ("image", Some("b"), b""), ("tasks", None, b"a,b@0123"), ("preview", None, b"1")],
    ];
    for (index, fields) in forms.iter().enumerate() {
        let (content_type, body) = form(fields);
        seed(&format!("form{index}"), 0, &content_type, &body);
    }
    let mut body = Vec::new();
    for object in [part10(image("1.2.3", "DX")), b"nonsense".to_vec()] {
        body.extend(b"--x\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend(object);
        body.extend(b"\r\n");
    }
    body.extend(b"--x--\r\n");
    seed("related", 1, "multipart/related; type=\"application/dicom\"; boundary=x", &body);
    seed("preamble", 1, "Multipart/Related; boundary=\"a b\"", b"preamble\r\n--a b \r\n\r\none\r\n--a b--\r\nepilogue");
}

fn infer() {
    let json: [&str; 3] = [
        r#"{"id": "7", "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGVsbG8="]}]}"#,
        r#"{"inputs": [{"name": "pixels", "shape": [1, 3, 2, 1], "datatype": "FP32", "data": [[[1, 2.5], [-3e1, 4], [5, 6]]]}],
            "outputs": [{"name": "logits", "parameters": {"binary_data": true}}]}"#,
        r#"{"parameters": {"binary_data_output": true}, "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["", ""]}]}"#,
    ];
    for (index, json) in json.iter().enumerate() {
        seed("infer", &format!("json{index}"), &[0], json.as_bytes());
    }
    let binary = [("BYTES", "[2]", &b"\x02\0\0\0ab\0\0\0\0"[..]), ("FP32", "[1, 2, 1]", &[0, 0, 128, 63, 0, 0, 0, 64])];
    for (datatype, shape, data) in binary {
        let size = data.len();
        let json = format!(
            r#"{{"inputs": [{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "parameters": {{"binary_data_size": {size}}}}}]}}"#
        );
        let length = u16::try_from(json.len()).expect("it is short").to_le_bytes();
        seed("infer", datatype, &[1, length[0], length[1]], &[json.as_bytes(), data].concat());
    }
}
