//! Several plug-ins on each image: what they have in common is computed once.
//!
//! Up to the first block that a plug-in adapts, its residual stream is that of the bare backbone, the trunk. So first every
//! image goes through the trunk, as deep as one of its plug-ins follows it, and leaves its residual stream at each block
//! where one departs. Members of an ensemble whose first updates are the same go on together, in a limb, once an image, up to
//! the block where they differ. Then images and plug-ins go in pairs from there to the end. A plug-in that adapts nothing
//! follows the trunk to the features.

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

/// What an image left on its way through the bare backbone, or on through a limb.
#[derive(Clone, Default)]
struct Trunk {
    streams: Streams,
    /// What was kept of it, block by block, see [`Packed::keep_intermediates`].
    intermediates: Vec<f32>,
}

/// Where a pair departs from: an image's trunk, or the limb of this number that forks at this block.
type Root = (usize, Option<(usize, usize)>);

/// An image under what several of its plug-ins have in common, from where that departs from the trunk to where they differ.
struct Limb<'a> {
    image: usize,
    /// The plug-in that it is computed by: any of them.
    plugin: PluginRef<'a>,
    departs: usize,
    forks: usize,
    number: usize,
}

/// An image under one of its plug-ins.
struct Pair<'a> {
    image: usize,
    plugin: PluginRef<'a>,
    root: Root,
    /// The block before which it departs from its root: the first that it adapts or whose patch tokens its head reads; of a limb the
    /// first that differs; the backbone's depth where none is.
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
        let (pairs, limbs) = self.pairs(segments);
        let count = segments.last().map_or(0, |segment| segment.images.end);
        let trunk_spread = self.spread(count, workspace);
        let branch_spread = self.spread(pairs.len(), workspace);
        let shape = |images: usize, spread: Spread| GroupShape {
            parts: spread.parts,
            intermediates,
            ..self.group_shape(images, size, source.layers(), &positions)
        };

        let mut stops = vec![BTreeSet::new(); count];
        for pair in pairs.iter().filter(|pair| pair.root.1.is_none()) {
            stops[pair.image].insert(pair.departs);
        }
        for limb in &limbs {
            stops[limb.image].insert(limb.departs);
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
        let mut roots: HashMap<Root, Trunk> = images.into_iter().map(|image| (image, None)).zip(trunks).collect();
        let alike = |a: &Limb<'_>, b: &Limb<'_>| (a.departs, a.forks) == (b.departs, b.forks);
        let limb_spread = self.spread(limbs.len(), workspace);
        let grown: Vec<Trunk> = groups(&limbs, limb_spread.group, alike)
            .into_par_iter()
            .map(|group| {
                workspace.with_buffers(|buffers| self.limb(shape(group.len(), limb_spread), group, &roots, buffers))
            })
            .collect::<Vec<_>>()
            .concat();
        roots.extend(limbs.iter().map(|limb| (limb.image, Some((limb.number, limb.forks)))).zip(grown));

        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|&pair| (pairs[pair].departs, pairs[pair].number));
        let logits: Vec<Vec<f32>> = groups(&order, branch_spread.group, |a, b| pairs[*a].departs == pairs[*b].departs)
            .into_par_iter()
            .map(|group| {
                let group: Vec<&Pair<'_>> = group.iter().map(|&pair| &pairs[pair]).collect();
                workspace
                    .with_buffers(|buffers| self.branch(shape(group.len(), branch_spread), &group, &roots, buffers))
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

    /// Images and plug-ins, image by image, and the limbs that several plug-ins of an image go through, sorted by where they lie. Plug-ins are
    /// numbered as they come, so that the order of the work does not depend on where they lie in memory.
    fn pairs<'a>(&self, segments: &[Segment<'a>]) -> (Vec<Pair<'a>>, Vec<Limb<'a>>) {
        let mut numbers = HashMap::new();
        let (mut pairs, mut limbs) = (Vec::new(), Vec::new());
        for segment in segments {
            let forks = self.forks(&segment.plugins);
            for image in segment.images.clone() {
                let mut root = (image, None);
                for (place, &plugin) in segment.plugins.iter().enumerate() {
                    let next = numbers.len();
                    let number = *numbers.entry((plugin.adapter.map(from_ref), from_ref(plugin.head))).or_insert(next);
                    let departs = self.departs(plugin);
                    let Some(fork) = forks[place] else {
                        pairs.push(Pair { image, plugin, root: (image, None), departs, number });
                        continue;
                    };
                    if fork.first {
                        root = (image, Some((number, fork.block)));
                        limbs.push(Limb { image, plugin, departs, forks: fork.block, number });
                    }
                    pairs.push(Pair { image, plugin, root, departs: fork.block, number });
                }
            }
        }
        limbs.sort_by_key(|limb| (limb.departs, limb.forks, limb.number));
        (pairs, limbs)
    }

    /// The first block that a plug-in adapts or whose patch tokens its head reads.
    fn departs(&self, plugin: PluginRef<'_>) -> usize {
        let adapted = plugin.adapter.and_then(|adapter| adapter.first_block());
        let read = plugin.head.blocks().and_then(|blocks| blocks.first().copied());
        adapted.into_iter().chain(read).min().unwrap_or(self.config.depth)
    }

    /// Which of these plug-ins go on together beyond the trunk: neighbours whose updates are the same beyond the block where they depart. Up to
    /// the last block, which class tokens alone go through.
    fn forks(&self, plugins: &[PluginRef<'_>]) -> Vec<Option<Fork>> {
        let together = |a: &PluginRef<'_>, b: &PluginRef<'_>| {
            let shared = a.adapter.zip(b.adapter).map_or(0, |(a, b)| a.shared_with(b)).min(self.config.depth - 1);
            let pooled = [a, b].iter().all(|plugin| plugin.head.blocks().is_none());
            (pooled && shared > self.departs(*a)).then_some(shared)
        };
        let mut forks = Vec::with_capacity(plugins.len());
        for run in plugins.chunk_by(|a, b| together(a, b).is_some()) {
            let block = run.windows(2).filter_map(|pair| together(&pair[0], &pair[1])).min();
            forks.extend((0..run.len()).map(|place| block.map(|block| Fork { block, first: place == 0 })));
        }
        forks
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

    /// Takes images on from their trunks through limbs that depart and fork alike.
    fn limb(
        &self,
        shape: GroupShape<'_>,
        limbs: &[Limb<'_>],
        trunks: &HashMap<Root, Trunk>,
        buffers: &mut Buffers,
    ) -> Vec<Trunk> {
        let Limb { departs, forks, .. } = limbs[0];
        buffers.x.clear();
        let of_trunk = |limb: &Limb<'_>| &trunks[&(limb.image, None)];
        limbs.iter().for_each(|limb| buffers.x.extend_from_slice(&of_trunk(limb).streams[&departs]));
        let segments = runs(limbs, |limb| (limb.number, limb.plugin));
        buffers.intermediates.clear();
        let kept = shape.intermediates.iter().map(|block| block + 1).filter(|&stop| stop > departs && stop < forks);
        let mut at = departs;
        for stop in kept.chain([forks]) {
            self.blocks(shape, &segments, at..stop, None, buffers);
            at = stop;
            if shape.intermediates.contains(&(stop - 1)) {
                self.keep_intermediates(shape, buffers);
            }
        }
        let before = self.intermediates_before(shape, departs);
        let len = buffers.x.len() / limbs.len();
        let each = limbs.iter().zip(buffers.x.chunks_exact(len)).enumerate();
        each.map(|(image, (limb, values))| {
            let own = self.intermediates_of(image, buffers);
            let intermediates = [&of_trunk(limb).intermediates[..before], &own].concat();
            Trunk { streams: Streams::from([(forks, values.to_vec())]), intermediates }
        })
        .collect()
    }

    /// Numbers that are kept of an image before a block.
    fn intermediates_before(&self, shape: GroupShape<'_>, block: usize) -> usize {
        self.config.intermediate_width() * shape.intermediates.iter().filter(|&&kept| kept < block).count()
    }

    /// Logits of pairs that depart at one block, `[c]` each.
    fn branch(
        &self,
        shape: GroupShape<'_>,
        pairs: &[&Pair<'_>],
        roots: &HashMap<Root, Trunk>,
        buffers: &mut Buffers,
    ) -> Vec<Vec<f32>> {
        let departs = pairs[0].departs;
        let ends = departs == self.config.depth;
        let values = if ends { &mut buffers.features } else { &mut buffers.x };
        values.clear();
        pairs.iter().for_each(|pair| values.extend_from_slice(&roots[&pair.root].streams[&departs]));
        let segments = runs(pairs, |pair| (pair.number, pair.plugin));
        if !ends {
            self.read(shape, &segments, departs, None, buffers);
        }
        let before = self.intermediates_before(shape, departs);
        let of_images = |(number, segment): (usize, GroupSegment<'_>)| {
            let outputs = self.outputs(shape, number, segment, buffers);
            let each = segment.head.outputs(&self.config, shape.size);
            let rows = outputs.chunks_exact(each).zip(segment.start..segment.end);
            let of_image = |(row, image): (&[f32], usize)| {
                let of_trunk = &roots[&pairs[image].root].intermediates[..before];
                let own = if ends { Vec::new() } else { self.intermediates_of(image, buffers) };
                [row, of_trunk, &own].concat()
            };
            rows.map(of_image).collect::<Vec<_>>()
        };
        segments.into_iter().enumerate().flat_map(of_images).collect()
    }
}

/// Where plug-ins that went on together differ.
#[derive(Clone, Copy)]
struct Fork {
    block: usize,
    /// The first of them.
    first: bool,
}

/// The segments of a group of items, of which those of one number lie together.
fn runs<'a, T>(items: &[T], of: impl Fn(&T) -> (usize, PluginRef<'a>)) -> Vec<GroupSegment<'a>> {
    let mut segments: Vec<GroupSegment<'a>> = Vec::new();
    for run in items.chunk_by(|a, b| of(a).0 == of(b).0) {
        let start = segments.last().map_or(0, |segment| segment.end);
        let PluginRef { adapter, head } = of(&run[0]).1;
        segments.push(GroupSegment { start, end: start + run.len(), adapter, head });
    }
    segments
}

/// Runs of sorted items that are alike, in groups of at most `size`.
fn groups<T>(items: &[T], size: usize, alike: impl Fn(&T, &T) -> bool) -> Vec<&[T]> {
    items.chunk_by(alike).flat_map(|run| run.chunks(size)).collect()
}
