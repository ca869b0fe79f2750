//! What a group of images goes through: which rows there are in front of every block, and which matrices each of them meets.
//!
//! An *entry* is an image's residual stream on its way, once for all of its plug-ins that have computed the same so far: the bare backbone,
//! or blocks that members of an ensemble share. In front of a block where their matrices differ it becomes several. So what tasks on one
//! image have in common is computed once, and a batch of one task is the case of one entry an image.

use melo_vit::{Adapter, Head, PluginRef, Target, VitConfig};
use std::collections::HashMap;
use std::iter::repeat_n;
use std::ptr::from_ref;
use std::sync::Arc;

/// A table's row: `Product` of `kernels/lowrank.cu`.
const WORDS: usize = 5;
const NO_BIAS: u32 = u32::MAX;

/// First numbers of a block's `A` and `B` in the store, by target.
type Updates = [Option<[u32; 2]>; 6];

/// Low-rank updates, their scale, and the bottleneck.
type BlockKey = (Updates, Option<u32>, Option<[u32; 4]>);

/// Places of a plug-in's matrices in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// By block.
    low_rank: Vec<Updates>,
    /// First numbers of `Down`, its bias, `Up` and its bias, by block.
    bottlenecks: Vec<Option<[u32; 4]>>,
    /// First numbers of the head's weight and bias.
    head: [u32; 2],
}

/// Every plug-in's matrices one after the other, as they go to the card: adapter's tensors, without those that another shares with it, then
/// the head's.
#[derive(Debug, Default)]
pub(crate) struct Store<'a> {
    pub(crate) values: Vec<f32>,
    plugins: Vec<(PluginRef<'a>, Stored)>,
    /// By the addresses of adapter and head.
    numbers: HashMap<(Option<usize>, usize), usize>,
    /// By the address of a block's updates, which several adapters may share, and its number.
    shared: HashMap<(usize, usize), Updates>,
}

/// Two products one after the other: `A` and `B` of a low-rank update, `Down` and `Up` of a bottleneck.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// First rows in the table: forward first and second, backward second and first.
    rows: [usize; 4],
    /// Widest between the two.
    pub(crate) inner: usize,
    pub(crate) ins: usize,
    pub(crate) outs: usize,
}

/// A plan.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Entries in front of every block, and after the last.
    pub(crate) entries: Vec<usize>,
    /// In front of a block: which entry before becomes each one now, where that changes.
    pub(crate) moves: Vec<Option<Vec<u32>>>,
    low_rank: Vec<[Option<Pair>; 6]>,
    bottlenecks: Vec<Option<Pair>>,
    /// First words of the products of heads that read pooled features, one an answer: forward and backward.
    pub(crate) head: [usize; 2],
    /// Which entry each answer is read from.
    pub(crate) answers: Vec<u32>,
    /// Behind every block, which entry each answer has there.
    pub(crate) behind: Vec<Vec<u32>>,
    /// Rows of all heads that read pooled features, by answer; 0 of another.
    pub(crate) classes: Vec<usize>,
    /// Heads that read patch tokens.
    pub(crate) dense: Vec<DenseHead>,
    /// Words of the table.
    pub(crate) table: Vec<u32>,
}

/// A head that reads patch tokens.
#[derive(Debug)]
pub(crate) struct DenseHead {
    /// The number of its plug-in.
    number: usize,
    /// The answers that it gives, by their places among all.
    pub(crate) answers: Vec<usize>,
    /// The blocks that it reads, ascending, and behind each the entries of its answers.
    pub(crate) reads: Vec<(usize, Vec<u32>)>,
    /// Numbers that it gives of a patch, and that it reads of one.
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// First words of its product: forward and backward.
    pub(crate) words: [usize; 2],
}

/// One image's products of a place: first number of both matrices and of their biases, width between them, scale.
struct Matrices {
    first: [u32; 2],
    second: [u32; 2],
    inner: usize,
    scale: f32,
}

