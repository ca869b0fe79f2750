//! Preprocessing of a Hugging Face model: `preprocessor_config.json`, or `image_processor` within `processor_config.json`.
//!
//! Meanings as in transformers 5.24, `BaseImageProcessor`. What a class assumes for itself is taken for switches and squares; sizes, filter
//! and statistics are never assumed.

use crate::huggingface::read_json;
use melo_vit::{CropMode, CropOffset, Error, Fields, Interpolation, Invalid, Preprocess, Rendering};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Files that hold a processor, the one that counts first.
const FILES: [&str; 2] = ["processor_config.json", "preprocessor_config.json"];

/// Settings that are read.
const READ: [&str; 14] = [
    "image_processor_type",
    "feature_extractor_type",
    "do_resize",
    "size",
    "default_to_square",
    "do_center_crop",
    "crop_size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_pad",
];
/// Settings on which the pixels of an RGB image do not depend.
const FREE: [&str; 15] = [
    "do_convert_rgb",
    "input_data_format",
    "device",
    "return_tensors",
    "disable_grouping",
    "image_seq_length",
    "processor_class",
    "_processor_class",
    "_valid_processor_keys",
    "model_input_names",
    "pad_size",
    "backend",
    "transformers_version",
    // Of label maps of a segmentation.
    "do_reduce_labels",
    "reduce_labels",
];

/// What a class of processors does where its file is silent.
struct Class {
    name: &'static str,
    center_crop: bool,
    /// A size of one number is both sides, not the shorter one.
    square: bool,
}

const CLASSES: [Class; 7] = [
    Class { name: "ViT", center_crop: false, square: true },
    Class { name: "DeiT", center_crop: true, square: true },
    Class { name: "Bit", center_crop: true, square: false },
    Class { name: "CLIP", center_crop: true, square: false },
    Class { name: "Siglip", center_crop: false, square: false },
    Class { name: "DINOv3ViT", center_crop: false, square: true },
    Class { name: "Beit", center_crop: false, square: true },
];

/// A size before it is known to be square, pixels.
#[derive(Clone, Copy)]
enum Size {
    Shortest(usize),
    Rectangle(usize, usize),
}

/// The preprocessing of the model in a folder, of this `model_type`.
///
/// # Errors
/// [`Error::Config`] that names the file and the setting.
pub(crate) fn read(folder: &Path, model_type: &str) -> Result<Preprocess, Error> {
    let (path, json) = find(folder)?;
    parse(&json, model_type).map_err(|error| Error::Config { path, reason: error.named() })
}

/// The settings, and their file: nested ones count before those in a file of their own.
fn find(folder: &Path) -> Result<(PathBuf, Value), Error> {
    let [nested, own] = FILES.map(|name| folder.join(name));
    if nested.is_file() {
        let mut json = read_json(&nested)?;
        if let Some(processor) = json.get_mut("image_processor") {
            return Ok((nested, processor.take()));
        }
    }
    if !own.is_file() {
        let reason = "is missing: mean, standard deviation and size are never assumed".into();
        return Err(Error::Config { path: own, reason });
    }
    let json = read_json(&own)?;
    Ok((own, json))
}

fn parse(json: &Value, model_type: &str) -> Result<Preprocess, Invalid> {
    let fields = Fields::of("", json)?;
    fields.all_in(&[&READ, &FREE, &["auto_map", "data_format", "crop_pct", "use_square_size"]])?;
    let other = "this is not supported";
    fields.only("auto_map", &json!({}), "a processor with code of its own is not supported")?;
    fields.only("data_format", &json!("channels_first"), other)?;
    fields.only("crop_pct", &json!(1.0), "a crop by share is not supported")?;
    fields.only("use_square_size", &json!(false), other)?;
    fields.only("do_pad", &json!(false), "padding is not supported")?;
    if !switch(&fields, "do_resize", true)? {
        return Err(Invalid::new("do_resize", "`do_resize` is off: images of any size are not supported"));
    }
    let class = class(&fields, model_type)?;
    let square = fields.truth("default_to_square")?.unwrap_or(class.square);
    let missing = |name: &'static str| Invalid::new(name, format!("`{name}` is missing"));
    let size = size(&fields, "size", square)?.ok_or_else(|| missing("size"))?;
    // What is no size is refused also where nothing is cropped.
    self::size(&fields, "crop_size", true)?;
    let crop = match switch(&fields, "do_center_crop", class.center_crop)? {
        false => None,
        true => match size_of_crop(&fields)? {
            Some(side) => Some(side),
            None => {
                let reason =
                    format!("`crop_size` is missing, and a {} processor crops: say do_center_crop", class.name);
                return Err(Invalid::new("crop_size", reason));
            }
        },
    };
    let (resized, crop_mode) = match size {
        Size::Shortest(side) if crop.is_some() => (side, CropMode::Center),
        Size::Shortest(_) => {
            let reason = "`size` is the shorter side and nothing is cropped: the images would be no squares";
            return Err(Invalid::new("size", reason));
        }
        Size::Rectangle(height, width) => (equal("size", height, width)?, CropMode::Squash),
    };
    let side = crop.unwrap_or(resized);
    if side == 0 || side > resized {
        return Err(Invalid::new("crop_size", format!("crop_size {side} of images resized to {resized}")));
    }
    let interpolation = match fields.count("resample")? {
        Some(2) => Interpolation::Bilinear,
        Some(3) => Interpolation::Bicubic,
        other => {
            let reason = format!("resample {other:?} is not supported (2 bilinear, 3 bicubic)");
            return Err(Invalid::new("resample", reason));
        }
    };
    let (mean, std) = statistics(&fields)?;
    let mut preprocess = Preprocess {
        size: side,
        crop_mode,
        crop_pct: side as f64 / resized as f64,
        interpolation,
        mean,
        std,
        crop_offset: CropOffset::Down,
        depth: None,
        rendering: Rendering::default(),
    };
    // The quotient may round up, and the side that it stands for is rounded down.
    while preprocess.resize_side() < resized {
        preprocess.crop_pct = preprocess.crop_pct.next_down();
    }
    Ok(preprocess)
}

