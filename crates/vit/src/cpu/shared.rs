//! Several plug-ins on each image: what they have in common is computed once.
//!
//! Up to the first block that a plug-in adapts, its residual stream is that of the bare backbone, the trunk. So first every
//! image goes through the trunk, as deep as one of its plug-ins follows it, and leaves its residual stream at each block
//! where one departs. Then images and plug-ins go in pairs from there to the end. A plug-in that adapts nothing follows
//! the trunk to the features.

use super::buffers::{Buffers, GroupSegment, GroupShape};
use super::packed::Packed;
use super::walk::{Spread, Workspace};
use crate::engine::{PluginRef, Segment};
use crate::error::Error;
use crate::image::ImageSource;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ptr::from_ref;

/// One image by block: its residual stream `[t, d]` before the block, and its features `[feature width]` after the last.
type Streams = BTreeMap<usize, Vec<f32>>;

/// What an image left on its way through the bare backbone.
#[derive(Clone, Default)]
struct Trunk {
    streams: Streams,
    /// What was kept of it, block by block, see [`Packed::keep_intermediates`].
    intermediates: Vec<f32>,
}

/// An image under one of its plug-ins.
struct Pair<'a> {
    image: usize,
    plugin: PluginRef<'a>,
    /// The first block that it adapts or whose patch tokens its head reads; the backbone's depth where none is.
    departs: usize,
    /// Number of the plug-in among all that are asked for.
    number: usize,
}