impl<'a> Store<'a> {
    /// The number of a plug-in, which is added where it is new.
    pub(crate) fn number(&mut self, plugin: PluginRef<'a>) -> usize {
        let key = (plugin.adapter.map(|adapter| from_ref(adapter).addr()), from_ref(plugin.head).addr());
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let mut add = |tensor: &[f32]| {
            let at = u32::try_from(self.values.len()).expect("plug-ins of a batch are below 2^32 numbers");
            self.values.extend_from_slice(tensor);
            at
        };
        let (mut low_rank, mut bottlenecks) = (Vec::new(), Vec::new());
        if let Some(adapter) = plugin.adapter {
            for (block, updates) in adapter.blocks.iter().enumerate() {
                let mut places =
                    || updates.each_ref().map(|pair| pair.as_ref().map(|pair| [&pair.a, &pair.b].map(|t| add(t))));
                low_rank.push(*self.shared.entry((Arc::as_ptr(updates).addr(), block)).or_insert_with(&mut places));
            }
            for of in &adapter.bottlenecks.blocks {
                let places = |of: &melo_vit::Bottleneck| [&of.down, &of.down_bias, &of.up, &of.up_bias].map(|t| add(t));
                bottlenecks.push(of.as_ref().map(places));
            }
        }
        let head = [&plugin.head.weight, &plugin.head.bias].map(|tensor| add(tensor));
        self.plugins.push((plugin, Stored { low_rank, bottlenecks, head }));
        self.numbers.insert(key, self.plugins.len() - 1);
        self.plugins.len() - 1
    }

    fn adapter(&self, number: usize) -> Option<(&'a Adapter, &Stored)> {
        let (plugin, stored) = &self.plugins[number];
        Some((plugin.adapter?, stored))
    }

    /// All that tells what a plug-in computes in a block from what another does, or the bare backbone.
    fn block(&self, number: usize, block: usize) -> BlockKey {
        let Some((adapter, stored)) = self.adapter(number) else { return BlockKey::default() };
        let low_rank = stored.low_rank[block];
        let scale = low_rank.iter().any(Option::is_some).then(|| adapter.config.scale_of(block).to_bits());
        (low_rank, scale, stored.bottlenecks[block])
    }

    fn low_rank(&self, number: usize, block: usize, target: Target) -> Option<Matrices> {
        let (adapter, stored) = self.adapter(number)?;
        let [a, b] = stored.low_rank[block][target as usize]?;
        let (inner, scale) = (adapter.config.rank_of(block), adapter.config.scale_of(block));
        Some(Matrices { first: [a, NO_BIAS], second: [b, NO_BIAS], inner, scale })
    }

    fn bottleneck(&self, number: usize, block: usize) -> Option<Matrices> {
        let (adapter, stored) = self.adapter(number)?;
        let [down, down_bias, up, up_bias] = stored.bottlenecks[block]?;
        let inner = adapter.bottlenecks.config.width;
        Some(Matrices { first: [down, down_bias], second: [up, up_bias], inner, scale: 1.0 })
    }

    /// The heads among those of answers that read patch tokens; `behind` has the entries of all answers behind every block.
    fn dense_heads(&self, numbers: &[usize], behind: &[Vec<u32>], table: &mut Vec<u32>) -> Vec<DenseHead> {
        let mut heads: Vec<DenseHead> = Vec::new();
        for (answer, &number) in numbers.iter().enumerate() {
            let (PluginRef { head, .. }, Stored { head: [weight, bias], .. }) = &self.plugins[number];
            let Some(blocks) = head.blocks() else { continue };
            let known = heads.iter().position(|head| head.number == number).unwrap_or_else(|| {
                let (rows, width, words) = (head.rows(), head.width(), [table.len(), table.len() + WORDS]);
                table.extend([*weight, *bias, rows as u32, width as u32, 1f32.to_bits()]);
                table.extend([*weight, NO_BIAS, width as u32, rows as u32, 1f32.to_bits()]);
                let reads = blocks.iter().map(|&block| (block, Vec::new())).collect();
                heads.push(DenseHead { number, answers: Vec::new(), reads, rows, width, words });
                heads.len() - 1
            });
            heads[known].answers.push(answer);
            heads[known].reads.iter_mut().for_each(|(block, entries)| entries.push(behind[*block][answer]));
        }
        heads
    }

