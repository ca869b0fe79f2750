//! The engine of one NVIDIA GPU: the kernels of `kernels/`, in CUDA C, behind the seam of `melo-model`.
//!
//! ```text
//! Cuda (Device) --load--> CudaEngine: passes in groups sized to the card      engine.rs
//!   Plan: which rows meet which plug-in's matrices in each block             plan.rs
//!   Pass: forward.rs, and right beside it backward.rs; attention_pool.rs, dense.rs,
//!     explain.rs
//!   Gpu: buffers, and every kernel as a function                             gpu.rs, operations.rs
//! Driver: allocate, copy, launch by name                                     driver.rs
//!   libcuda, loaded at run time                                              libcuda.rs
//!   the processor, in tests                                                  crates/cuda-host
//! ```
//!
//! Nothing but the driver is required: PTX is embedded (`tools/gpu/ptx.py`), libcuda is loaded when a card is asked for. **Experimental: no
//! kernel has run on a card yet**; `docs/gpu.md` tells what was proved without one.

mod attention_pool;
mod backward;
mod dense;
mod driver;
mod engine;
mod explain;
mod forward;
mod gpu;
mod libcuda;
mod network;
mod operations;
mod plan;

pub use driver::{Address, Argument, Driver, Grid};

use engine::CudaEngine;
use gpu::Gpu;
use melo_vit::{Backbone, Device, Engine, EngineInfo, Error, Peak, Precision};
use std::sync::Arc;

/// Kind of engine.
const ENGINE: &str = "cuda";

/// The card of this number, from 0, as its driver.
///
/// # Errors
/// As [`Cuda::open`].
pub fn card(number: usize) -> Result<Arc<dyn Driver>, Error> {
    Ok(libcuda::LibCuda::open(number)?)
}

/// One card.
#[derive(Clone, Debug)]
pub struct Cuda {
    gpu: Gpu,
    precision: Precision,
    group: Option<usize>,
}

impl Cuda {
    /// The card of this number, from 0, in a precision, or in the fastest that it is good at.
    ///
    /// # Errors
    /// [`Error::Device`] where there is no driver or no such card, or the card is older than Turing (sm_75).
    pub fn open(number: usize, precision: Option<Precision>) -> Result<Self, Error> {
        Ok(Cuda::on(card(number)?, precision))
    }

    /// The card behind a driver.
    pub fn on(driver: Arc<dyn Driver>, precision: Option<Precision>) -> Self {
        let fastest = if driver.multiplies_bf16() { Precision::Bf16 } else { Precision::F32 };
        Cuda { precision: precision.unwrap_or(fastest), gpu: Gpu(driver), group: None }
    }

    /// The same card in another precision.
    pub fn in_precision(&self, precision: Option<Precision>) -> Self {
        Cuda { group: self.group, ..Cuda::on(Arc::clone(&self.gpu.0), precision) }
    }

    /// Walks so many images at a time, whatever the card's memory.
    ///
    /// # Panics
    /// If `group` is 0.
    pub fn with_group(self, group: usize) -> Self {
        assert!(group > 0, "a group holds at least one image");
        Cuda { group: Some(group), ..self }
    }
}

impl Device for Cuda {
    fn info(&self) -> EngineInfo {
        EngineInfo { engine: ENGINE, device: self.gpu.0.name(), precision: self.precision, threads: 1 }
    }

    fn load(&self, backbone: Backbone) -> Result<Arc<dyn Engine>, Error> {
        let (info, weights) = backbone.into_parts();
        Ok(Arc::new(CudaEngine::new(self.clone(), info, &weights)?))
    }

    fn peak(&self) -> Option<Peak> {
        None
    }
}
