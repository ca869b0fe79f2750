//! A batch walked in small groups, over the threads of the ambient rayon pool.
//!
//! Images are asked for group by group and gradients are small, so memory does not grow with the batch. Gradients are
//! summed in lanes whose bounds depend on the batch alone and which are added in order: the number of threads changes
//! nothing in the result, unless all weights are trained, where a lane a thread saves memory.

use super::backward::tape_start;
use super::buffers::{Buffers, GroupSegment, GroupShape, resize};
use super::packed::Packed;
use super::positions::Positions;
use crate::adapter::Adapter;
use crate::dropout::GroupDropout;
use crate::engine::{Batch, Segment};
use crate::error::Error;
use crate::features::Features;
use crate::gradients::Gradients;
use crate::head::Head;
use crate::image::ImageSource;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Lanes of gradients at most.
pub(crate) const LANES: usize = 16;

/// Buffers that outlive a call, so that nothing is allocated from the second step on.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Images of a group.
    pub(crate) group: usize,
    free: Mutex<Vec<Buffers>>,
    lanes: Mutex<Vec<Gradients>>,
}

impl Workspace {
    /// A workspace that walks `group` images at a time.
    pub(crate) fn new(group: usize) -> Self {
        Workspace { group, free: Mutex::new(Vec::new()), lanes: Mutex::new(Vec::new()) }
    }

    /// Lanes of a step on so many images, at most `most`.
    pub(crate) fn lanes_of(&self, images: usize, most: usize) -> usize {
        images.div_ceil(self.group).min(most)
    }

    /// Runs `work` with the buffers of a worker that is not busy.
    pub(crate) fn with_buffers<T>(&self, work: impl FnOnce(&mut Buffers) -> T) -> T {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = free().pop().unwrap_or_default();
        let result = work(&mut buffers);
        free().push(buffers);
        result
    }
}

/// Images of a group, and threads that share one where there are fewer images than threads.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) group: usize,
    pub(crate) parts: usize,
}

impl Packed {
    /// As [`crate::Engine::forward_intermediates`], of segments that have one plug-in each.
    pub(crate) fn forward(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
        intermediates: &[usize],
        workspace: &Workspace,
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let images = segments.last().map_or(0, |segment| segment.images.end);
        let positions = self.positions(size);
        let spread = self.spread(images, workspace);
        let groups: Vec<Vec<Vec<f32>>> = (0..images.div_ceil(spread.group))
            .into_par_iter()
            .map(|group| {
                let range = group * spread.group..images.min((group + 1) * spread.group);
                let segments = segments_of(segments, &range);
                let shape = GroupShape {
                    parts: spread.parts,
                    intermediates,
                    ..self.group_shape(range.len(), size, source.layers(), &positions)
                };
                workspace.with_buffers(|buffers| {
                    self.group_forward(source, range, shape, &segments, None, buffers)?;
                    let of = |(number, segment): (usize, &GroupSegment<'_>)| {
                        let outputs = self.outputs(shape, number, *segment, buffers);
                        let each = segment.head.outputs(&self.config, size);
                        let rows = outputs.chunks_exact(each).zip(segment.start..segment.end);
                        rows.flat_map(|(row, image)| [row.to_vec(), self.intermediates_of(image, buffers)].concat())
                            .collect()
                    };
                    Ok(segments.iter().enumerate().map(of).collect())
                })
            })
            .collect::<Result<_, Error>>()?;
        let mut logits: Vec<Vec<Vec<f32>>> = segments.iter().map(|_| vec![Vec::new()]).collect();
        for (group, of_group) in groups.into_iter().enumerate() {
            let first = group * spread.group;
            let touched = segments.iter().position(|segment| segment.images.end > first).unwrap_or(0);
            let touched = (touched..segments.len()).filter(|&segment| !segments[segment].images.is_empty());
            for (segment, values) in touched.zip(of_group) {
                logits[segment][0].extend(values);
            }
        }
        Ok(logits)
    }

