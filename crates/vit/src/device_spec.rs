//! The way in: which device is wanted, and the one place that knows which there are.

use crate::cpu::Cpu;
use crate::engine::Device;
use melo_kernels::Precision;
use std::sync::Arc;

/// Which device is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpec {
    /// Numbers in the matrix products; none for the fastest that the device is good at.
    pub precision: Option<Precision>,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

impl Default for DeviceSpec {
    /// Exact, on all cores.
    fn default() -> Self {
        DeviceSpec { precision: Some(Precision::F32), threads: 0 }
    }
}

impl DeviceSpec {
    /// The device: the processor, so far the only one.
    pub fn open(&self) -> Arc<dyn Device> {
        Arc::new(Cpu::new(self.precision.unwrap_or_else(Precision::fastest)).with_threads(self.threads))
    }
}
