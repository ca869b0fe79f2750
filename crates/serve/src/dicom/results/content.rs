//! Content items of structured reports (PS3.3, section C.17.3).

use super::elements::{put, sequence};
use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use sha2::{Digest, Sha256};

/// The coding scheme of task and class names, which no standard lists.
pub(super) const SCHEME: &str = "99MELO";

/// Longest code value of SH, and longest meaning of LO (PS3.5, section 6.2).
const CODE_CHARS: usize = 16;
const MEANING_CHARS: usize = 64;

/// A coded concept: value, scheme, meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Code {
    value: String,
    scheme: &'static str,
    meaning: String,
}

impl Code {
    pub(super) fn new(value: &str, scheme: &'static str, meaning: &str) -> Self {
        Code { value: value.to_owned(), scheme, meaning: meaning.to_owned() }
    }

    /// Of DICOM's own scheme (PS3.16, annex D).
    pub(super) fn dcm(value: &str, meaning: &str) -> Self {
        Code::new(value, "DCM", meaning)
    }

    /// Of SNOMED CT.
    pub(super) fn sct(value: &str, meaning: &str) -> Self {
        Code::new(value, "SCT", meaning)
    }

    /// Of our scheme. The value is the name itself where it is a code value, else the beginning of its SHA-256.
    pub(super) fn ours(name: &str, meaning: String) -> Self {
        let plain = |c: char| c.is_ascii_graphic() && c != '\\';
        let value = match name.len() <= CODE_CHARS && name.chars().all(plain) {
            true => name.to_owned(),
            false => melo_vit::hex(&Sha256::digest(name.as_bytes()))[..CODE_CHARS].to_owned(),
        };
        Code { value, scheme: SCHEME, meaning: meaning.chars().take(MEANING_CHARS).collect() }
    }

    pub(super) fn item(&self) -> InMemDicomObject {
        let mut item = InMemDicomObject::new_empty();
        put(&mut item, tags::CODE_VALUE, VR::SH, self.value.as_str());
        put(&mut item, tags::CODING_SCHEME_DESIGNATOR, VR::SH, self.scheme);
        put(&mut item, tags::CODE_MEANING, VR::LO, self.meaning.as_str());
        item
    }
}

/// How an item belongs to the one above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Relation {
    Contains,
    HasConceptMod,
    HasObsContext,
    HasAcqContext,
    HasProperties,
}

/// An item with what stands under it.
pub(super) struct Item {
    object: InMemDicomObject,
    children: Vec<InMemDicomObject>,
}

impl Item {
    fn new(kind: &str, concept: Option<&Code>) -> Self {
        let mut object = InMemDicomObject::new_empty();
        put(&mut object, tags::VALUE_TYPE, VR::CS, kind);
        if let Some(concept) = concept {
            sequence(&mut object, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept.item()]);
        }
        Item { object, children: Vec::new() }
    }

    /// A heading; with a number where a template of PS3.16 begins here.
    pub(super) fn container(concept: &Code, template: Option<&str>) -> Self {
        let mut item = Item::new("CONTAINER", Some(concept));
        put(&mut item.object, tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
        if let Some(template) = template {
            let mut object = InMemDicomObject::new_empty();
            put(&mut object, tags::MAPPING_RESOURCE, VR::CS, "DCMR");
            put(&mut object, tags::TEMPLATE_IDENTIFIER, VR::CS, template);
            sequence(&mut item.object, tags::CONTENT_TEMPLATE_SEQUENCE, vec![object]);
        }
        item
    }

    pub(super) fn text(concept: &Code, text: String) -> Self {
        let mut item = Item::new("TEXT", Some(concept));
        put(&mut item.object, tags::TEXT_VALUE, VR::UT, text);
        item
    }

    pub(super) fn code(concept: &Code, value: &Code) -> Self {
        let mut item = Item::new("CODE", Some(concept));
        sequence(&mut item.object, tags::CONCEPT_CODE_SEQUENCE, vec![value.item()]);
        item
    }

    pub(super) fn identifier(concept: &Code, uid: &str) -> Self {
        let mut item = Item::new("UIDREF", Some(concept));
        put(&mut item.object, tags::UID, VR::UI, uid);
        item
    }

    /// A number without a unit, in UCUM `1`: as text of DS, and as computed.
    pub(super) fn number(concept: &Code, value: f32) -> Self {
        let mut item = Item::new("NUM", Some(concept));
        let mut measured = InMemDicomObject::new_empty();
        put(&mut measured, tags::FLOATING_POINT_VALUE, VR::FD, f64::from(value));
        put(&mut measured, tags::NUMERIC_VALUE, VR::DS, format!("{value:.6}"));
        let unit = Code::new("1", "UCUM", "no units").item();
        sequence(&mut measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![unit]);
        sequence(&mut item.object, tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
        item
    }

    pub(super) fn image(concept: Option<&Code>, reference: InMemDicomObject) -> Self {
        let mut item = Item::new("IMAGE", concept);
        sequence(&mut item.object, tags::REFERENCED_SOP_SEQUENCE, vec![reference]);
        item
    }

    /// With another item under it.
    pub(super) fn with(mut self, relation: Relation, child: Item) -> Self {
        let relation = match relation {
            Relation::Contains => "CONTAINS",
            Relation::HasConceptMod => "HAS CONCEPT MOD",
            Relation::HasObsContext => "HAS OBS CONTEXT",
            Relation::HasAcqContext => "HAS ACQ CONTEXT",
            Relation::HasProperties => "HAS PROPERTIES",
        };
        let mut child = child.finish();
        put(&mut child, tags::RELATIONSHIP_TYPE, VR::CS, relation);
        self.children.push(child);
        self
    }

    /// The data set of the item and all under it.
    pub(super) fn finish(mut self) -> InMemDicomObject {
        if !self.children.is_empty() {
            sequence(&mut self.object, tags::CONTENT_SEQUENCE, self.children);
        }
        self.object
    }
}
