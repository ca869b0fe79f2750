//! Network inputs: one image at a time from a source, or a batch held in memory.

/// Why an image could not be given; boxed because sources live in crates above this one.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// Gives normalised images by index.
///
/// The engine asks for an image only when its group is computed, so a batch never has to exist in memory as a whole.
pub trait ImageSource: Sync {
    /// Writes image `index` to `out`, `[3, s, s]` (RGB planes, normalised).
    ///
    /// # Errors
    /// Whatever kept the image from being read; the engine stops and passes it on with the index.
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError>;
}

/// Some consecutive images of a source.
pub struct ImagePart<'a> {
    /// The whole.
    pub source: &'a dyn ImageSource,
    /// Index of the part's first image.
    pub first: usize,
}

impl ImageSource for ImagePart<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        self.source.load(self.first + index, out)
    }
}

/// Images in memory, `[n, 3, s, s]`, normalised.
#[derive(Clone, Debug)]
pub struct ImageBatch {
    /// Side `s`, pixels.
    pub size: usize,
    /// Values, `[n, 3, s, s]`.
    pub data: Vec<f32>,
}

impl ImageBatch {
    /// Number of images `n`.
    pub fn len(&self) -> usize {
        self.data.len() / (3 * self.size * self.size)
    }

    /// True when it holds no image.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

impl ImageSource for ImageBatch {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        let len = 3 * self.size * self.size;
        out.copy_from_slice(&self.data[index * len..(index + 1) * len]);
        Ok(())
    }
}