impl Packed {
    /// As [`crate::Engine::forward_intermediates`].
    ///
    /// Every image that has a plug-in is loaded once, and every block before the first one that a plug-in adapts is computed
    /// once an image. In between, one residual stream `[t, d]` is held for each image and each block where one of its
    /// plug-ins departs, so unlike [`Packed::forward`] this takes memory by the number of images.
    pub(crate) fn forward_shared(
        &self,
        source: &dyn ImageSource,
        size: usize,
        segments: &[Segment<'_>],
        intermediates: &[usize],
        workspace: &Workspace,
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let positions = self.positions(size);
        let pairs = self.pairs(segments);
        let count = segments.last().map_or(0, |segment| segment.images.end);
        let trunk_spread = self.spread(count, workspace);
        let branch_spread = self.spread(pairs.len(), workspace);
        let shape = |images: usize, spread: Spread| GroupShape {
            parts: spread.parts,
            intermediates,
            ..self.group_shape(images, size, source.layers(), &positions)
        };

        let mut stops = vec![BTreeSet::new(); count];
        for pair in &pairs {
            stops[pair.image].insert(pair.departs);
        }
        let mut images: Vec<usize> = (0..count).filter(|&image| !stops[image].is_empty()).collect();
        images.sort_by_key(|&image| stops[image].last());
        let trunks: Vec<Trunk> = groups(&images, trunk_spread.group, |a, b| stops[*a].last() == stops[*b].last())
            .into_par_iter()
            .map(|images| {
                let stops: Vec<_> = images.iter().map(|&image| &stops[image]).collect();
                workspace.with_buffers(|buffers| {
                    let shape = shape(images.len(), trunk_spread);
                    self.embed_group(source, images.iter().copied(), shape, buffers)?;
                    Ok(self.trunk(shape, &stops, buffers))
                })
            })
            .collect::<Result<Vec<_>, Error>>()?
            .concat();
        let trunks: HashMap<usize, Trunk> = images.into_iter().zip(trunks).collect();

        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|&pair| (pairs[pair].departs, pairs[pair].number));
        let logits: Vec<Vec<f32>> = groups(&order, branch_spread.group, |a, b| pairs[*a].departs == pairs[*b].departs)
            .into_par_iter()
            .map(|group| {
                let group: Vec<&Pair<'_>> = group.iter().map(|&pair| &pairs[pair]).collect();
                workspace
                    .with_buffers(|buffers| self.branch(shape(group.len(), branch_spread), &group, &trunks, buffers))
            })
            .collect::<Vec<_>>()
            .concat();

        let mut answers = vec![Vec::new(); pairs.len()];
        order.into_iter().zip(logits).for_each(|(pair, logits)| answers[pair] = logits);
        let mut answers = answers.into_iter();
        let of_segment = |segment: &Segment<'_>| {
            let mut logits = vec![Vec::new(); segment.plugins.len()];
            for _ in segment.images.clone() {
                logits.iter_mut().zip(answers.by_ref()).for_each(|(logits, answer)| logits.extend(answer));
            }
            logits
        };
        Ok(segments.iter().map(of_segment).collect())
    }

    /// Images and plug-ins, image by image. Plug-ins are numbered as they come, so that the order of the work does not
    /// depend on where they lie in memory.
    fn pairs<'a>(&self, segments: &[Segment<'a>]) -> Vec<Pair<'a>> {
        let mut numbers = HashMap::new();
        let images = segments.iter().flat_map(|segment| segment.images.clone().map(|image| (image, &segment.plugins)));
        let all = images.flat_map(|(image, plugins)| plugins.iter().map(move |&plugin| (image, plugin)));
        all.map(|(image, plugin)| {
            let next = numbers.len();
            let number = *numbers.entry((plugin.adapter.map(from_ref), from_ref(plugin.head))).or_insert(next);
            let adapted = plugin.adapter.and_then(|adapter| adapter.first_block());
            let read = plugin.head.blocks().and_then(|blocks| blocks.first().copied());
            let departs = adapted.into_iter().chain(read).min().unwrap_or(self.config.depth);
            Pair { image, plugin, departs, number }
        })
        .collect()
    }

    /// Takes the loaded images of a group through the trunk; of each is kept what its `stops` say.
    fn trunk(&self, shape: GroupShape<'_>, stops: &[&BTreeSet<usize>], buffers: &mut Buffers) -> Vec<Trunk> {
        let mut trunks = vec![Trunk::default(); stops.len()];
        let mut at = 0;
        let stops_of_all: BTreeSet<usize> = stops.iter().copied().flatten().copied().collect();
        let end = stops_of_all.last().copied().unwrap_or(0);
        let kept = shape.intermediates.iter().map(|block| block + 1).filter(|&stop| stop <= end);
        buffers.intermediates.clear();
        for stop in kept.chain(stops_of_all.iter().copied()).collect::<BTreeSet<usize>>() {
            let tokens = self.blocks(shape, &[], at..stop, None, buffers);
            at = stop;
            if stop > 0 && shape.intermediates.contains(&(stop - 1)) {
                self.keep_intermediates(shape, buffers);
            }
            if !stops_of_all.contains(&stop) {
                continue;
            }
            let ends = stop == self.config.depth;
            if ends {
                self.pool(GroupShape { tokens, ..shape }, buffers);
            }
            let values = if ends { &buffers.features } else { &buffers.x };
            let len = values.len() / shape.images;
            let images = trunks.iter_mut().zip(stops).zip(values.chunks_exact(len));
            images.filter(|((_, stops), _)| stops.contains(&stop)).for_each(|((trunk, _), values)| {
                trunk.streams.insert(stop, values.to_vec());
            });
        }
        let numbered = trunks.iter_mut().enumerate();
        numbered.for_each(|(image, trunk)| trunk.intermediates = self.intermediates_of(image, buffers));
        trunks
    }

    /// Logits of pairs that depart at one block, `[c]` each.
    fn branch(
        &self,
        shape: GroupShape<'_>,
        pairs: &[&Pair<'_>],
        trunks: &HashMap<usize, Trunk>,
        buffers: &mut Buffers,
    ) -> Vec<Vec<f32>> {
        let departs = pairs[0].departs;
        let ends = departs == self.config.depth;
        let values = if ends { &mut buffers.features } else { &mut buffers.x };
        values.clear();
        pairs.iter().for_each(|pair| values.extend_from_slice(&trunks[&pair.image].streams[&departs]));
        let mut segments: Vec<GroupSegment<'_>> = Vec::new();
        for pairs in pairs.chunk_by(|a, b| a.number == b.number) {
            let start = segments.last().map_or(0, |segment| segment.end);
            let PluginRef { adapter, head } = pairs[0].plugin;
            segments.push(GroupSegment { start, end: start + pairs.len(), adapter, head });
        }
        if !ends {
            self.read(shape, &segments, departs, None, buffers);
        }
        let before =
            self.config.intermediate_width() * shape.intermediates.iter().filter(|&&block| block < departs).count();
        let of_images = |(number, segment): (usize, GroupSegment<'_>)| {
            let outputs = self.outputs(shape, number, segment, buffers);
            let each = segment.head.outputs(&self.config, shape.size);
            let rows = outputs.chunks_exact(each).zip(segment.start..segment.end);
            let of_image = |(row, image): (&[f32], usize)| {
                let of_trunk = &trunks[&pairs[image].image].intermediates[..before];
                let own = if ends { Vec::new() } else { self.intermediates_of(image, buffers) };
                [row, of_trunk, &own].concat()
            };
            rows.map(of_image).collect::<Vec<_>>()
        };
        segments.into_iter().enumerate().flat_map(of_images).collect()
    }
}

/// Runs of sorted items that are alike, in groups of at most `size`.
fn groups<T>(items: &[T], size: usize, alike: impl Fn(&T, &T) -> bool) -> Vec<&[T]> {
    items.chunk_by(alike).flat_map(|run| run.chunks(size)).collect()
}