    /// First words of the products of heads that read pooled features of this width, forward and backward, and their rows: one an answer,
    /// without rows where the head is another.
    fn pooled_heads(&self, numbers: &[usize], width: usize, table: &mut Vec<u32>) -> ([usize; 2], Vec<usize>) {
        let pooled = |number: usize| Some(self.plugins[number].0.head).filter(|head| head.blocks().is_none());
        let classes: Vec<usize> = numbers.iter().map(|&number| pooled(number).map_or(0, Head::rows)).collect();
        let [mut forward, mut backward] = [Vec::new(), Vec::new()];
        for (&number, &rows) in numbers.iter().zip(&classes) {
            let [weight, bias] = self.plugins[number].1.head;
            forward.extend([weight, bias, rows as u32, width as u32, 1f32.to_bits()]);
            backward.extend([weight, NO_BIAS, width as u32, rows as u32, 1f32.to_bits()]);
        }
        let head = [table.len(), table.len() + forward.len()];
        table.extend([forward, backward].concat());
        (head, classes)
    }

    /// First numbers of what is trained at a place of the only plug-in, `A` and `B`, and the scale.
    pub(crate) fn trained(&self, block: usize, target: Target) -> Option<([usize; 2], f32)> {
        let (adapter, stored) = self.adapter(0)?;
        let places = stored.low_rank[block][target as usize]?.map(|at| at as usize);
        Some((places, adapter.config.scale_of(block)))
    }

    /// As [`Store::trained`]: `Down`, its bias, `Up` and its bias.
    pub(crate) fn trained_bottleneck(&self, block: usize) -> Option<[usize; 4]> {
        Some(self.adapter(0)?.1.bottlenecks[block]?.map(|at| at as usize))
    }

    /// As [`Store::trained`]: weight and bias of the head.
    pub(crate) fn trained_head(&self) -> [usize; 2] {
        self.plugins[0].1.head.map(|at| at as usize)
    }
}

/// Where a product's matrix and bias are, how many it gives and takes, and its scale.
type Row = ([u32; 2], usize, usize, f32);

impl Pair {
    /// Adds its four products to the table, entry by entry; none where no entry has one.
    fn new(table: &mut Vec<u32>, entries: &[Option<Matrices>], [ins, outs]: [usize; 2]) -> Option<Self> {
        let inner = entries.iter().flatten().map(|matrices| matrices.inner).max()?;
        let mut add = |row: &dyn Fn(&Matrices) -> Row| {
            let first = table.len() / WORDS;
            for entry in entries {
                let (at, outs, ins, scale) = entry.as_ref().map_or(([0, NO_BIAS], 0, 0, 0.0), row);
                table.extend([at[0], at[1], outs as u32, ins as u32, scale.to_bits()]);
            }
            first
        };
        let rows = [
            add(&|of| (of.first, of.inner, ins, 1.0)),
            add(&|of| (of.second, outs, of.inner, of.scale)),
            add(&|of| ([of.second[0], NO_BIAS], of.inner, outs, of.scale)),
            add(&|of| ([of.first[0], NO_BIAS], ins, of.inner, 1.0)),
        ];
        Some(Pair { rows, inner, ins, outs })
    }

    /// First words of the table, of the products in the order of [`Pair`].
    pub(crate) fn words(&self) -> [usize; 4] {
        self.rows.map(|row| row * WORDS)
    }
}

