//! Every kernel as a function: which blocks it takes, and its arguments in order. What each computes stands in `kernels/`.

use crate::driver::{Address, Argument, Grid};
use crate::gpu::Gpu;
use crate::network::{Linear, Norm};
use melo_vit::{Activation, Error};

/// Threads of a kernel with a thread an element.
const THREADS: usize = 256;
/// Threads of a kernel of warps, and of attention and products.
const BLOCK: usize = 128;
const WARP: usize = 32;
/// Rows and columns of a block of `linear`.
const TILE: usize = 64;
/// Rows and columns of a block of `grouped` and `gradient`, rows of one of attention.
const SIDE: usize = 32;
/// Most parts in which a gradient is summed.
const PARTS: usize = 16;
/// Fewest rows of a part.
const PART_ROWS: usize = 64;

macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$(Argument::from($argument)),*] };
}

/// A matrix: where it is, and the numbers from one row to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) at: Address,
    pub(crate) stride: usize,
}

impl Rows {
    pub(crate) fn new(at: Address, stride: usize) -> Self {
        Rows { at, stride }
    }

    /// From this column on.
    pub(crate) fn at_column(self, column: usize) -> Self {
        Rows { at: self.at.skip(column), ..self }
    }
}

/// Rows of a LayerNorm: all, how many of them side by side in a row of memory, and their width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormRows {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) width: usize,
}

/// Attention of some images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) images: usize,
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    /// Table `[distances, h]` and index `[t, t]` of relative positions.
    pub(crate) relative: Option<(Address, Address)>,
}

/// Tokens of a mean, of images of `tokens`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    pub(crate) images: usize,
    pub(crate) tokens: usize,
    pub(crate) width: usize,
    pub(crate) first: usize,
    pub(crate) many: usize,
}

impl Mean {
    /// The copy of one of the tokens side by side in each of so many rows.
    pub(crate) fn column(rows: usize, [tokens, width]: [usize; 2], token: usize) -> Self {
        Mean { images: rows, tokens, width, first: token, many: 1 }
    }
}

/// Rotations of queries and keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    pub(crate) table: Address,
    pub(crate) patches: usize,
    pub(crate) prefix: usize,
    pub(crate) neighbours: bool,
}

/// Products of images with matrices of their own: the table's row of each, and the most columns of any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grouped {
    pub(crate) store: Address,
    pub(crate) table: Address,
    pub(crate) images: usize,
    pub(crate) rows: usize,
    pub(crate) most: usize,
    pub(crate) backward: bool,
}

/// Numbers of dropout's key, and what becomes of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) images: usize,
    pub(crate) tokens: usize,
    pub(crate) width: usize,
    pub(crate) first_image: usize,
    pub(crate) seed: u64,
    pub(crate) step: u64,
    pub(crate) place: usize,
    pub(crate) probability: f64,
}

fn elements(count: usize) -> Grid {
    Grid { blocks: [count.div_ceil(THREADS), 1, 1], threads: THREADS }
}

fn warps(rows: usize) -> Grid {
    Grid { blocks: [rows.div_ceil(BLOCK / WARP), 1, 1], threads: BLOCK }
}

/// The kernels' numbers of activations.
fn kind(activation: Activation, swiglu: bool) -> usize {
    match activation {
        _ if swiglu => 3,
        Activation::Erf => 0,
        Activation::Tanh => 1,
        Activation::Quick => 2,
    }
}

impl Attention {
    fn grid(&self) -> Grid {
        Grid { blocks: [self.tokens.div_ceil(SIDE), self.heads, self.images], threads: BLOCK }
    }

    fn relative(&self) -> (Option<Address>, Option<Address>) {
        self.relative.unzip()
    }
}

impl Gpu {
    pub(crate) fn unfold(
        &self,
        images: Address,
        patches: Address,
        [count, size, patch]: [usize; 3],
    ) -> Result<(), Error> {
        let all = count * (size / patch).pow(2) * 3 * patch * patch;
        self.launch("unfold", elements(all), arguments![images, patches, count, size, patch])
    }

    /// `[n, t, d]` of tokens in front, patches and their positions, where there are any.
    pub(crate) fn assemble(
        &self,
        (prefix, patches, positions): (Address, Address, Option<Address>),
        x: Address,
        [n, t, f, d]: [usize; 4],
    ) -> Result<(), Error> {
        self.launch("assemble", elements(n * t * d), arguments![prefix, patches, positions, x, n, t, f, d])
    }

    pub(crate) fn gather(
        &self,
        from: Address,
        order: Address,
        to: Address,
        [rows, width]: [usize; 2],
    ) -> Result<(), Error> {
        self.launch("gather", elements(rows * width), arguments![from, order, to, rows, width])
    }

    pub(crate) fn mean_tokens(&self, x: Address, out: Rows, mean: Mean) -> Result<(), Error> {
        let Mean { images, tokens, width, first, many } = mean;
        let arguments = arguments![x, out.at, images, tokens, width, first, many, out.stride];
        self.launch("mean_tokens", elements(images * width), arguments)
    }

