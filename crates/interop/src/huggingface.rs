//! Architecture and preprocessing from the JSON files of a Hugging Face model: `config.json`, `preprocessor_config.json`.

use crate::names::{Dialect, HF_CLIP, HF_DINOV2, HF_VIT};
use melo_vit::{
    Activation, CropMode, Description, Error, Interpolation, Pool, PositionFilter, Preprocess, Rendering, VitConfig,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// `config.json` of a model, as far as it decides what an image's feature is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ModelConfig {
    model_type: String,
    #[serde(default, rename = "_name_or_path")]
    name: String,
    /// Of a whole CLIP.
    vision_config: Option<Box<Value>>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    mlp_ratio: Option<f64>,
    patch_size: Option<usize>,
    image_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    qkv_bias: Option<bool>,
}

/// Sizes that the classes of transformers assume where a `config.json` leaves them out.
struct Defaults {
    patch: usize,
    eps: f32,
    activation: &'static str,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Rectangle { height: usize, width: usize },
    Shortest { shortest_edge: usize },
}

/// `preprocessor_config.json`.
#[derive(Deserialize)]
struct Processor {
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Size>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    resample: Option<u8>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    rescale_factor: Option<f64>,
}

fn yes() -> bool {
    true
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let wrong = |error: serde_json::Error| Error::Config { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_str(&text).map_err(wrong)
}

impl ModelConfig {
    /// The dialect of its tensors.
    ///
    /// # Errors
    /// A sentence that names a model type that is none of ours.
    pub(crate) fn dialect(&self) -> Result<&'static Dialect, String> {
        match self.model_type.as_str() {
            "vit" | "deit" | "vit_mae" | "vit_msn" => Ok(&HF_VIT),
            "dinov2" | "dinov2_with_registers" => Ok(&HF_DINOV2),
            "clip" | "clip_vision_model" => Ok(&HF_CLIP),
            other => Err(format!(
                "model_type `{other}` is not supported (vit, deit, vit_mae, vit_msn, dinov2, dinov2_with_registers, clip, \
                 clip_vision_model)"
            )),
        }
    }

    /// Everything about the model, given its tensors' shapes under timm's names and whether it has a classifier.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file and the field.
    pub(crate) fn describe(
        &self,
        config_path: &Path,
        shapes: &BTreeMap<String, Vec<usize>>,
        classifies: bool,
    ) -> Result<Description, Error> {
        let wrong = |reason: String| Error::Config { path: config_path.to_owned(), reason };
        let name = match self.name.is_empty() {
            false => self.name.clone(),
            true => config_path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned(),
        };
        let config = match &self.vision_config {
            Some(vision) => {
                let mut vision = (**vision).clone();
                if let Some(fields) = vision.as_object_mut() {
                    fields.entry("model_type").or_insert("clip_vision_model".into());
                }
                let tower: ModelConfig =
                    serde_json::from_value(vision).map_err(|error| wrong(format!("vision_config: {error}")))?;
                tower.vit(shapes, classifies)
            }
            None => self.vit(shapes, classifies),
        };
        let config = config.map_err(wrong)?;
        let preprocess = preprocess(&config_path.with_file_name("preprocessor_config.json"))?;
        let description = Description { name, config, preprocess };
        description.check().map_err(|error| wrong(error.reason))?;
        Ok(description)
    }

    fn vit(&self, shapes: &BTreeMap<String, Vec<usize>>, classifies: bool) -> Result<VitConfig, String> {
        let clip = self.model_type == "clip_vision_model";
        let dinov2 = self.model_type.starts_with("dinov2");
        let defaults = match (clip, dinov2) {
            (true, _) => Defaults { patch: 32, eps: 1e-5, activation: "quick_gelu" },
            (_, true) => Defaults { patch: 14, eps: 1e-6, activation: "gelu" },
            _ => Defaults { patch: 16, eps: 1e-12, activation: "gelu" },
        };
        let base = VitConfig::base();
        let width = self.hidden_size.unwrap_or(base.width);
        let fc2 = shapes.get("blocks.0.mlp.fc2.weight").map_or(&[][..], Vec::as_slice);
        let ratio = || self.mlp_ratio.map(|ratio| (width as f64 * ratio) as usize);
        let mlp_hidden = match fc2 {
            &[_, hidden] => hidden,
            _ => self.intermediate_size.or_else(ratio).unwrap_or(base.mlp_hidden),
        };
        let fc1_out = shapes.get("blocks.0.mlp.fc1.weight").and_then(|shape| shape.first().copied());
        let activation = match self.hidden_act.as_deref().unwrap_or(defaults.activation) {
            "gelu" => Activation::Erf,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::Tanh,
            "quick_gelu" => Activation::Quick,
            other => return Err(format!("hidden_act `{other}` is not supported (gelu, gelu_new, quick_gelu)")),
        };
        let registers = shapes.get("reg_token").and_then(|shape| shape.get(1).copied()).unwrap_or(0);
        Ok(VitConfig {
            depth: self.num_hidden_layers.unwrap_or(base.depth),
            width,
            heads: self.num_attention_heads.unwrap_or(base.heads),
            mlp_hidden,
            patch: self.patch_size.unwrap_or(defaults.patch),
            image_size: self.image_size.unwrap_or(base.image_size),
            eps: self.layer_norm_eps.unwrap_or(defaults.eps),
            activation,
            // What the classifiers of transformers read of these two.
            pool: match (classifies, dinov2, clip) {
                (true, true, _) => Pool::TokenAvg,
                (true, _, true) => Pool::Avg,
                _ => Pool::Token,
            },
            pre_norm: clip,
            norm: !(clip && classifies),
            distilled: shapes.contains_key("dist_token"),
            patch_bias: !clip,
            qkv_bias: clip || self.qkv_bias.unwrap_or(true),
            registers,
            layer_scale: dinov2,
            swiglu: fc1_out == mlp_hidden.checked_mul(2),
            position_filter: PositionFilter::Plain,
            ..base
        })
    }
}

