//! A card's memory in Rust's hands: buffers that give themselves back, copies within their bounds, launches.

use crate::driver::{Address, Argument, Driver, Grid};
use melo_vit::Error;
use std::collections::HashMap;
use std::sync::Arc;

/// A driver, and how its errors are told.
#[derive(Clone, Debug)]
pub(crate) struct Gpu(pub(crate) Arc<dyn Driver>);

/// Memory of a card.
#[derive(Debug)]
pub(crate) struct Buffer {
    gpu: Gpu,
    at: Address,
    bytes: usize,
}

/// Numbers that cards know.
pub(crate) trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for u32 {}
impl Plain for u16 {}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: f32, u32 and u16 have no padding, and any of their bytes may be read.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

impl Gpu {
    fn said<T>(&self, result: Result<T, String>) -> Result<T, Error> {
        result.map_err(|reason| Error::Device { device: self.0.name(), reason })
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<Buffer, Error> {
        let at = self.said(self.0.allocate(bytes.max(4)))?;
        Ok(Buffer { gpu: self.clone(), at, bytes: bytes.max(4) })
    }

    /// A buffer that holds these.
    pub(crate) fn buffer<T: Plain>(&self, values: &[T]) -> Result<Buffer, Error> {
        let buffer = self.allocate(size_of_val(values))?;
        buffer.upload(values)?;
        Ok(buffer)
    }

    /// f32 from one place to another; both lie in buffers that are long enough.
    pub(crate) fn copy(&self, from: Address, to: Address, floats: usize) -> Result<(), Error> {
        // SAFETY: the passes copy between matrices of one shape, which `Memory::floats` made for it.
        self.said(unsafe { self.0.copy(from, to, 4 * floats) })
    }

    /// Sets f32 to zero.
    pub(crate) fn clear(&self, at: Address, floats: usize) -> Result<(), Error> {
        // SAFETY: the passes clear matrices that `Memory::floats` made in this shape.
        self.said(unsafe { self.0.clear(at, 4 * floats) })
    }

    /// The f32 from a place on.
    pub(crate) fn floats(&self, at: Address, floats: usize) -> Result<Vec<f32>, Error> {
        let mut values = vec![0f32; floats];
        // SAFETY: any bytes are an f32, and the passes ask for what `Memory::floats` made.
        let bytes: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 4 * floats) };
        // SAFETY: as above.
        self.said(unsafe { self.0.download(at, bytes) })?;
        Ok(values)
    }

    pub(crate) fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) -> Result<(), Error> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        // SAFETY: `operations.rs` alone calls this, with what each kernel takes; kernels stay within the shapes that they are told, which
        // the tests hold them to on the processor, between guards.
        self.said(unsafe { self.0.launch(kernel, grid, arguments) })
    }
}

impl Buffer {
    pub(crate) fn at(&self) -> Address {
        self.at
    }

    pub(crate) fn upload<T: Plain>(&self, values: &[T]) -> Result<(), Error> {
        let bytes = bytes_of(values);
        assert!(bytes.len() <= self.bytes, "{} bytes into a buffer of {}", bytes.len(), self.bytes);
        // SAFETY: the bytes fit, as was asserted.
        self.gpu.said(unsafe { self.gpu.0.upload(self.at, bytes) })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: a buffer owns its memory.
        unsafe { self.gpu.0.free(self.at) }
    }
}

/// Buffers by name, kept between passes, so that nothing is allocated from the second one on.
#[derive(Debug)]
pub(crate) struct Memory {
    gpu: Gpu,
    buffers: HashMap<(&'static str, usize), Buffer>,
}

impl Memory {
    pub(crate) fn new(gpu: Gpu) -> Self {
        Memory { gpu, buffers: HashMap::new() }
    }

    /// The buffer of this name and number, for so many bytes; what it held is lost where it was smaller.
    fn bytes(&mut self, name: (&'static str, usize), bytes: usize) -> Result<&Buffer, Error> {
        if self.buffers.get(&name).is_none_or(|buffer| buffer.bytes < bytes) {
            self.buffers.remove(&name);
            let buffer = self.gpu.allocate(bytes)?;
            self.buffers.insert(name, buffer);
        }
        Ok(&self.buffers[&name])
    }

    /// As [`Memory::bytes`], f32.
    pub(crate) fn floats(&mut self, name: &'static str, number: usize, floats: usize) -> Result<Address, Error> {
        Ok(self.bytes((name, number), 4 * floats)?.at)
    }

    /// A buffer that holds these.
    pub(crate) fn hold<T: Plain>(&mut self, name: &'static str, values: &[T]) -> Result<Address, Error> {
        let buffer = self.bytes((name, 0), size_of_val(values))?;
        buffer.upload(values)?;
        Ok(buffer.at)
    }
}
