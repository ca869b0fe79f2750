//! What is asked, whoever asks, and who that is.

use crate::auth::ANONYMOUS;
use melo_vit::rendering::Frame;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request.
    pub body_bytes: usize,
    /// Images of a request, of tasks that answer for single images.
    pub images: usize,
    /// Images of a bag.
    pub bag_images: usize,
    /// From arrival to answer.
    pub timeout: Duration,
    /// Images that are decoded at a time.
    pub decoders: usize,
    /// Memory of all decoders, by what headers claim, bytes.
    pub decode_bytes: u64,
}

impl Limits {
    /// Files of a request, whatever is asked about them.
    pub(crate) fn most_images(&self) -> usize {
        self.images.max(self.bag_images)
    }
}

/// An image as it came.
#[derive(Clone)]
pub struct Image {
    /// For messages and answers; never a path.
    pub name: String,
    /// The file.
    pub bytes: Arc<[u8]>,
    /// SOP Instance UID, where it is known.
    pub sop_instance_uid: Option<String>,
}

/// A file of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
}

/// A series on the disk, which is one bag.
#[derive(Clone, Debug, PartialEq)]
pub struct Slices {
    /// Series Instance UID.
    pub series_instance_uid: String,
    /// In the order of the bag; at least one.
    pub files: Vec<SliceFile>,
}

/// Who asks, and through which door; goes into the audit.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Name of the key, or of the calling application entity.
    pub who: String,
    /// `http`, `kserve`, `dicom`, `stow`, `server`.
    pub via: &'static str,
    /// The request, as the log names it.
    pub request_id: String,
    /// Where it comes from, if that is known.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Whose share of the queue its requests take: of those who show nothing everyone's at an address.
    pub(crate) fn share(&self) -> String {
        match self.address {
            Some(address) if self.who == ANONYMOUS => format!("{ANONYMOUS} {}", address.to_canonical()),
            _ if self.via == "dicom" => format!("dicom {}", self.who),
            _ => self.who.clone(),
        }
    }

    /// Nobody: the server does it of itself.
    pub(crate) fn server() -> Self {
        Caller { who: "melo".to_owned(), via: "server", request_id: String::new(), address: None }
    }
}

/// A request to any number of tasks.
#[derive(Clone)]
pub struct Request {
    /// For tasks of single images each by itself, for those of bags together; at least one, or `slices`.
    pub images: Vec<Image>,
    /// A series, for tasks of bags alone.
    pub slices: Option<Slices>,
    /// Names, or `name@version`; `all` stands for every task.
    pub tasks: Vec<String>,
    /// Explain each answer's leading class.
    pub heatmap: bool,
    /// Give the masks of tasks that have them.
    pub masks: bool,
    /// Give the decoded image back.
    pub preview: bool,
    /// Of images with several frames this one, whatever the tasks' cards say.
    pub frame: Option<Frame>,
    /// Who asks.
    pub caller: Caller,
}

impl Request {
    /// Whether more is drawn than answers.
    pub(crate) fn keeps_pixels(&self) -> bool {
        self.heatmap || self.masks || self.preview
    }
}
