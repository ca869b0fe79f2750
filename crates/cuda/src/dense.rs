//! Heads that read patch tokens: of which blocks, what they make of them, and the way back. What a decoder makes of that is no engine's.

use crate::backward::Sums;
use crate::driver::Address;
use crate::forward::Pass;
use crate::network::Norm;
use crate::operations::{Grouped, Mean, NormRows, Rows};
use crate::plan::DenseHead;
use melo_vit::Error;

impl Pass<'_> {
    /// Patch tokens `p` of an image.
    pub(crate) fn patches(&self) -> usize {
        self.tokens() - self.net.config.prefix_tokens()
    }

    /// Patch tokens `[entries · p, d]` of these entries of `x [.., t, d]`.
    pub(crate) fn patches_of(
        &mut self,
        (name, number): (&'static str, usize),
        x: Address,
        entries: &[u32],
    ) -> Result<Rows, Error> {
        let (d, t, prefix) = (self.net.config.width, self.tokens(), self.net.config.prefix_tokens());
        let rows = |&entry: &u32| (prefix..t).map(move |token| (entry as usize * t + token) as u32);
        let order: Vec<u32> = entries.iter().flat_map(rows).collect();
        let patches = self.memory.floats(name, number, order.len() * d)?;
        let rows = self.memory.hold("order", &order)?;
        self.gpu.gather(x, rows, patches, [order.len(), d])?;
        Ok(Rows::new(patches, d))
    }

    /// Adds patch tokens `[n, p, d]` to those of `x [n, t, d]`, image by image.
    pub(crate) fn add_patches(&self, patches: Address, x: Address, images: usize) -> Result<(), Error> {
        let (d, t, p) = (self.net.config.width, self.tokens(), self.patches());
        (0..images).try_for_each(|image| {
            let x = x.skip((image * t + t - p) * d);
            self.gpu.scaled(patches.skip(image * p * d), None, x, [p, d], true)
        })
    }

    /// The norm that patch tokens are read through.
    fn patch_norm(&self) -> Option<&Norm> {
        self.net.norm.as_ref().or(self.net.fc_norm.as_ref())
    }

    /// Keeps what heads read of a block, whose output is in the stream: its patch tokens, normalised, beside those of other blocks.
    pub(crate) fn read_patches(&mut self, block: usize) -> Result<(), Error> {
        let (plan, d) = (self.plan, self.net.config.width);
        for (number, head) in plan.dense.iter().enumerate() {
            let Some(place) = head.place(block) else { continue };
            let x = self.stream(block)?;
            // A training step has one head, and reads what it keeps on the way back.
            let raw = self.patches_of(("patches", place), x, &head.reads[place].1)?;
            let rows = self.dense_rows(head);
            let read = Rows::new(self.memory.floats("patches read", number, rows * head.width)?, head.width);
            let read = read.at_column(place * d);
            match self.patch_norm() {
                Some(norm) => self.gpu.layernorm(norm, raw, read, self.plain(rows))?,
                None => self.gpu.mean_tokens(raw.at, read, Mean::column(rows, [1, d], 0))?,
            }
        }
        Ok(())
    }

    /// Rows of a head's product: the patches of its answers.
    fn dense_rows(&self, head: &DenseHead) -> usize {
        head.answers.len() * self.patches()
    }

    /// A head's product, forward or backward.
    fn dense_product(&self, head: &DenseHead, backward: bool) -> Grouped {
        let (store, table) = (self.store, self.table.skip(head.words[usize::from(backward)]));
        let most = if backward { head.width } else { head.rows };
        Grouped { store, table, images: 1, rows: self.dense_rows(head), most, backward }
    }

    /// What heads give of patches, `[p, rows]`, to the places of their answers.
    pub(crate) fn dense_outputs(&mut self, outputs: &mut [Vec<f32>]) -> Result<(), Error> {
        let plan = self.plan;
        for (number, head) in plan.dense.iter().enumerate() {
            let rows = self.dense_rows(head);
            let read = Rows::new(self.memory.floats("patches read", number, rows * head.width)?, head.width);
            let given = Rows::new(self.memory.floats("patches given", 0, rows * head.rows)?, head.rows);
            self.gpu.grouped(read, given, self.dense_product(head, false), false)?;
            let given = self.gpu.floats(given.at, rows * head.rows)?;
            let of_answers = given.chunks_exact(self.patches() * head.rows);
            head.answers.iter().zip(of_answers).for_each(|(&answer, given)| outputs[answer] = given.to_vec());
        }
        Ok(())
    }

    /// From the gradient of what a step's head gives, `[n, p, rows]`, to that of what it reads; adds to the head's own, and clears `d x`.
    pub(crate) fn read_backward(&mut self, head: &DenseHead, d_given: &[f32], sums: Sums<'_>) -> Result<(), Error> {
        let rows = self.dense_rows(head);
        let given = Rows::new(self.memory.hold("d logits", d_given)?, head.rows);
        let read = Rows::new(self.memory.floats("patches read", 0, rows * head.width)?, head.width);
        self.head_gradient((given, head.rows), (read, head.width), rows, sums)?;
        let d_read = Rows::new(self.memory.floats("d patches read", 0, rows * head.width)?, head.width);
        self.gpu.grouped(given, d_read, self.dense_product(head, true), false)?;
        let floats = self.rows(self.net.config.depth) * self.net.config.width;
        let d_x = self.memory.floats("d x", 0, floats)?;
        self.gpu.clear(d_x, floats)
    }

    /// Adds to the gradient of a block's output in `d x` what the reading of it contributes.
    pub(crate) fn add_read_gradient(&mut self, block: usize) -> Result<(), Error> {
        let Some(head) = self.plan.dense.first() else { return Ok(()) };
        let Some(place) = head.place(block) else { return Ok(()) };
        let (d, t, p) = (self.net.config.width, self.tokens(), self.patches());
        let (rows, images) = (self.dense_rows(head), head.answers.len());
        let d_x = self.memory.floats("d x", 0, images * t * d)?;
        let d_read = self.memory.floats("d patches read", 0, rows * head.width)?;
        let d_patches = self.memory.floats("d patches", 0, rows * d)?;
        let of_place = Mean::column(rows, [head.width / d, d], place);
        self.gpu.mean_tokens(d_read, Rows::new(d_patches, d), of_place)?;
        let raw = self.memory.floats("patches", place, rows * d)?;
        let Some(norm) = self.patch_norm() else { return self.add_patches(d_patches, d_x, images) };
        // Patches of an image lie side by side in a row of its tokens.
        let (read, d_x) = ((Rows::new(raw, p * d), Rows::new(d_patches, p * d)), Rows::new(d_x, t * d));
        let of_images = NormRows { rows, inner: p, width: d };
        self.gpu.layernorm_backward(norm, read, d_x.at_column((t - p) * d), of_images, true)
    }
}
