//! Images as a command line names them: files, folders, frames.

use crate::{Failure, note};
use melo::vit::rendering::{Frame, Layout};
use melo::vit::{Invalid, Rendering};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which of a file's frames are asked for.
#[derive(Clone, Copy)]
pub(super) enum Frames {
    One(Frame),
    All,
}

impl FromStr for Frames {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// The images with the frame and layout that are asked for in their names; what a name says already stays.
pub(super) fn named(images: Vec<PathBuf>, frames: Option<Frames>, layout: Option<Layout>) -> Vec<PathBuf> {
    let with = |path: &Path, part: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(if melo::imaging::file_of(path) == path { "#" } else { "&" });
        name.push(part);
        PathBuf::from(name)
    };
    let is_array = |path: &Path| {
        let file = melo::imaging::file_of(path);
        file.extension().is_some_and(|end| end.eq_ignore_ascii_case("npy") || end.eq_ignore_ascii_case("npz"))
    };
    let images = images.into_iter().map(|path| match layout {
        Some(layout) if is_array(&path) => with(&path, &format!("layout={layout}")),
        _ => path,
    });
    let framed = images.flat_map(|path| match frames {
        // A name with a frame is taken at its word.
        Some(_) if path.to_string_lossy().contains("frame=") => vec![path],
        Some(Frames::One(frame)) => vec![with(&path, &format!("frame={frame}"))],
        Some(Frames::All) => {
            // Whatever cannot be read says so when it is its turn.
            let place = melo::imaging::read_seen(&path, &Rendering::default()).ok().and_then(|(_, seen)| seen.place);
            match place.filter(|place| matches!(place.kind, "frame" | "page")) {
                Some(place) => (1..=place.count).map(|frame| with(&path, &format!("frame={frame}"))).collect(),
                None => vec![path],
            }
        }
        None => vec![path],
    });
    framed.collect()
}

/// Files as they are, folders as the images in them and in the folders inside; what is none is told. Heat maps of an earlier
/// run, in a folder of their own inside, are none.
pub(super) fn expand(paths: &[PathBuf], heatmaps: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let heatmaps = heatmaps.and_then(|folder| folder.canonicalize().ok());
    let mut images = Vec::new();
    for path in paths {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let mut found = melo::imaging::images_in(path)?;
        if let Some(maps) =
            heatmaps.as_deref().filter(|maps| path.canonicalize().is_ok_and(|path| !path.starts_with(maps)))
        {
            let is_map = |image: &mut PathBuf| image.canonicalize().is_ok_and(|image| image.starts_with(maps));
            found.left_out.of -= found.images.extract_if(.., is_map).count();
        }
        if found.images.is_empty() {
            let message = match found.left_out.names.is_empty() {
                true => format!("{}: an empty folder, expected images", path.display()),
                false => format!("{}: holds no image: {}", path.display(), found.left_out),
            };
            return Err(Failure::Message(message));
        }
        if !found.left_out.names.is_empty() {
            note(format_args!("note: {}: {}", path.display(), found.left_out));
        }
        images.extend(found.images);
    }
    Ok(images)
}
