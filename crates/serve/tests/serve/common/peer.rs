//! A peer of the DICOM network: small images, and C-STORE as a modality sends them.

use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_ul::association::{CloseSocket, Error as Broken};
use dicom_ul::pdu::{PDataValue, PDataValueType};
use dicom_ul::{ClientAssociation, ClientAssociationOptions, Pdu};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const CLASS: &str = uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION;

/// Bytes of a data set in one PDU; by default a receiver takes at least 16 KiB.
const FRAGMENT: usize = 16_000;

/// A small image.
pub(crate) fn image(instance: &str, modality: &str) -> InMemDicomObject {
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, Value::Primitive(PrimitiveValue::from(value)));
    let number = |tag, value: u16| DataElement::new(tag, VR::US, Value::Primitive(PrimitiveValue::from(value)));
    let pixels: Vec<u8> = (0..24 * 20).map(|index: usize| (index * 37 % 251) as u8).collect();
    InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, CLASS),
        text(tags::SOP_INSTANCE_UID, VR::UI, instance),
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3.1"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.2"),
        text(tags::MODALITY, VR::CS, modality),
        text(tags::PATIENT_NAME, VR::PN, "Peer^Test"),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        number(tags::SAMPLES_PER_PIXEL, 1),
        number(tags::ROWS, 20),
        number(tags::COLUMNS, 24),
        number(tags::BITS_ALLOCATED, 8),
        number(tags::BITS_STORED, 8),
        number(tags::HIGH_BIT, 7),
        number(tags::PIXEL_REPRESENTATION, 0),
        DataElement::new(tags::PIXEL_DATA, VR::OB, Value::Primitive(PrimitiveValue::U8(pixels.into()))),
    ])
}

/// A slice of a series, `UID.Z`, at `z` mm: of a side, and of its own pixels.
#[allow(dead_code, reason = "a part of it is used everywhere")]
pub(crate) fn slice_of(series: &str, z: usize, side: u16) -> InMemDicomObject {
    let mut slice = image(&format!("{series}.{z}"), "CT");
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, Value::Primitive(PrimitiveValue::from(value)));
    slice.put(text(tags::SERIES_INSTANCE_UID, VR::UI, series));
    slice.put(text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("0\\0\\{z}")));
    slice.put(text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0"));
    for tag in [tags::ROWS, tags::COLUMNS] {
        slice.put(DataElement::new(tag, VR::US, Value::Primitive(PrimitiveValue::from(side))));
    }
    let pixels: Vec<u8> = (0..usize::from(side).pow(2)).map(|at| (at * (37 + z) % 251) as u8).collect();
    slice.put(DataElement::new(tags::PIXEL_DATA, VR::OB, Value::Primitive(PrimitiveValue::U8(pixels.into()))));
    slice
}

pub(crate) fn part10(object: InMemDicomObject) -> Vec<u8> {
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let mut bytes = Vec::new();
    object.with_meta(meta).expect("a file").write_all(&mut bytes).expect("a file");
    bytes
}

pub(crate) fn data_set(object: &InMemDicomObject) -> Vec<u8> {
    let mut bytes = Vec::new();
    let syntax = dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
    object.write_dataset_with_ts(&mut bytes, &syntax).expect("a data set");
    bytes
}

pub(crate) fn connect(address: SocketAddr, called: &str) -> Result<ClientAssociation<TcpStream>, Broken> {
    options(called).establish(address)
}

/// What a modality asks for.
pub(crate) fn options(called: &str) -> ClientAssociationOptions<'_> {
    ClientAssociationOptions::new()
        .calling_ae_title("TEST")
        .called_ae_title(called)
        .with_presentation_context(uids::VERIFICATION, vec![uids::IMPLICIT_VR_LITTLE_ENDIAN])
        .with_presentation_context(CLASS, vec![uids::EXPLICIT_VR_LITTLE_ENDIAN])
        .with_presentation_context(uids::COMPREHENSIVE_SR_STORAGE, vec![uids::EXPLICIT_VR_LITTLE_ENDIAN])
        .with_presentation_context(uids::SECONDARY_CAPTURE_IMAGE_STORAGE, vec![uids::EXPLICIT_VR_LITTLE_ENDIAN])
        .read_timeout(Duration::from_secs(20))
}

/// A command set with group length.
pub(crate) fn command(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (element, value) in elements {
        let odd = value.len() % 2;
        body.extend([0, 0]);
        body.extend(element.to_le_bytes());
        body.extend(((value.len() + odd) as u32).to_le_bytes());
        body.extend(*value);
        body.extend(std::iter::repeat_n(0, odd));
    }
    let mut bytes = vec![0, 0, 0, 0, 4, 0, 0, 0];
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}

pub(crate) fn value(context: u8, value_type: PDataValueType, data: Vec<u8>) -> Pdu {
    Pdu::PData { data: vec![PDataValue { presentation_context_id: context, value_type, is_last: true, data }] }
}

/// The status of the answer.
pub(crate) fn status<S: Read + Write + CloseSocket>(association: &mut ClientAssociation<S>) -> u16 {
    let Ok(Pdu::PData { data }) = association.receive() else { panic!("no answer") };
    let bytes = &data[0].data;
    let mut rest = &bytes[..];
    while rest.len() >= 8 {
        let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        if rest[2..4] == 0x0900_u16.to_le_bytes() {
            return u16::from_le_bytes([rest[8], rest[9]]);
        }
        rest = &rest[8 + length..];
    }
    panic!("an answer without a status");
}

/// C-STORE-RQ: a data set of `instance` follows.
pub(crate) fn announce<S: Read + Write + CloseSocket>(association: &mut ClientAssociation<S>, instance: &str) {
    let request = command(&[
        (0x0002, CLASS.as_bytes()),
        (0x0100, &[1, 0]),
        (0x0110, &[1, 0]),
        (0x0700, &[0, 0]),
        (0x0800, &[0, 0]),
        (0x1000, instance.as_bytes()),
    ]);
    association.send(&value(3, PDataValueType::Command, request)).expect("the command is sent");
}

/// A data set, or the beginning of one, in fragments that the other side takes.
pub(crate) fn send<S: Read + Write + CloseSocket>(association: &mut ClientAssociation<S>, data: &[u8], whole: bool) {
    let fragments = data.chunks(FRAGMENT).len();
    for (index, fragment) in data.chunks(FRAGMENT).enumerate() {
        let is_last = whole && index + 1 == fragments;
        let data = PDataValue {
            presentation_context_id: 3,
            value_type: PDataValueType::Data,
            is_last,
            data: fragment.to_vec(),
        };
        association.send(&Pdu::PData { data: vec![data] }).expect("the data set is sent");
    }
}

/// C-STORE: announces `instance` and sends `data`.
pub(crate) fn store<S: Read + Write + CloseSocket>(
    association: &mut ClientAssociation<S>,
    instance: &str,
    data: &[u8],
) -> u16 {
    announce(association, instance);
    send(association, data, true);
    status(association)
}