    /// Adds to `d_x`.
    pub(crate) fn mean_tokens_backward(&self, d_out: Rows, d_x: Address, mean: Mean) -> Result<(), Error> {
        let Mean { images, tokens, width, first, many } = mean;
        let arguments = arguments![d_out.at, d_x, images, tokens, width, first, many, d_out.stride];
        self.launch("mean_tokens_backward", elements(images * many * width), arguments)
    }

    pub(crate) fn layernorm(&self, norm: &Norm, x: Rows, y: Rows, of: NormRows) -> Result<(), Error> {
        let NormRows { rows, inner, width } = of;
        let (gamma, beta) = (norm.gamma.at(), norm.beta.at());
        let arguments = arguments![x.at, x.stride, y.at, y.stride, rows, inner, width, gamma, beta, norm.eps];
        self.launch("layernorm", warps(rows), arguments)
    }

    pub(crate) fn layernorm_backward(
        &self,
        norm: &Norm,
        (x, d_y): (Rows, Rows),
        d_x: Rows,
        of: NormRows,
        accumulate: bool,
    ) -> Result<(), Error> {
        let NormRows { rows, inner, width } = of;
        let (gamma, eps) = (norm.gamma.at(), norm.eps);
        let shape = arguments![rows, inner, width, gamma, eps, accumulate];
        let matrices = arguments![x.at, x.stride, d_y.at, d_y.stride, d_x.at, d_x.stride];
        self.launch("layernorm_backward", warps(rows), &[&matrices[..], shape].concat())
    }

    pub(crate) fn activate(
        &self,
        (activation, swiglu): (Activation, bool),
        h: Address,
        g: Address,
        [rows, width]: [usize; 2],
    ) -> Result<(), Error> {
        self.launch("activate", elements(rows * width), arguments![h, g, rows, width, kind(activation, swiglu)])
    }

    pub(crate) fn activate_backward(
        &self,
        (activation, swiglu): (Activation, bool),
        (h, d_g): (Address, Address),
        d_h: Address,
        [rows, width]: [usize; 2],
    ) -> Result<(), Error> {
        let arguments = arguments![h, d_g, d_h, rows, width, kind(activation, swiglu)];
        self.launch("activate_backward", elements(rows * width), arguments)
    }

    /// `y (+)= gamma · x`; without a `gamma`, of ones.
    pub(crate) fn scaled(
        &self,
        x: Address,
        gamma: Option<Address>,
        y: Address,
        [rows, width]: [usize; 2],
        accumulate: bool,
    ) -> Result<(), Error> {
        self.launch("scaled", elements(rows * width), arguments![x, gamma, y, rows, width, accumulate])
    }

    /// `y [m, out] (+)= x Wᵀ + b`.
    pub(crate) fn linear(&self, linear: &Linear, x: Rows, y: Rows, m: usize, accumulate: bool) -> Result<(), Error> {
        let Linear { out, input, .. } = *linear;
        let grid = Grid { blocks: [out.div_ceil(TILE), m.div_ceil(TILE), 1], threads: BLOCK };
        let kernel = if linear.bf16 { "linear_bf16" } else { "linear_f32" };
        let (weight, bias) = (linear.weight.at(), linear.bias());
        let arguments = arguments![x.at, x.stride, weight, bias, y.at, y.stride, m, out, input, accumulate];
        self.launch(kernel, grid, arguments)
    }

    /// `d_x [m, in] = d_y W`.
    pub(crate) fn linear_backward(&self, linear: &Linear, d_y: Rows, d_x: Rows, m: usize) -> Result<(), Error> {
        let Linear { out, input, .. } = *linear;
        let grid = Grid { blocks: [input.div_ceil(TILE), m.div_ceil(TILE), 1], threads: BLOCK };
        let kernel = if linear.bf16 { "linear_backward_bf16" } else { "linear_backward_f32" };
        let arguments = arguments![d_y.at, d_y.stride, linear.weight.at(), d_x.at, d_x.stride, m, input, out];
        self.launch(kernel, grid, arguments)
    }

    pub(crate) fn grouped(&self, x: Rows, y: Rows, of: Grouped, accumulate: bool) -> Result<(), Error> {
        let grid = Grid { blocks: [of.most.div_ceil(SIDE), of.rows.div_ceil(SIDE), of.images], threads: 256 };
        let Grouped { store, table, rows, backward, .. } = of;
        let arguments = arguments![x.at, x.stride, y.at, y.stride, rows, store, table, backward, accumulate];
        self.launch("grouped", grid, arguments)
    }

    /// `sum [p, q] += scale · Pᵀ Q`; `P` and `Q` with their widths, without `P` of ones. `parts` gives scratch of so many numbers.
    pub(crate) fn gradient(
        &self,
        p: Option<(Rows, usize)>,
        (q, width_q): (Rows, usize),
        (rows, scale): (usize, f32),
        sum: Address,
        parts: impl FnOnce(usize) -> Result<Address, Error>,
    ) -> Result<(), Error> {
        let width_p = p.map_or(1, |(_, width)| width);
        let (p, stride_p) = (p.map(|(rows, _)| rows.at), p.map_or(0, |(rows, _)| rows.stride));
        let chunk = rows.div_ceil(PARTS).max(PART_ROWS);
        let (chunks, width) = (rows.div_ceil(chunk), width_p * width_q);
        let parts = parts(chunks * width)?;
        let grid = Grid { blocks: [width_q.div_ceil(SIDE), width_p.div_ceil(SIDE), chunks], threads: 256 };
        let arguments = arguments![p, stride_p, width_p, q.at, q.stride, width_q, rows, chunk, scale, parts];
        self.launch("gradient", grid, arguments)?;
        self.launch("add_parts", elements(width), arguments![parts, sum, chunks, width])
    }