/// Whether a step is taken: `null` is off, and what is not said is what the class does.
fn switch(fields: &Fields<'_>, name: &str, usual: bool) -> Result<bool, Invalid> {
    Ok(!fields.is_null(name) && fields.truth(name)?.unwrap_or(usual))
}

/// The class that is named, else the one that goes with the model.
fn class(fields: &Fields<'_>, model_type: &str) -> Result<&'static Class, Invalid> {
    let setting = ["image_processor_type", "feature_extractor_type"];
    let named = [fields.text(setting[0])?, fields.text(setting[1])?];
    let name = match named.into_iter().flatten().next() {
        Some(name) => {
            let ends = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];
            ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
        }
        None => match model_type {
            "deit" => "DeiT",
            "dinov2" | "dinov2_with_registers" => "Bit",
            "clip" | "clip_vision_model" => "CLIP",
            "dinov3_vit" => "DINOv3ViT",
            "beit" | "data2vec-vision" => "Beit",
            "siglip" | "siglip_vision_model" => "Siglip",
            _ => "ViT",
        },
    };
    CLASSES.iter().find(|class| class.name == name).ok_or_else(|| {
        let known = CLASSES.map(|class| class.name).join(", ");
        Invalid::new("image_processor_type", format!("image_processor_type `{name}` is not supported ({known})"))
    })
}

/// A size of one number, of two sides, or of the shorter side.
fn size(fields: &Fields<'_>, name: &str, square: bool) -> Result<Option<Size>, Invalid> {
    let whole = |value: &Value| value.as_u64().map(|x| x as usize);
    let read = |value: &Value| match value {
        Value::Object(sides) => {
            let keys: Vec<&str> =
                sides.iter().filter(|(_, side)| !side.is_null()).map(|(key, _)| key.as_str()).collect();
            match keys.as_slice() {
                ["height", "width"] | ["width", "height"] => {
                    Some(Size::Rectangle(whole(&sides["height"])?, whole(&sides["width"])?))
                }
                ["shortest_edge"] => Some(Size::Shortest(whole(&sides["shortest_edge"])?)),
                _ => None,
            }
        }
        Value::Array(sides) => match sides.as_slice() {
            [height, width] => Some(Size::Rectangle(whole(height)?, whole(width)?)),
            _ => None,
        },
        side if square => whole(side).map(|side| Size::Rectangle(side, side)),
        side => whole(side).map(Size::Shortest),
    };
    fields.read(name, read, "a side, `height` and `width`, or `shortest_edge`")
}

/// Side of the crop, pixels.
fn size_of_crop(fields: &Fields<'_>) -> Result<Option<usize>, Invalid> {
    match size(fields, "crop_size", true)? {
        None => Ok(None),
        Some(Size::Rectangle(height, width)) => equal("crop_size", height, width).map(Some),
        Some(Size::Shortest(_)) => Err(Invalid::new("crop_size", "`crop_size` is a shorter side: that is no size")),
    }
}

fn equal(name: &'static str, height: usize, width: usize) -> Result<usize, Invalid> {
    match height == width {
        true => Ok(height),
        false => Err(Invalid::new(name, format!("`{name}`: {height} × {width} is no square"))),
    }
}