/// `preprocessor_config.json` in our terms.
fn preprocess(path: &Path) -> Result<Preprocess, Error> {
    let wrong = |reason: String| Error::Config { path: path.to_owned(), reason };
    if !path.is_file() {
        return Err(wrong("is missing: mean, standard deviation and size are never assumed".into()));
    }
    let processor: Processor = read_json(path)?;
    if !processor.do_resize {
        return Err(wrong("do_resize is false: images of any size are not supported".into()));
    }
    if processor.rescale_factor.is_some_and(|factor| (factor - 1.0 / 255.0).abs() > 1e-9) {
        return Err(wrong(format!("rescale_factor {:?} is not 1/255", processor.rescale_factor)));
    }
    let square = |height: usize, width: usize| match height == width {
        true => Ok(height),
        false => Err(wrong(format!("{height} × {width} is no square"))),
    };
    let crop = match (processor.do_center_crop.unwrap_or(processor.crop_size.is_some()), processor.crop_size) {
        (false, _) | (true, None) => None,
        (true, Some(Size::Side(side))) => Some(side),
        (true, Some(Size::Rectangle { height, width })) => Some(square(height, width)?),
        (true, Some(Size::Shortest { shortest_edge })) => Some(shortest_edge),
    };
    let (resized, crop_mode) = match processor.size {
        None => return Err(wrong("`size` is missing".into())),
        Some(Size::Rectangle { height, width }) => (square(height, width)?, CropMode::Squash),
        Some(Size::Shortest { shortest_edge }) => (shortest_edge, CropMode::Center),
        // A bare number is the shorter side where a crop follows, and both sides where none does.
        Some(Size::Side(side)) => (side, if crop.is_some() { CropMode::Center } else { CropMode::Squash }),
    };
    let size = crop.unwrap_or(resized);
    if size == 0 || size > resized {
        return Err(wrong(format!("crop_size {size} of images resized to {resized}")));
    }
    let interpolation = match processor.resample {
        Some(2) => Interpolation::Bilinear,
        Some(3) => Interpolation::Bicubic,
        other => return Err(wrong(format!("resample {other:?} is not supported (2 bilinear, 3 bicubic)"))),
    };
    let mut preprocess = Preprocess {
        size,
        crop_mode,
        crop_pct: size as f64 / resized as f64,
        interpolation,
        mean: processor.image_mean.ok_or_else(|| wrong("`image_mean` is missing".into()))?,
        std: processor.image_std.ok_or_else(|| wrong("`image_std` is missing".into()))?,
        rendering: Rendering::default(),
    };
    // The quotient may round up, and the side that it stands for is rounded down.
    while preprocess.resize_side() < resized {
        preprocess.crop_pct = preprocess.crop_pct.next_down();
    }
    Ok(preprocess)
}