    pub(crate) fn dropout(&self, x: Rows, y: Rows, mask: Mask, accumulate: bool) -> Result<(), Error> {
        let Mask { images, tokens, width, first_image, seed, step, place, probability } = mask;
        let length = tokens * width;
        let grid = Grid { blocks: [length.div_ceil(16).div_ceil(BLOCK), images, 1], threads: BLOCK };
        let halves = |word: u64| [word as u32, (word >> 32) as u32].map(Argument::Number);
        let dropped = Argument::Number((probability * 4_294_967_296.0) as u32);
        let kept = (1.0 / (1.0 - probability)) as f32;
        let shape = arguments![x.at, x.stride, y.at, y.stride, length, width, first_image];
        let ends = [Argument::from(place), dropped, kept.into(), accumulate.into()];
        self.launch("dropout", grid, &[&shape[..], &halves(seed), &halves(step), &ends].concat())
    }

    pub(crate) fn rotate(&self, qkv: Address, of: Attention, turns: Turns, backward: bool) -> Result<(), Error> {
        let Attention { images, tokens, heads, width, .. } = of;
        let Turns { table, patches, prefix, neighbours } = turns;
        let pairs = images * (tokens - prefix) * heads * width;
        let arguments = arguments![qkv, table, images, tokens, prefix, patches, heads, width, neighbours, backward];
        self.launch("rotate", elements(pairs), arguments)
    }

    pub(crate) fn attention(&self, qkv: Address, o: Address, lse: Address, of: Attention) -> Result<(), Error> {
        let (table, index) = of.relative();
        let arguments = arguments![qkv, o, lse, of.tokens, of.heads, of.width, table, index];
        self.launch("attention", of.grid(), arguments)
    }

    /// The gradient of `qkv` from that of `o`; `delta [n, h, t]` is scratch.
    pub(crate) fn attention_backward(
        &self,
        (qkv, o, lse): (Address, Address, Address),
        d_o: Address,
        (d_qkv, delta): (Address, Address),
        of: Attention,
    ) -> Result<(), Error> {
        let Attention { images, tokens, heads, width, .. } = of;
        let rows = images * tokens;
        let arguments = arguments![o, d_o, delta, rows, tokens, heads, width];
        self.launch("attention_delta", warps(rows * heads), arguments)?;
        let (table, index) = of.relative();
        let arguments = arguments![qkv, d_o, lse, delta, d_qkv, tokens, heads, width, table, index];
        self.launch("attention_backward_queries", of.grid(), arguments)?;
        self.launch("attention_backward_keys", of.grid(), arguments)
    }

    /// One query to probabilities `[n, h, p]` of the patches, `of.tokens`, and what they read of values, `[n, d]`.
    pub(crate) fn attention_pool(
        &self,
        (query, kv): (Address, Address),
        (probabilities, o): (Address, Address),
        of: Attention,
    ) -> Result<(), Error> {
        let Attention { images, tokens, heads, width, .. } = of;
        let grid = Grid { blocks: [heads, images, 1], threads: BLOCK };
        self.launch("attention_pool", grid, arguments![query, kv, probabilities, o, tokens, heads, width])
    }

    /// The gradient of keys and values from that of what was read of them.
    pub(crate) fn attention_pool_backward(
        &self,
        (query, kv): (Address, Address),
        (probabilities, o): (Address, Address),
        (d_o, d_kv): (Address, Address),
        of: Attention,
    ) -> Result<(), Error> {
        let Attention { images, tokens, heads, width, .. } = of;
        let grid = Grid { blocks: [heads, images, 1], threads: BLOCK };
        let arguments = arguments![query, kv, probabilities, o, d_o, d_kv, tokens, heads, width];
        self.launch("attention_pool_backward", grid, arguments)
    }

    /// A step of a relevance map of one image: `out [t] = share · read Ā + rest · read`.
    pub(crate) fn attention_relevance(
        &self,
        (qkv, d_o, lse): (Address, Option<Address>, Address),
        (read, out): (Address, Address),
        of: Attention,
        (share, rest): (f32, f32),
    ) -> Result<(), Error> {
        let (table, index) = of.relative();
        let grid = Grid { blocks: [of.tokens, 1, 1], threads: BLOCK };
        let Attention { tokens, heads, width, .. } = of;
        let matrices = arguments![qkv, d_o, lse, read, out];
        let shape = arguments![tokens, heads, width, table, index, share, rest];
        self.launch("attention_relevance", grid, &[&matrices[..], shape].concat())
    }
}
