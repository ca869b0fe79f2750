//! A shard: a header, a table of images, pixels.

use std::path::{Path, PathBuf};

use melo_imaging::Pixels;
use melo_vit::MappedFile;
use sha2::{Digest, Sha256};

use super::index::{u32_at, u64_at};
use super::layout::Layout;
use super::{PackError, VERSION};

const MAGIC: [u8; 8] = *b"MELOSHRD";
/// Magic, version, images, number of the shard, key of the pack, checksum.
const HEADER: usize = 88;
/// Where the checksum stands; it is over all that follows the header.
const CHECKSUM: std::ops::Range<usize> = 56..88;
/// Offset, width, height, channels, zeros.
const ENTRY: usize = 24;

/// An image within a shard.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: usize,
    width: usize,
    height: usize,
    /// 1 where the three channels are equal; 3; 0 for an image that could not be read.
    channels: usize,
}

/// A shard, mapped and checked.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    bytes: MappedFile,
    entries: Vec<Entry>,
}

/// What a shard must be.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) number: usize,
    pub(super) images: usize,
    pub(super) key: [u8; 32],
}

impl Expected {
    /// Shard `number` of `layout`.
    pub(super) fn of(layout: &Layout, number: usize) -> Self {
        Self { number, images: layout.images_of(number).len(), key: layout.key() }
    }
}

impl Shard {
    /// Maps the file and checks every byte.
    pub(super) fn open(path: &Path, expected: Expected) -> Result<Self, PackError> {
        let bytes = MappedFile::open(path).map_err(PackError::io(path))?;
        let refuse = |reason: String| PackError::Shard { path: path.into(), reason };
        let entries = parse(&bytes, expected).map_err(refuse)?;
        Ok(Self { path: path.into(), bytes, entries })
    }

    /// The checksum that stands in its header, which is right.
    pub(super) fn checksum(&self) -> String {
        melo_vit::hex(&self.bytes[CHECKSUM])
    }

    /// Places of images that could not be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.channels == 0).map(|(place, _)| place)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The image at `place` and the number of bytes that it takes here.
    pub(super) fn pixels(&self, place: usize) -> Result<(Pixels, usize), PackError> {
        let refuse =
            |reason: &str| PackError::Shard { path: self.path.clone(), reason: format!("image {place}: {reason}") };
        let entry = self.entries.get(place).ok_or_else(|| refuse("there is none"))?;
        let Entry { offset, width, height, channels } = *entry;
        let samples = &self.bytes[offset..offset + width * height * channels];
        let rgb = match channels {
            1 => {
                let mut rgb = vec![0; samples.len() * 3];
                rgb.chunks_exact_mut(3).zip(samples).for_each(|(pixel, &sample)| pixel.fill(sample));
                rgb
            }
            3 => samples.to_vec(),
            _ => return Err(refuse("could not be read when it was packed")),
        };
        Ok((Pixels { width, height, rgb }, samples.len()))
    }
}

fn parse(bytes: &[u8], expected: Expected) -> Result<Vec<Entry>, String> {
    if bytes.len() < HEADER {
        return Err(format!("expected at least {HEADER} bytes, found {}", bytes.len()));
    }
    if bytes[..8] != MAGIC {
        return Err(format!("expected MELOSHRD, found \"{}\"", bytes[..8].escape_ascii()));
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(format!("expected version {VERSION}, found {version}"));
    }
    let (images, number) = (u32_at(bytes, 12) as usize, u64_at(bytes, 16));
    if number != expected.number as u64 {
        return Err(format!("expected shard {}, found shard {number}", expected.number));
    }
    if images != expected.images {
        return Err(format!("expected {} images, found {images}", expected.images));
    }
    if bytes[24..56] != expected.key {
        return Err("it belongs to another manifest or preprocessing".to_owned());
    }
    let room = (bytes.len() - HEADER) / ENTRY;
    if images > room {
        return Err(format!("truncated: expected a table of {images} images, found room for {room}"));
    }
    if bytes[CHECKSUM] != Sha256::digest(&bytes[HEADER..])[..] {
        return Err("the checksum is another: the file is damaged or truncated".to_owned());
    }
    let table = &bytes[HEADER..HEADER + images * ENTRY];
    let mut next = HEADER + images * ENTRY;
    let mut entries = Vec::with_capacity(images);
    for (place, entry) in table.chunks_exact(ENTRY).enumerate() {
        let [width, height, channels, zeros] = [8, 12, 16, 20].map(|at| u32_at(entry, at) as usize);
        let offset = u64_at(entry, 0);
        let refuse = |what: &str| Err(format!("image {place}: {what}"));
        if offset != next as u64 {
            return refuse(&format!("expected offset {next}, found {offset}"));
        }
        let fits = match channels {
            0 => width == 0 && height == 0,
            1 | 3 => width > 0 && height > 0,
            _ => false,
        };
        if !fits || zeros != 0 {
            return refuse(&format!("{width} x {height} pixels of {channels} channels"));
        }
        let end = width
            .checked_mul(height)
            .and_then(|area| area.checked_mul(channels))
            .and_then(|size| next.checked_add(size));
        next = match end.filter(|end| *end <= bytes.len()) {
            Some(end) => end,
            None => return refuse(&format!("{width} x {height} pixels reach beyond the end of the file")),
        };
        entries.push(Entry { offset: offset as usize, width, height, channels });
    }
    if next == bytes.len() { Ok(entries) } else { Err(format!("expected {next} bytes, found {}", bytes.len())) }
}

/// The bytes of a shard; `None` for an image that could not be read.
pub(super) fn encode(images: &[Option<Pixels>], number: usize, key: [u8; 32]) -> Vec<u8> {
    let stored: Vec<(u32, u32, u32, std::borrow::Cow<[u8]>)> = images
        .iter()
        .map(|image| match image {
            None => (0, 0, 0, (&[][..]).into()),
            Some(Pixels { width, height, rgb }) => {
                let (channels, samples) = match grey(rgb) {
                    Some(grey) => (1, grey.into()),
                    None => (3, rgb.as_slice().into()),
                };
                (*width as u32, *height as u32, channels, samples)
            }
        })
        .collect();
    let start = HEADER + images.len() * ENTRY;
    let mut bytes = Vec::with_capacity(start + stored.iter().map(|(.., samples)| samples.len()).sum::<usize>());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(images.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(number as u64).to_le_bytes());
    bytes.extend_from_slice(&key);
    bytes.extend_from_slice(&[0; 32]);
    let mut offset = start as u64;
    for (width, height, channels, samples) in &stored {
        bytes.extend_from_slice(&offset.to_le_bytes());
        [*width, *height, *channels, 0].iter().for_each(|field| bytes.extend_from_slice(&field.to_le_bytes()));
        offset += samples.len() as u64;
    }
    stored.iter().for_each(|(.., samples)| bytes.extend_from_slice(samples));
    let checksum = Sha256::digest(&bytes[HEADER..]);
    bytes[CHECKSUM].copy_from_slice(&checksum);
    bytes
}

/// One channel, if all three are equal everywhere.
fn grey(rgb: &[u8]) -> Option<Vec<u8>> {
    let is_grey = rgb.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[0] == pixel[2]);
    is_grey.then(|| rgb.chunks_exact(3).map(|pixel| pixel[0]).collect())
}