impl Plan {
    /// The plan of images with these plug-ins each, by their numbers in the store.
    pub(crate) fn new(config: &VitConfig, store: &Store<'_>, images: &[Vec<usize>]) -> Self {
        let (mut entries, mut moves, mut table) = (Vec::new(), Vec::new(), Vec::new());
        let (mut low_rank, mut bottlenecks, mut behind) = (Vec::new(), Vec::new(), Vec::<Vec<u32>>::new());
        let asked: Vec<usize> = images.concat();
        // The entry of every answer.
        let of_image = |(image, plugins): (u32, &Vec<usize>)| repeat_n(image, plugins.len());
        let mut answers: Vec<u32> = (0..).zip(images).flat_map(of_image).collect();
        let mut before = images.len();
        for block in 0..config.depth {
            let (mut known, mut from, mut numbers) = (HashMap::new(), Vec::new(), Vec::new());
            for (entry, &number) in answers.iter_mut().zip(&asked) {
                let next = from.len() as u32;
                let now = *known.entry((*entry, store.block(number, block))).or_insert(next);
                if now == next {
                    from.push(*entry);
                    numbers.push(number);
                }
                *entry = now;
            }
            let still = from.iter().copied().eq(0..before as u32);
            moves.push((!still).then_some(from));
            before = numbers.len();
            low_rank.push(Target::ALL.map(|target| {
                let matrices = |&number: &usize| store.low_rank(number, block, target);
                let (ins, outs) = target.features(config);
                Pair::new(&mut table, &numbers.iter().map(matrices).collect::<Vec<_>>(), [ins, outs])
            }));
            let matrices: Vec<_> = numbers.iter().map(|&number| store.bottleneck(number, block)).collect();
            bottlenecks.push(Pair::new(&mut table, &matrices, [config.width; 2]));
            entries.push(before);
            behind.push(answers.clone());
        }
        entries.push(before);
        let dense = store.dense_heads(&asked, &behind, &mut table);
        let (head, classes) = store.pooled_heads(&asked, config.feature_width(), &mut table);
        Plan { entries, moves, low_rank, bottlenecks, head, answers, behind, classes, dense, table }
    }

    pub(crate) fn low_rank(&self, block: usize, target: Target) -> Option<Pair> {
        self.low_rank[block][target as usize]
    }

    pub(crate) fn bottleneck(&self, block: usize) -> Option<Pair> {
        self.bottlenecks[block]
    }
}

impl DenseHead {
    /// The place of a block among those that it reads.
    pub(crate) fn place(&self, block: usize) -> Option<usize> {
        self.reads.iter().position(|&(read, _)| read == block)
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Store};
    use melo_vit::{Adapter, Head, LoraConfig, PluginRef, Target, VitConfig};

    #[test]
    fn what_plugins_of_an_image_share_is_one_entry_and_in_the_store_once() {
        let config = VitConfig { depth: 4, width: 8, heads: 2, mlp_hidden: 8, ..VitConfig::base() };
        let adapter = |blocks: &[usize], seed| {
            let (targets, blocks) = (vec![Target::Q], blocks.to_vec());
            Adapter::random(&LoraConfig { rank: 2, alpha: 3.0, targets, blocks, ..LoraConfig::none() }, &config, seed)
        };
        let (first, mut second, late) = (adapter(&[1, 2, 3], 1), adapter(&[1, 2, 3], 2), adapter(&[3], 3));
        second.share(&first, 2);
        let mut scaled = first.clone();
        scaled.config.alpha = 1.0;
        let [head, other] = [2, 3].map(|classes| Head::zeros(classes, config.width));
        let mut store = Store::default();
        let mut number = |adapter, head| store.number(PluginRef { adapter, head });
        let [first_a, second_a] = [&first, &second].map(|adapter| number(Some(adapter), &head));
        let [first_b, late, bare] = [Some(&first), Some(&late), None].map(|adapter| number(adapter, &other));
        let scaled = number(Some(&scaled), &head);
        let numbers: usize = first.tensors().iter().chain(&second.tensors()[2..]).map(|tensor| tensor.len()).sum();
        assert_eq!(store.values.len(), numbers + 2 * 2 * 8 + 3 * 2 * 9 + 3 * 3 * 9);

        let images = [vec![first_a, second_a, first_b, scaled, late, bare], vec![bare, late], vec![first_b]];
        let plan = Plan::new(&config, &store, &images);
        assert_eq!(plan.entries, [3, 3 + 1 + 1, 4 + 1 + 1, 5 + 2 + 1, 5 + 2 + 1]);
        let moves = [None, Some(vec![0, 0, 0, 1, 2]), Some(vec![0, 0, 1, 2, 3, 4]), Some(vec![0, 1, 2, 3, 3, 4, 4, 5])];
        assert_eq!(plan.moves, moves);
        assert_eq!(plan.answers, [0, 1, 0, 2, 3, 4, 5, 6, 7]);
        let [first, second] = [[0, 0, 0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2, 3, 3, 4]];
        assert_eq!(plan.behind, [first, second, [0, 1, 0, 2, 3, 3, 4, 4, 5], [0, 1, 0, 2, 3, 4, 5, 6, 7]]);
    }
}
