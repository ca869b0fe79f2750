//! From the patient to the file.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::canvas::{Canvas, Field};
use crate::exact::{bell_draw, bias};

/// What happens to a picture between the patient and the file.
pub(super) struct Detector {
    /// Standard deviation of the blur, in canvas units.
    blur: f32,
    /// Standard deviation of the noise, of full scale.
    noise: f32,
    /// Where the tone curve takes one half.
    tone: f32,
}

impl Detector {
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let noise = rng.random_range(0.0f32..1.0);
        Self {
            blur: rng.random_range(0.0..0.015),
            noise: 0.008 + 0.025 * noise * noise,
            tone: 0.5 + 0.1 * bell_draw(rng),
        }
    }

    /// Blur, tone curve, automatic exposure to the mean `target`, and noise, which the exposure leaves alone.
    pub(super) fn take(&self, field: &mut Field, rng: &mut ChaCha8Rng, target: f32) {
        field.blur(self.blur);
        field.values.iter_mut().for_each(|v| *v = bias(v.clamp(0.0, 1.0), self.tone));
        field.expose(target);
        field.grain(rng, self.noise);
    }

    /// The same for each channel; the targets are `means`, each varied by the cast of the light.
    pub(super) fn take_colour(&self, canvas: &mut Canvas, rng: &mut ChaCha8Rng, means: [f32; 3]) {
        let light = 1.0 + 0.25 * bell_draw(rng);
        for (plane, mean) in canvas.planes.iter_mut().zip(means) {
            let target = mean * light * (1.0 + 0.08 * bell_draw(rng));
            self.take(plane, rng, target);
        }
    }
}
