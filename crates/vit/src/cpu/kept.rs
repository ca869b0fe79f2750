//! A packed network in a file, from which it is mapped: what is written, and how it is checked.
//!
//! ```text
//! "melopack" | u32 length of the header | u32 its CRC-32 | header, JSON | sections, each at a multiple of 64 bytes
//! ```
//!
//! The header has a CRC-32 of every section. Numbers are little-endian, in the layout of one precision on one instruction set.

use super::packed::Packed;
use crate::attention_pool::AttentionPool;
use crate::backbone::BackboneInfo;
use crate::checkpoint::Description;
use crate::config::{Pool, VitConfig};
use crate::engine::LayerError;
use crate::head::Head;
use crate::weights::{Block, Layer, Linear, Norm, Weights};
use melo_kernels::{Kernels, MappedFile, PackedWeight, Precision, Sections, bytes_of_floats};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::sync::Arc;

/// First bytes of a file.
const MAGIC: &[u8; 8] = b"melopack";
/// Changes whenever the same version of another program would pack other bytes or leave other layers out of integers.
const FORMAT: u32 = 3;
/// Bytes before the header.
const PREFIX: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    key: String,
    layout: String,
    digest: String,
    description: Description,
    /// Classes of the weights' own classifier.
    classes: Option<usize>,
    /// Of every layer of the blocks, whether it is in 8-bit integers.
    integers: Vec<bool>,
    /// Bits of the error of every layer, where they were measured.
    errors: Vec<u32>,
    checksums: Vec<u32>,
}

/// The layout of packed weights here; none where numbers have another order than in files.
pub(super) fn layout(precision: Precision, isa: &str) -> Option<String> {
    let beside = if precision == Precision::Int8 { Precision::beside_int8() } else { precision };
    cfg!(target_endian = "little")
        .then(|| format!("{precision}-{beside}-{isa}-{}-v{FORMAT}", env!("CARGO_PKG_VERSION")))
}

/// Writes it all.
pub(super) fn write(
    into: &mut dyn Write,
    (key, layout): (&str, &str),
    info: &BackboneInfo,
    (packed, errors): (&Packed, &[LayerError]),
) -> io::Result<()> {
    let mut sections = sections(&packed.weights);
    if let Some(head) = info.classifier() {
        sections.extend([bytes_of_floats(&head.weight), bytes_of_floats(&head.bias)]);
    }
    let layers = packed.weights.blocks.iter().flat_map(matrices);
    let header = Header {
        key: key.to_owned(),
        layout: layout.to_owned(),
        digest: info.digest().to_owned(),
        description: info.description(),
        classes: info.classifier().map(|head| head.bias.len()),
        integers: layers.map(PackedWeight::is_int8).collect(),
        errors: errors.iter().map(|layer| layer.error.to_bits()).collect(),
        checksums: checksums(&sections),
    };
    let header = serde_json::to_vec(&header)?;
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    into.write_all(MAGIC)?;
    into.write_all(&length.to_le_bytes())?;
    into.write_all(&crc32fast::hash(&header).to_le_bytes())?;
    into.write_all(&header)?;
    let mut at = PREFIX + header.len();
    for section in sections {
        let padding = Sections::padding(at);
        into.write_all(&[0; 64][..padding])?;
        into.write_all(section)?;
        at += padding + section.len();
    }
    Ok(())
}

