//! The head of a plug-in: `y = W f + b` on what it reads of the backbone, and for masks what comes after it.

use crate::card::TaskCard;
use crate::config::VitConfig;
use crate::decoder::{Decoder, DecoderConfig};
use crate::error::Error;

/// A linear layer on what it reads, or the gradients of one.
///
/// A classifier reads the pooled feature of an image and gives a logit a row. With a decoder, it reads every patch token instead, see
/// [`Head::blocks`], and gives `[patches, rows]`, of which the decoder makes scores of every pixel.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[rows, read width]`.
    pub weight: Vec<f32>,
    /// `[rows]`.
    pub bias: Vec<f32>,
    /// What makes scores of patches; none of a head that reads pooled features. No engine looks into it.
    pub decoder: Option<Decoder>,
}

impl Head {
    /// All zeros: every class equally likely, and the first gradient step is a class mean.
    pub fn zeros(rows: usize, width: usize) -> Self {
        Head { weight: vec![0.0; rows * width], bias: vec![0.0; rows], decoder: None }
    }

    /// A head that gives masks, before its training: zeros of a linear one, else random numbers before scores of zero.
    pub fn dense(config: &DecoderConfig, classes: usize, vit: &VitConfig, seed: u64) -> Self {
        let (rows, width) = (config.rows(), config.blocks.len() * vit.width);
        let (weight, decoder) = Decoder::init(config, classes, vit, (rows, width), seed);
        Head { weight, bias: vec![0.0; rows], decoder: Some(decoder) }
    }

    /// The head that a card calls for, all zeros.
    pub(crate) fn of_card(card: &TaskCard, vit: &VitConfig) -> Self {
        let classes = card.classes.len();
        match &card.decoder {
            None => Head::zeros(classes, vit.feature_width()),
            Some(config) => Head {
                decoder: Some(Decoder::zeros(config, classes, vit.patch)),
                ..Head::zeros(config.rows(), config.blocks.len() * vit.width)
            },
        }
    }

    /// One of the same shape, all zeros.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.tensors_mut().into_iter().for_each(|tensor| tensor.fill(0.0));
        zeros
    }

    /// Two classifiers `[c, d]`, one a token, as one `[c, 2d]` that gives `share` times the sum of their logits.
    pub fn side_by_side(first: &Head, second: &Head, share: f32) -> Self {
        let rows = first.weight.chunks_exact(first.width()).zip(second.weight.chunks_exact(second.width()));
        Head {
            weight: rows.flat_map(|(a, b)| a.iter().chain(b)).map(|w| share * w).collect(),
            bias: first.bias.iter().zip(&second.bias).map(|(a, b)| share * (a + b)).collect(),
            decoder: None,
        }
    }

    /// Rows of the weight: classes of a classifier.
    pub fn rows(&self) -> usize {
        self.bias.len()
    }

    /// Numbers that a row reads, at least 1.
    pub fn width(&self) -> usize {
        (self.weight.len() / self.rows().max(1)).max(1)
    }

    /// The blocks, from 0 and ascending, whose patch tokens are read side by side, each after the final norm, see
    /// [`crate::Features`]; none where the pooled feature is read.
    pub fn blocks(&self) -> Option<&[usize]> {
        self.decoder.as_ref().map(|decoder| decoder.config.blocks.as_slice())
    }

    /// Numbers that an engine gives for an image of this side: `rows`, or `patches · rows`, patch by patch.
    pub fn outputs(&self, vit: &VitConfig, size: usize) -> usize {
        match self.decoder {
            None => self.rows(),
            Some(_) => (size / vit.patch).pow(2) * self.rows(),
        }
    }

    /// Refuses a heat map of what is a map itself.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_explained(&self, engine: &'static str) -> Result<(), Error> {
        match self.decoder {
            None => Ok(()),
            Some(_) => {
                Err(Error::Unsupported { engine, what: "a heat map of masks, which are maps themselves".into() })
            }
        }
    }

    /// Name and shape of both tensors of a classifier.
    pub fn tensor_shapes(rows: usize, width: usize) -> Vec<(String, Vec<usize>)> {
        vec![("head.weight".to_owned(), vec![rows, width]), ("head.bias".to_owned(), vec![rows])]
    }

    /// Name and shape of every tensor, in the order of [`Head::tensors`].
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Head::tensor_shapes(self.rows(), self.width());
        shapes.extend(self.decoder.iter().flat_map(Decoder::tensor_shapes));
        shapes
    }

    /// Weight, then bias, then the decoder's.
    pub fn tensors(&self) -> Vec<&Vec<f32>> {
        let mut all = vec![&self.weight, &self.bias];
        all.extend(self.decoder.iter().flat_map(Decoder::tensors));
        all
    }

    /// As [`Head::tensors`], to write to.
    pub fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let mut all = vec![&mut self.weight, &mut self.bias];
        all.extend(self.decoder.iter_mut().flat_map(Decoder::tensors_mut));
        all
    }
}
