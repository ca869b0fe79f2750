//! Real values to 8 bits: the straight line from black to white.

use melo_vit::rendering::Window;

/// The values that become black and white.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Levels {
    pub(crate) black: f64,
    pub(crate) white: f64,
}

impl Levels {
    /// From the least to the largest finite value; `None` if there is none.
    pub(crate) fn min_max(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut levels: Option<Self> = None;
        for value in values.filter(|value| value.is_finite()) {
            let Self { black, white } = levels.unwrap_or(Self { black: value, white: value });
            levels = Some(Self { black: black.min(value), white: white.max(value) });
        }
        levels
    }

    /// Between two percentiles in 0 to 100 of the finite values, interpolated as NumPy's `percentile`.
    pub(crate) fn percentiles(values: impl Iterator<Item = f64>, low: f64, high: f64) -> Option<Self> {
        let mut values: Vec<f32> = values.map(|value| value as f32).filter(|value| value.is_finite()).collect();
        if values.is_empty() {
            return None;
        }
        values.sort_unstable_by(f32::total_cmp);
        let at = |percent: f64| {
            let place = percent / 100.0 * (values.len() - 1) as f64;
            let below = f64::from(values[place as usize]);
            let above = f64::from(values[(place as usize + 1).min(values.len() - 1)]);
            below + (above - below) * place.fract()
        };
        Some(Self { black: at(low), white: at(high) })
    }

    /// `round(255 · (value - black) / (white - black))`, in 0 to 255; values that are none, and a flat image, are 0.
    pub(crate) fn level(self, value: f64) -> u8 {
        let Self { black, white } = self;
        if white <= black {
            return u8::from(value > black) * 255;
        }
        (255.0 * (value - black) / (white - black)).round().clamp(0.0, 255.0) as u8
    }
}

/// All that unsigned samples of `bits` can tell.
pub(crate) fn full_scale(bits: u32) -> Levels {
    Levels { black: 0.0, white: f64::from(u32::MAX >> (32 - bits)) }
}

/// The levels that `window` asks of values without windows of their own; the reason if it cannot.
pub(crate) fn of_window(window: &Window, values: &[f64]) -> Result<Levels, String> {
    let around = |center: f64, width: f64| Levels { black: center - width / 2.0, white: center + width / 2.0 };
    let values = || values.iter().copied();
    let measured = match *window {
        Window::Auto | Window::MinMax => Levels::min_max(values()),
        Window::Percentile { low, high } => Levels::percentiles(values(), low, high),
        Window::Values { center, width } => Some(around(center, width)),
        Window::Preset(preset) => {
            let (center, width) = preset.center_width_hu();
            Some(around(center, width))
        }
        Window::Index(_) | Window::Name(_) => return Err(format!("holds no windows, and {window} was asked for")),
    };
    measured.ok_or_else(|| "holds no finite value".into())
}