/// What [`write`] wrote under this key and layout; none where a byte of it is another.
pub(super) fn read(
    file: MappedFile,
    (key, layout): (&str, &str),
    precision: Precision,
) -> Option<(BackboneInfo, Packed, Vec<LayerError>)> {
    let (prefix, rest) = file.split_at_checked(PREFIX)?;
    let word = |at: usize| Some(u32::from_le_bytes(*prefix.get(at..)?.first_chunk()?));
    let bytes = rest.get(..usize::try_from(word(8)?).ok()?)?;
    if &prefix[..8] != MAGIC || crc32fast::hash(bytes) != word(12)? {
        return None;
    }
    let header: Header = serde_json::from_slice(bytes).ok()?;
    header.description.check().ok()?;
    let Description { name, config, preprocess } = header.description;
    let layers = config.depth.checked_mul(Layer::ALL.len())?;
    let measured = [0, layers].contains(&header.errors.len());
    if header.key != key || header.layout != layout || header.integers.len() != layers || !measured {
        return None;
    }
    let start = PREFIX + bytes.len();
    let mut reader = Reader { kernels: Kernels::detect(precision), from: Sections::new(Arc::new(file), start) };
    let weights = reader.weights(&config, &header.integers)?;
    let classifier = match header.classes {
        None => None,
        Some(classes) => {
            let weight = reader.from.floats(classes.checked_mul(config.feature_width())?)?;
            Some(Head { weight, bias: reader.from.floats(classes)?, decoder: None })
        }
    };
    if checksums(&reader.from.finish()?) != header.checksums {
        return None;
    }
    let errors = header.errors.iter().zip(&header.integers).enumerate();
    let errors = errors.map(|(index, (&bits, &integers))| LayerError {
        block: index / Layer::ALL.len(),
        layer: Layer::ALL[index % Layer::ALL.len()],
        error: f32::from_bits(bits),
        integers,
    });
    let errors = errors.collect();
    let packed = Packed { config: config.clone(), weights, kernels: reader.kernels };
    Some((BackboneInfo::kept(name, config, preprocess, classifier, header.digest), packed, errors))
}

fn checksums(sections: &[&[u8]]) -> Vec<u32> {
    sections.par_iter().map(|section| crc32fast::hash(section)).collect()
}

fn matrices(block: &Block<PackedWeight>) -> [&PackedWeight; 4] {
    [&block.qkv.weight, &block.proj.weight, &block.fc1.weight, &block.fc2.weight]
}

/// Every parameter, in the order of [`Reader::weights`]; what is absent is an empty section.
fn sections(weights: &Weights<PackedWeight>) -> Vec<&[u8]> {
    fn norm(norm: Option<&Norm>) -> impl Iterator<Item = &[u8]> {
        norm.into_iter().flat_map(|Norm { gamma, beta }| [bytes_of_floats(gamma), bytes_of_floats(beta)])
    }
    fn linear(Linear { weight, bias }: &Linear<PackedWeight>) -> impl Iterator<Item = &[u8]> {
        weight.sections().into_iter().chain([bytes_of_floats(bias)])
    }
    let Weights { cls_token, dist_token, reg_token, pos_embed, patch_embed, .. } = weights;
    let Weights { norm_pre, norm: last, fc_norm, attn_pool, blocks, .. } = weights;
    let mut all: Vec<&[u8]> = [cls_token, dist_token, reg_token, pos_embed].map(|x| bytes_of_floats(x)).into();
    all.extend(linear(patch_embed));
    [norm_pre, last, fc_norm].into_iter().for_each(|x| all.extend(norm(x.as_ref())));
    if let Some(AttentionPool { latent, q, kv, proj, norm: inner, fc1, fc2 }) = attn_pool {
        all.push(bytes_of_floats(latent));
        [q, kv, proj, fc1, fc2].into_iter().for_each(|x| all.extend(linear(x)));
        all.extend(norm(Some(inner)));
    }
    for Block { norm1, qkv, qk_norm, relative, attn_norm, proj, ls1, norm2, fc1, mlp_norm, fc2, ls2 } in blocks {
        [norm1, norm2].into_iter().for_each(|x| all.extend(norm(Some(x))));
        qk_norm.iter().flatten().for_each(|x| all.extend(norm(Some(x))));
        [attn_norm, mlp_norm].into_iter().for_each(|x| all.extend(norm(x.as_ref())));
        [qkv, proj, fc1, fc2].into_iter().for_each(|x| all.extend(linear(x)));
        all.extend([relative, ls1, ls2].map(|x| bytes_of_floats(x)));
    }
    all
}

struct Reader {
    kernels: &'static Kernels,
    from: Sections,
}

