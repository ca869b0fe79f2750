//! Network inputs: one image at a time from a source, or a batch held in memory.

/// Why an image could not be given; boxed because sources live in crates above this one.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// Gives normalised images by index.
///
/// The engine asks for an image only when its group is computed, so a batch never has to exist in memory as a whole.
pub trait ImageSource: Sync {
    /// Writes image `index` to `out`, `[3, s, s]` (RGB planes, normalised), or what [`ImageSource::layers`] says.
    ///
    /// # Errors
    /// Whatever kept the image from being read; the engine stops and passes it on with the index.
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError>;

    /// Layers of patches, where [`ImageSource::load`] writes patches that are embedded already, `[layers, (s / p)², d]`, instead of pixels:
    /// those of a volume. The engine sets its own tokens in front and gives every layer the positions of an image of side `s`.
    fn layers(&self) -> Option<usize> {
        None
    }

    /// Told by [`crate::Engine::step`] the gradient of embedded patches, in the shape in which they were loaded: once an image, from any
    /// thread and in any order.
    fn take_gradient(&self, _index: usize, _d_patches: &[f32]) {}
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

    fn layers(&self) -> Option<usize> {
        self.source.layers()
    }

    fn take_gradient(&self, index: usize, d_patches: &[f32]) {
        self.source.take_gradient(self.first + index, d_patches);
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

/// Volumes in memory, normalised, each of so many voxels.
#[derive(Clone, Debug)]
pub struct VoxelBatch {
    /// Voxels of a volume, `depth · s · s`.
    pub voxels: usize,
    /// Values, `[n, depth, s, s]`.
    pub data: Vec<f32>,
}

impl ImageSource for VoxelBatch {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        out.copy_from_slice(&self.data[index * self.voxels..(index + 1) * self.voxels]);
        Ok(())
    }
}
