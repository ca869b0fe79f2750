//! How many multiplications and additions the matrix products of a pass are: what a measured time is held against.
//!
//! An `[m, k] · [k, n]` counts `2 m k n`. Norms, softmax and activations are left out, as everywhere in the field, and so
//! are low-rank updates and heads, which come to less than a percent.

use crate::config::{Pool, VitConfig};

impl VitConfig {
    /// Forward pass of one image of side `size`, pixels.
    pub fn forward_flops(&self, size: usize) -> u64 {
        self.embed_flops(size) + self.blocks_flops(self.tokens(size)) + self.pool_flops(size)
    }

    /// Forward pass and the backward pass down to the adapted projections of block `first`, the weights being frozen.
    ///
    /// Backward, each linear layer is one product more, `d_x = d_y W`, and each of attention's two products two. What a
    /// block is given needs no gradient in block `first`, so its `qkv` has no such product. Products that an implementation
    /// computes again to save memory are not counted: they are its own affair.
    pub fn training_flops(&self, size: usize, first: usize) -> u64 {
        let (t, d) = (self.tokens(size) as u64, self.width as u64);
        let backward = self.linear_flops(t) + 2 * self.attention_flops(t);
        let blocks = self.depth.saturating_sub(first) as u64;
        let spared = if blocks > 0 { 2 * t * d * 3 * d } else { 0 };
        self.forward_flops(size) + self.pool_flops(size) + blocks * backward - spared
    }

    /// What a pass of one image comes to before block `first`, or, of all blocks, to its end. With token pooling the last block counts as
    /// much as it computes: keys and values of every token.
    pub(crate) fn flops_before(&self, size: usize, first: usize) -> u64 {
        let (tokens, d) = (self.tokens(size) as u64, self.width as u64);
        let block = self.linear_flops(tokens) + self.attention_flops(tokens);
        let last = if self.pool == Pool::Token { 2 * tokens * d * 2 * d } else { block };
        let ends = first == self.depth && first > 0;
        let whole = first - usize::from(ends);
        self.embed_flops(size) + whole as u64 * block + if ends { last + self.pool_flops(size) } else { 0 }
    }

    /// All blocks of a forward pass of so many tokens; as much as can be counted where it is more.
    pub(crate) fn blocks_flops(&self, tokens: usize) -> u64 {
        let t = tokens as u64;
        (self.linear_flops(t) + self.attention_flops(t)).saturating_mul(self.depth as u64)
    }

    fn embed_flops(&self, size: usize) -> u64 {
        let (patches, d, patch) = ((size / self.patch).pow(2) as u64, self.width as u64, self.patch as u64);
        2 * patches * 3 * patch * patch * d
    }

    /// Keys and values of attention pooling; what its one query costs besides is far less than a percent.
    fn pool_flops(&self, size: usize) -> u64 {
        let (patches, d) = ((size / self.patch).pow(2) as u64, self.width as u64);
        if self.pool == Pool::Map { 2 * patches * d * 2 * d } else { 0 }
    }

    /// `qkv`, `proj`, `fc1`, `fc2` of one block.
    fn linear_flops(&self, t: u64) -> u64 {
        let d = self.width as u64;
        let (fc1_out, hidden) = (self.fc1_out() as u64, self.mlp_hidden as u64);
        2 * t * d * (3 * d + d + fc1_out + hidden)
    }

    /// Scores and what they weigh, all heads of one block.
    fn attention_flops(&self, t: u64) -> u64 {
        2 * 2 * t * t * self.width as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Description;

    /// The DeiT paper (arXiv 2012.12877, table 5) and timm's own table of results give these in GMAC, half of ours; of SigLIP it is PyTorch's
    /// `FlopCounterMode`.
    #[test]
    fn forward_passes_are_those_of_the_literature() {
        for (name, gmac) in [
            ("vit_tiny_patch16_224", 1.26),
            ("vit_small_patch16_224", 4.61),
            ("vit_base_patch16_224", 17.58),
            ("vit_large_patch16_224", 61.60),
            ("vit_huge_patch14_224", 167.40),
            ("vit_base_patch16_siglip_224", 17.71),
        ] {
            let config = Description::named(name).unwrap().config;
            let ours = config.forward_flops(224) as f64 / 2e9;
            // They count norms and biases too.
            assert!((ours / gmac - 1.0).abs() < 0.01, "{name}: {ours}");
        }
    }

    #[test]
    fn a_step_from_the_first_block_is_about_three_forwards_less_the_weights_own() {
        let config = Description::named("vit_base_patch16_224").unwrap().config;
        let (forward, whole) = (config.forward_flops(224), config.training_flops(224, 0));
        assert!(whole > 2 * forward && whole < 5 * forward / 2, "{}", whole as f64 / forward as f64);
        assert_eq!(config.training_flops(224, config.depth), forward);
        let last = config.training_flops(224, config.depth - 1);
        assert!(last > forward && last - forward < (whole - forward) / 11);
    }
}