impl Reader {
    fn weights(&mut self, config: &VitConfig, integers: &[bool]) -> Option<Weights<PackedWeight>> {
        let d = config.width;
        let grid = config.image_size.checked_div(config.patch)?;
        let positions = grid.checked_mul(grid)?.checked_add(config.position_prefix())?;
        let positions = if config.pos_embed { positions } else { 0 };
        let class = if config.class_token { d } else { 0 };
        let tokens =
            [class, if config.distilled { d } else { 0 }, config.registers.checked_mul(d)?, positions.checked_mul(d)?];
        let [cls_token, dist_token, reg_token, pos_embed] = tokens.map(|count| self.from.floats(count));
        let pixels = config.patch.checked_mul(config.patch)?.checked_mul(3)?;
        let patch_embed = self.linear(false, (d, pixels), config.patch_bias)?;
        let mut norm = |present: bool| if present { self.norm(d).map(Some) } else { Some(None) };
        let (norm_pre, last, fc_norm) = (norm(config.pre_norm)?, norm(config.norm)?, norm(config.fc_norm)?);
        let attn_pool = if config.pool == Pool::Map { Some(self.attention_pool(config)?) } else { None };
        let blocks = integers.as_chunks::<4>().0.iter();
        Some(Weights {
            cls_token: cls_token?,
            dist_token: dist_token?,
            reg_token: reg_token?,
            pos_embed: pos_embed?,
            patch_embed,
            norm_pre,
            norm: last,
            fc_norm,
            attn_pool,
            blocks: blocks.map(|integers| self.block(config, *integers)).collect::<Option<_>>()?,
        })
    }

    fn block(&mut self, config: &VitConfig, [qkv, proj, fc1, fc2]: [bool; 4]) -> Option<Block<PackedWeight>> {
        let d = config.width;
        let scale = if config.layer_scale { d } else { 0 };
        let of = |reader: &mut Self, layer: Layer, int8, bias| reader.linear(int8, layer.features(config), bias);
        let (norm1, norm2) = (self.norm(d)?, self.norm(d)?);
        let head = config.head_width();
        let qk_norm = if config.qk_norm { Some([self.norm(head)?, self.norm(head)?]) } else { None };
        let attn_norm = if config.attn_norm { Some(self.norm(d)?) } else { None };
        let mlp_norm = if config.mlp_norm { Some(self.norm(config.mlp_hidden)?) } else { None };
        let (qkv, proj) = (of(self, Layer::Qkv, qkv, config.qkv_bias)?, of(self, Layer::Proj, proj, true)?);
        let (fc1, fc2) = (of(self, Layer::Fc1, fc1, true)?, of(self, Layer::Fc2, fc2, true)?);
        let relative = self.from.floats(config.relative_rows().checked_mul(config.heads)?)?;
        let (ls1, ls2) = (self.from.floats(scale)?, self.from.floats(scale)?);
        Some(Block { norm1, qkv, qk_norm, relative, attn_norm, proj, ls1, norm2, fc1, mlp_norm, fc2, ls2 })
    }

    fn attention_pool(&mut self, config: &VitConfig) -> Option<AttentionPool<PackedWeight>> {
        let (d, hidden) = (config.width, config.mlp_hidden);
        let latent = self.from.floats(d)?;
        let mut linear = |out, input| self.linear(false, (out, input), true);
        let (q, kv, proj) = (linear(d, d)?, linear(2 * d, d)?, linear(d, d)?);
        let (fc1, fc2) = (linear(hidden, d)?, linear(d, hidden)?);
        Some(AttentionPool { latent, q, kv, proj, norm: self.norm(d)?, fc1, fc2 })
    }

    fn norm(&mut self, d: usize) -> Option<Norm> {
        Some(Norm { gamma: self.from.floats(d)?, beta: self.from.floats(d)? })
    }

    fn linear(&mut self, int8: bool, (out, input): (usize, usize), bias: bool) -> Option<Linear<PackedWeight>> {
        let weight = self.kernels.unpack(int8, out, input, &mut self.from)?;
        Some(Linear { weight, bias: self.from.floats(if bias { out } else { 0 })? })
    }
}
