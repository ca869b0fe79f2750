//! Where a plug-in looked: the relevance of every patch of one image, with the plug-in active.
//!
//! Both methods fill a `t × t` matrix `R` whose row `i` says how much each input token matters to output token `i`:
//!
//! ```text
//! rollout     R = Â_L … Â_1,               Â = ½ mean_h A + ½ I              (Abnar & Zuidema 2020, arXiv 2005.00928)
//! gradient    R = (I + Ā_L) … (I + Ā_1),   Ā = mean_h max(∂logit/∂A · A, 0)  (Chefer, Gur & Wolf 2021, arXiv 2103.15679)
//! ```
//!
//! Of the second, `R - I` is given: what attention carried. For the class token's row that changes no patch; in a mean
//! over patches the `I` would put one constant under everything, far above what differs.
//!
//! Attention pooling is one more attention: its `mean_h A`, or `mean_h max(∂logit/∂A · A, 0)`, is the row vector that goes through `R`, and of
//! the second with its `I`, as attention carried that too.

/// How relevance is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainMethod {
    /// Attention rollout (Abnar & Zuidema, ACL 2020, arXiv 2005.00928): the head's mean of the attention and the
    /// residual branch in equal parts. The same for every class. Relevance of all tokens sums to 1.
    Rollout,
    /// Attention weighted by the gradient of the class's logit with respect to it, positive parts only
    /// (Chefer, Gur & Wolf, ICCV 2021, arXiv 2103.15679, the rule for self-attention).
    Gradient,
}

/// The relevance of one image's tokens to one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Patches along a side.
    pub grid: usize,
    /// Relevance of the patches, `[grid, grid]`, at least 0; only its proportions have a meaning.
    pub values: Vec<f32>,
    /// Relevance that stayed with the class token, the distillation token and the registers, as far as there are any.
    pub prefix: Vec<f32>,
    /// Logits of the image, `[c]`.
    pub logits: Vec<f32>,
}