    /// As [`crate::Engine::features`].
    pub(crate) fn features(
        &self,
        source: &dyn ImageSource,
        (images, size): (usize, usize),
        adapter: Option<&Adapter>,
        features: Features,
        workspace: &Workspace,
    ) -> Result<Vec<f32>, Error> {
        let positions = self.positions(size);
        let spread = self.spread(images, workspace);
        let no_head = Head::zeros(0, self.config.feature_width());
        let groups: Vec<Vec<f32>> = (0..images.div_ceil(spread.group))
            .into_par_iter()
            .map(|group| {
                let range = group * spread.group..images.min((group + 1) * spread.group);
                let segment = GroupSegment { start: 0, end: range.len(), adapter, head: &no_head };
                let shape = GroupShape {
                    parts: spread.parts,
                    ..self.group_shape(range.len(), size, source.layers(), &positions)
                };
                workspace.with_buffers(|buffers| {
                    self.embed_group(source, range, shape, buffers)?;
                    Ok(self.features_of_group(shape, &[segment], features, buffers))
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(groups.concat())
    }

    /// As [`crate::Engine::step`].
    pub(crate) fn step(
        &self,
        batch: &Batch<'_>,
        (adapter, head): (&Adapter, &Head),
        gradients: &mut Gradients,
        workspace: &Workspace,
    ) -> Result<(f64, Vec<f32>), Error> {
        let all_weights = gradients.weights.is_some();
        let most = if all_weights { rayon::current_num_threads() } else { LANES };
        let lanes = workspace.lanes_of(batch.images, most);
        let kept = || workspace.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = std::mem::take(&mut *kept());
        sums.retain(|sum| sum.is_shaped_like(gradients));
        sums.resize_with(lanes.max(sums.len()), || Gradients::zeros(adapter, head, &self.config, all_weights));
        let results = self.step_lanes(batch, (adapter, head), (0..lanes, lanes), &mut sums[..lanes], workspace);
        if results.is_ok() {
            sums[..lanes].iter().for_each(|sum| gradients.add(sum));
        }
        *kept() = sums;
        let results = results?;
        Ok((results.iter().map(|(loss, _)| loss).sum(), results.into_iter().flat_map(|(_, logits)| logits).collect()))
    }

    /// As [`crate::Engine::step_lanes`], of `lanes` in all.
    pub(crate) fn step_lanes(
        &self,
        batch: &Batch<'_>,
        (adapter, head): (&Adapter, &Head),
        (range, lanes): (Range<usize>, usize),
        sums: &mut [Gradients],
        workspace: &Workspace,
    ) -> Result<Vec<(f64, Vec<f32>)>, Error> {
        assert_eq!(sums.len(), range.len(), "a gradient for each lane");
        let all_weights = sums.iter().any(|sum| sum.weights.is_some());
        assert!(
            !all_weights || batch.size == self.config.image_size,
            "all weights are trained at their own image size"
        );
        let (positions, layers) = (self.positions(batch.size), batch.source.layers());
        assert!(!all_weights || layers.is_none(), "all weights are trained on images");
        let groups = batch.images.div_ceil(workspace.group);
        let to_the_input = all_weights || layers.is_some();
        let tape_from = tape_start(adapter, to_the_input);
        self.prepare_backward(tape_from.unwrap_or(self.config.depth), to_the_input);
        sums.par_iter_mut()
            .zip(range)
            .map(|(sum, lane)| {
                sum.clear();
                let mut result = (0.0, Vec::new());
                for group in groups * lane / lanes..groups * (lane + 1) / lanes {
                    let range = group * workspace.group..batch.images.min((group + 1) * workspace.group);
                    let shape = self.group_shape(range.len(), batch.size, layers, &positions);
                    let (first_image, tokens) = (range.start, shape.tokens);
                    let dropout = batch.dropout.map(|dropout| GroupDropout { dropout, first_image, tokens });
                    let shape = GroupShape { dropout, ..shape };
                    let segment = GroupSegment { start: 0, end: range.len(), adapter: Some(adapter), head };
                    workspace.with_buffers(|buffers| -> Result<(), Error> {
                        let tokens =
                            self.group_forward(batch.source, range.clone(), shape, &[segment], tape_from, buffers)?;
                        let outputs = head.outputs(&self.config, batch.size);
                        let logits = self.outputs(shape, 0, segment, buffers);
                        let mut d_logits = vec![0.0; logits.len()];
                        let rows = logits.chunks_exact(outputs).zip(d_logits.chunks_exact_mut(outputs));
                        for (image, (logits, d_logits)) in range.clone().zip(rows) {
                            result.0 += (batch.loss)(image, logits, d_logits);
                        }
                        self.backward((shape, tokens), (adapter, head), &d_logits, buffers, sum);
                        if layers.is_some() {
                            let (d, prefix) = (self.config.width, self.config.prefix_tokens());
                            let images = buffers.backward.d_x.chunks_exact(shape.tokens * d);
                            range.zip(images).for_each(|(image, d_x)| {
                                batch.source.take_gradient(image, &d_x[prefix * d..]);
                            });
                        }
                        result.1.extend(logits);
                        Ok(())
                    })?;
                }
                Ok(result)
            })
            .collect()
    }

    /// How a forward pass over so many images is spread over the threads of the ambient pool.
    pub(crate) fn spread(&self, images: usize, workspace: &Workspace) -> Spread {
        let threads = rayon::current_num_threads();
        if !self.kernels.rows_are_independent() || images >= workspace.group * threads {
            return Spread { group: workspace.group, parts: 1 };
        }
        let group = workspace.group.min(images / threads).max(1);
        Spread { group, parts: (threads / images.max(1)).max(1) }
    }

    pub(crate) fn group_shape<'a>(
        &self,
        images: usize,
        size: usize,
        layers: Option<usize>,
        positions: &'a Positions,
    ) -> GroupShape<'a> {
        let tokens = self.config.volume_tokens(size, layers.unwrap_or(1));
        GroupShape { images, size, tokens, layers, positions, dropout: None, parts: 1, intermediates: &[] }
    }

    /// Loads the images of a group and leaves what heads read in `buffers`; returns the tokens of an image that the last block gave.
    fn group_forward(
        &self,
        source: &dyn ImageSource,
        range: Range<usize>,
        shape: GroupShape<'_>,
        segments: &[GroupSegment<'_>],
        tape_from: Option<usize>,
        buffers: &mut Buffers,
    ) -> Result<usize, Error> {
        self.embed_group(source, range, shape, buffers)?;
        Ok(self.read(shape, segments, 0, tape_from, buffers))
    }

    /// Loads the images of a group, as many as its shape says, and leaves their residual stream in `buffers`.
    pub(crate) fn embed_group(
        &self,
        source: &dyn ImageSource,
        images: impl IntoIterator<Item = usize>,
        shape: GroupShape<'_>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let len = match shape.layers {
            None => 3 * shape.size * shape.size,
            Some(_) => (shape.tokens - self.config.prefix_tokens()) * self.config.width,
        };
        resize(&mut buffers.images, shape.images * len);
        for (index, image) in images.into_iter().zip(buffers.images.chunks_exact_mut(len)) {
            source.load(index, image).map_err(|source| Error::Image { index, source })?;
        }
        self.embed(shape, buffers);
        Ok(())
    }
}

/// What of the segments lies in a group, in the group's own indices.
fn segments_of<'a>(segments: &[Segment<'a>], group: &Range<usize>) -> Vec<GroupSegment<'a>> {
    segments
        .iter()
        .filter_map(|Segment { images, plugins }| {
            let (start, end) = (images.start.max(group.start), images.end.min(group.end));
            let (start, end) = (start < end).then(|| (start - group.start, end - group.start))?;
            Some(GroupSegment { start, end, adapter: plugins[0].adapter, head: plugins[0].head })
        })
        .collect()
}
