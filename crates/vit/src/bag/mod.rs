//! Bags: several images with one answer.
//!
//! ```text
//! images [n, 3, s, s] --Engine::embed--> features h [n, d] --BagHead::pool--> z [d] --Head--> logits [c]
//! ```
//!
//! The slices of a volume, the films of a study, the tiles of a slide. The backbone sees every image alone, under the plug-in's adapter;
//! what is here makes one row of features of them. Of a single image that row is the image's own, whatever the pooling, so a plug-in of
//! bags gives on a bag of one what its adapter and [`Head`](crate::Head) give on the image.

mod config;
mod head;
mod logits;
mod step;

pub use config::{BagConfig, BagPooling};
pub use head::{BagHead, Pooled};
pub use logits::BagLogits;
pub use step::{BagBatch, BagLoss};