/// Mean and standard deviation of pixels in 0 to 1: `(scale · 255 · x - mean) / std`, whichever of the two steps are taken.
fn statistics(fields: &Fields<'_>) -> Result<([f32; 3], [f32; 3]), Invalid> {
    let missing = |name: &'static str| Invalid::new(name, format!("`{name}` is missing"));
    let (mean, std) = match switch(fields, "do_normalize", true)? {
        true => (
            fields.channels("image_mean")?.ok_or_else(|| missing("image_mean"))?,
            fields.channels("image_std")?.ok_or_else(|| missing("image_std"))?,
        ),
        false => ([0.0; 3], [1.0; 3]),
    };
    // Of pixels from 0 to 1; exactly 1 for the usual factor of 1/255.
    let scale = match switch(fields, "do_rescale", true)? {
        true => fields.number("rescale_factor")?.map_or(1.0, |factor| factor * 255.0),
        false => 255.0,
    };
    if !(scale.is_finite() && scale > 0.0) {
        return Err(Invalid::new("rescale_factor", format!("rescale_factor {} is not positive", scale / 255.0)));
    }
    let scaled = |values: [f32; 3]| match (scale - 1.0).abs() < 1e-9 {
        true => values,
        false => values.map(|value| (f64::from(value) / scale) as f32),
    };
    Ok((scaled(mean), scaled(std)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Value {
        json!({
            "image_processor_type": "ViTImageProcessor", "do_resize": true, "size": { "height": 16, "width": 16 }, "resample": 2,
            "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true,
            "image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.5, 0.25],
        })
    }

    fn with(changes: Value) -> Result<Preprocess, String> {
        let mut json = usual();
        json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        parse(&json, "vit").map_err(|error| error.reason)
    }

    #[test]
    fn steps_that_are_not_taken_leave_their_values_without_effect() {
        let off = with(json!({ "do_normalize": false })).unwrap();
        assert_eq!(off, with(json!({ "do_normalize": null })).unwrap());
        assert_eq!((off.mean, off.std), ([0.0; 3], [1.0; 3]));
        let raw = with(json!({ "do_rescale": false })).unwrap();
        assert_eq!((raw.mean[0], raw.std[2]), (0.5 / 255.0, 0.25 / 255.0));
        let doubled = with(json!({ "rescale_factor": 2.0 / 255.0 })).unwrap();
        assert_eq!((doubled.mean[1], doubled.std[0]), (0.125, 0.25));
        let neither = with(json!({ "do_rescale": false, "do_normalize": false })).unwrap();
        assert_eq!((neither.mean, neither.std), ([0.0; 3], [1.0 / 255.0; 3]));
        assert!(with(json!({ "rescale_factor": 0.0 })).is_err() && with(json!({ "rescale_factor": -1.0 })).is_err());
    }

    #[test]
    fn a_crop_size_without_a_crop_cuts_nothing() {
        assert_eq!(with(json!({ "crop_size": 8 })).unwrap().size, 16);
        assert_eq!(with(json!({ "crop_size": 8, "do_center_crop": false })).unwrap().size, 16);
        assert_eq!(with(json!({ "crop_size": 8, "do_center_crop": true })).unwrap().size, 8);
        let deit = json!({ "image_processor_type": "DeiTImageProcessor", "crop_size": { "height": 8, "width": 8 } });
        assert_eq!(with(deit).unwrap().size, 8);
    }

    #[test]
    fn what_would_give_no_square_or_is_not_known_is_refused_by_name() {
        let refused = [
            (json!({ "size": { "shortest_edge": 16 } }), "size"),
            (json!({ "size": { "height": 16, "width": 24 } }), "16 × 24"),
            (json!({ "size": { "shortest_edge": 16, "longest_edge": 32 } }), "size"),
            (json!({ "size": 16, "default_to_square": false }), "size"),
            (json!({ "size": 16, "image_processor_type": "SiglipImageProcessor" }), "size"),
            (json!({ "resample": 0 }), "resample"),
            (json!({ "do_pad": true }), "do_pad"),
            (json!({ "do_resize": false }), "do_resize"),
            (json!({ "do_center_crop": true }), "crop_size"),
            (json!({ "data_format": "channels_last" }), "data_format"),
            (json!({ "auto_map": { "AutoImageProcessor": "x.Y" } }), "auto_map"),
            (json!({ "image_processor_type": "ConvNextImageProcessor" }), "ConvNext"),
            (json!({ "do_flip_channel_order": true }), "do_flip_channel_order"),
            (json!({ "do_normalize": "no" }), "do_normalize"),
            (json!({ "image_std": [0.5, 0.5] }), "image_std"),
        ];
        for (changes, word) in refused {
            let error = with(changes).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
