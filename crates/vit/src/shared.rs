//! Several plug-ins on each image: what they have in common is computed once.
//!
//! Up to the first block that a plug-in adapts, its residual stream is that of the bare backbone, the trunk. So first every
//! image goes through the trunk, as deep as one of its plug-ins follows it, and leaves its residual stream at each block
//! where one departs. Then images and plug-ins go in pairs from there to the end. A plug-in that adapts nothing follows
//! the trunk to the features.

use crate::backbone::Backbone;
use crate::buffers::{Buffers, GroupSegment, GroupShape};
use crate::error::Error;
use crate::image::ImageSource;
use crate::plugin::Plugin;
use crate::positions;
use crate::walk::{Spread, Workspace};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One image by block: its residual stream `[t, d]` before the block, and its features `[feature width]` after the last.
type Trunk = BTreeMap<usize, Vec<f32>>;

/// An image under one of its plug-ins.
struct Pair<'a> {
    image: usize,
    plugin: &'a Plugin,
    /// The first adapted block; the backbone's depth where none is.
    departs: usize,
    /// Number of the plug-in among all that are asked for.
    number: usize,
}

impl Backbone {
    /// Logits of every image under each of its plug-ins: `result[image][k]` is `[c]` of `tasks[image][k]`.
    ///
    /// Every image that has a task is loaded once, and every block before the first one that a plug-in adapts is computed
    /// once an image. In between, one residual stream `[t, d]` is held for each image and each block where one of its
    /// plug-ins departs, so unlike [`Backbone::forward`] this takes memory by the number of images.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::Image`].
    pub fn forward_tasks(
        &self,
        source: &dyn ImageSource,
        size: usize,
        tasks: &[Vec<Arc<Plugin>>],
        workspace: &Workspace,
    ) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        self.check_size(size)?;
        let pos_embed = positions::resample(&self.weights.pos_embed, &self.config, size);
        let pairs = self.pairs(tasks);
        let trunk_spread = self.spread(tasks.len(), workspace);
        let branch_spread = self.spread(pairs.len(), workspace);
        let shape = |images: usize, spread: Spread| GroupShape {
            parts: spread.parts,
            ..self.group_shape(images, size, &pos_embed)
        };

        let mut stops = vec![BTreeSet::new(); tasks.len()];
        for pair in &pairs {
            stops[pair.image].insert(pair.departs);
        }
        let mut images: Vec<usize> = (0..tasks.len()).filter(|&image| !stops[image].is_empty()).collect();
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
        Ok(tasks.iter().map(|plugins| answers.by_ref().take(plugins.len()).collect()).collect())
    }

    /// Images and plug-ins in the order of `tasks`. Plug-ins are numbered as they come, so that the order of the work does
    /// not depend on where they lie in memory.
    fn pairs<'a>(&self, tasks: &'a [Vec<Arc<Plugin>>]) -> Vec<Pair<'a>> {
        let mut numbers = HashMap::new();
        let all = tasks.iter().enumerate().flat_map(|(image, plugins)| plugins.iter().map(move |p| (image, p)));
        all.map(|(image, plugin)| {
            let next = numbers.len();
            let number = *numbers.entry(Arc::as_ptr(plugin)).or_insert(next);
            let departs = plugin.adapter.first_block().unwrap_or(self.config.depth);
            Pair { image, plugin, departs, number }
        })
        .collect()
    }

    /// Takes the loaded images of a group through the trunk; of each is kept what its `stops` say.
    fn trunk(&self, shape: GroupShape<'_>, stops: &[&BTreeSet<usize>], buffers: &mut Buffers) -> Vec<Trunk> {
        let mut trunks = vec![Trunk::new(); stops.len()];
        let mut at = 0;
        for stop in stops.iter().copied().flatten().copied().collect::<BTreeSet<usize>>() {
            self.blocks(shape, &[], at..stop, None, buffers);
            at = stop;
            let ends = stop == self.config.depth;
            if ends {
                self.pool(shape, buffers);
            }
            let values = if ends { &buffers.features } else { &buffers.x };
            let len = values.len() / shape.images;
            let images = trunks.iter_mut().zip(stops).zip(values.chunks_exact(len));
            images.filter(|((_, stops), _)| stops.contains(&stop)).for_each(|((trunk, _), values)| {
                trunk.insert(stop, values.to_vec());
            });
        }
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
        pairs.iter().for_each(|pair| values.extend_from_slice(&trunks[&pair.image][&departs]));
        let mut segments: Vec<GroupSegment<'_>> = Vec::new();
        for pairs in pairs.chunk_by(|a, b| a.number == b.number) {
            let start = segments.last().map_or(0, |segment| segment.end);
            let Plugin { adapter, head, .. } = pairs[0].plugin;
            segments.push(GroupSegment { start, end: start + pairs.len(), adapter: Some(adapter), head });
        }
        if !ends {
            self.blocks(shape, &segments, departs..self.config.depth, None, buffers);
            self.pool(shape, buffers);
        }
        let logits = |segment: GroupSegment<'_>| {
            let mut logits = vec![0.0; (segment.end - segment.start) * segment.head.classes()];
            self.logits(segment, &buffers.features, &mut logits);
            logits.chunks_exact(segment.head.classes()).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        segments.into_iter().flat_map(logits).collect()
    }
}

/// Runs of sorted items that are alike, in groups of at most `size`.
fn groups<T>(items: &[T], size: usize, alike: impl Fn(&T, &T) -> bool) -> Vec<&[T]> {
    items.chunk_by(alike).flat_map(|run| run.chunks(size)).collect()
}
