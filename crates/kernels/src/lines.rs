//! Lines of a packed operand, in memory of their own or where a mapped file holds them.

use crate::mapped::MappedFile;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Where a section of a file begins: at a multiple of so many bytes, as wide as a line.
const ALIGNMENT: usize = 64;

/// Values without padding of which every pattern of bits is one.
///
/// # Safety
/// Just that, and an alignment of 64 bytes at most.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: a number.
unsafe impl Plain for f32 {}
// SAFETY: 16 numbers, 64 bytes with an alignment of 64.
unsafe impl Plain for crate::sgemm::Line {}
// SAFETY: 16 words, 64 bytes with an alignment of 64.
unsafe impl Plain for crate::bf16::Line {}
// SAFETY: 64 bytes with an alignment of 64.
unsafe impl Plain for crate::int8::Line {}

/// Values that no longer change.
#[derive(Clone, Debug)]
pub(crate) enum Lines<T> {
    /// Their own.
    Owned(Vec<T>),
    /// Of a file, which stays mapped as long as they do.
    Mapped(Mapped<T>),
}

/// Some bytes of a file as values; made by [`Sections::lines`] alone, which checks where they lie.
#[derive(Clone, Debug)]
pub(crate) struct Mapped<T> {
    file: Arc<MappedFile>,
    start: usize,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Plain> Deref for Lines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Lines::Owned(values) => values,
            Lines::Mapped(Mapped { file, start, len, .. }) => {
                // SAFETY: `Sections::lines` checked that the values lie inside the file and are aligned; the mapping
                // stays where it is as long as `file` does, and `Plain` makes values of any bytes.
                unsafe { std::slice::from_raw_parts(file.as_ptr().add(*start).cast(), *len) }
            }
        }
    }
}

/// The bytes of values, as this machine orders them.
pub(crate) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: values without padding that follow one another are bytes that do.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of numbers, as this machine orders them: a section of a file.
pub fn bytes_of_floats(values: &[f32]) -> &[u8] {
    bytes_of(values)
}

/// Sections of a mapped file, taken one after another: each begins at a multiple of 64 bytes.
#[derive(Debug)]
pub struct Sections {
    file: Arc<MappedFile>,
    at: usize,
    taken: Vec<Range<usize>>,
}

impl Sections {
    /// From the byte `at` on.
    pub fn new(file: Arc<MappedFile>, at: usize) -> Self {
        Sections { file, at, taken: Vec::new() }
    }

    /// Bytes between the end of something that long and the next section.
    pub fn padding(bytes: usize) -> usize {
        bytes.wrapping_neg() % ALIGNMENT
    }

    /// The next section, of so many values; none where the file ends before it does.
    fn take<T>(&mut self, count: usize) -> Option<Range<usize>> {
        let start = self.at.checked_next_multiple_of(ALIGNMENT)?;
        let end = start.checked_add(count.checked_mul(size_of::<T>())?)?;
        if end > self.file.len() {
            return None;
        }
        self.at = end;
        self.taken.push(start..end);
        Some(start..end)
    }

    /// The next section copied, of so many numbers; none where the file ends before it does.
    pub fn floats(&mut self, count: usize) -> Option<Vec<f32>> {
        let section = self.take::<f32>(count)?;
        Some(self.file[section].as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect())
    }

    /// The next section where it lies.
    pub(crate) fn lines<T: Plain>(&mut self, count: usize) -> Option<Lines<T>> {
        let start = self.take::<T>(count)?.start;
        if !(self.file.as_ptr().addr() + start).is_multiple_of(align_of::<T>()) {
            return None;
        }
        let file = Arc::clone(&self.file);
        Some(Lines::Mapped(Mapped { file, start, len: count, values: PhantomData }))
    }

    /// The bytes of the sections that were taken, none where something stands behind the last.
    pub fn finish(&self) -> Option<Vec<&[u8]>> {
        let all = self.at == self.file.len();
        all.then(|| self.taken.iter().map(|section| &self.file[section.clone()]).collect())
    }
}
