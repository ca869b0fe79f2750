//! What is asked of a card: memory, copies, launches by name. One implementor calls libcuda, another runs the kernels on the processor.

use std::fmt::Debug;

/// A place in the card's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// So many f32 further.
    pub(crate) fn skip(self, floats: usize) -> Self {
        Address(self.0 + 4 * floats as u64)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A pointer; none is null.
    Pointer(Option<Address>),
    /// `unsigned`.
    Number(u32),
    /// `float`.
    Float(f32),
}

impl Argument {
    /// Its bytes, of a little-endian machine, with zeros behind.
    pub fn word(&self) -> u64 {
        match *self {
            Argument::Pointer(at) => at.map_or(0, |Address(at)| at),
            Argument::Number(number) => u64::from(number),
            Argument::Float(number) => u64::from(number.to_bits()),
        }
    }
}

impl From<Address> for Argument {
    fn from(at: Address) -> Self {
        Argument::Pointer(Some(at))
    }
}

impl From<Option<Address>> for Argument {
    fn from(at: Option<Address>) -> Self {
        Argument::Pointer(at)
    }
}

impl From<usize> for Argument {
    fn from(number: usize) -> Self {
        Argument::Number(u32::try_from(number).expect("sizes of networks are below 2^32"))
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Argument::Number(u32::from(flag))
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Argument::Float(number)
    }
}

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
}

/// A card. Everything happens in the order in which it is asked for; what fails is told by the driver's own words.
pub trait Driver: Debug + Send + Sync {
    /// Its name, such as `NVIDIA H200`.
    fn name(&self) -> String;

    /// All of its memory, bytes.
    fn memory(&self) -> usize;

    /// Its matrix unit multiplies bfloat16.
    fn multiplies_bf16(&self) -> bool;

    /// So many bytes; what they hold is not said.
    ///
    /// # Errors
    /// Where there is no more.
    fn allocate(&self, bytes: usize) -> Result<Address, String>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `at` was given by [`Driver::allocate`] and not yet given back.
    unsafe fn free(&self, at: Address);

    /// Copies to the card; done when it returns.
    ///
    /// # Errors
    /// What an earlier launch did wrong, too.
    ///
    /// # Safety
    /// So many bytes from `to` on are allocated.
    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), String>;

    /// Copies from the card, after all that was asked for before.
    ///
    /// # Errors
    /// What an earlier launch did wrong, too.
    ///
    /// # Safety
    /// So many bytes from `from` on are allocated.
    unsafe fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), String>;

    /// Copies within the card.
    ///
    /// # Errors
    /// As [`Driver::upload`].
    ///
    /// # Safety
    /// So many bytes from both addresses on are allocated, and do not overlap.
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), String>;

    /// Sets bytes to zero.
    ///
    /// # Errors
    /// As [`Driver::upload`].
    ///
    /// # Safety
    /// So many bytes from `at` on are allocated.
    unsafe fn clear(&self, at: Address, bytes: usize) -> Result<(), String>;

    /// Runs a kernel of `kernels/`, some time before the next download ends.
    ///
    /// # Errors
    /// For a launch that the card refuses.
    ///
    /// # Safety
    /// Arguments are those of the kernel, and what it reads and writes by them is allocated.
    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) -> Result<(), String>;
}
