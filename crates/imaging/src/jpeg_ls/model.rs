//! Contexts and their codes (T.87, annex A). Letters are those of the standard.

use super::bits::{Bits, Defect};

/// What a scan is coded with.
#[derive(Clone, Copy)]
pub(super) struct Parameters {
    /// Largest sample, `MAXVAL`.
    pub(super) most: i32,
    /// Largest error of a sample, `NEAR`.
    pub(super) near: i32,
    thresholds: [i32; 3],
    reset: i32,
    /// Number of prediction errors, `RANGE`.
    range: i32,
    /// Bits of an error written out, `qbpp`.
    error_bits: u32,
    /// Longest code, `LIMIT`.
    limit: u32,
}

impl Parameters {
    /// `None` if a number is outside of T.87, table C.2.
    pub(super) fn new(precision: u32, near: i32, most: u16, thresholds: [u16; 3], reset: u16) -> Option<Self> {
        let default_most = (1 << precision) - 1;
        let most = if most == 0 { default_most } else { i32::from(most) };
        let reset = if reset == 0 { 64 } else { i32::from(reset) };
        if most > default_most || near > (most / 2).min(255) || reset < 3 {
            return None;
        }
        let defaults = default_thresholds(most, near);
        let mut least = near + 1;
        let mut chosen = [0; 3];
        for ((chosen, given), default) in chosen.iter_mut().zip(thresholds).zip(defaults) {
            *chosen = if given == 0 { default } else { i32::from(given) };
            if !(least..=most.max(least)).contains(chosen) {
                return None;
            }
            least = *chosen;
        }
        let range = (most + 2 * near) / (2 * near + 1) + 1;
        let bits = bits_of(most + 1).max(2);
        let limit = 2 * (bits + bits.max(8));
        Some(Self { most, near, thresholds: chosen, reset, range, error_bits: bits_of(range), limit })
    }

    /// Region of a gradient, -4 to 4 (code segment A.4).
    pub(super) fn quantise(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = gradient.abs();
        let region = if size <= self.near {
            0
        } else if size < t1 {
            1
        } else if size < t2 {
            2
        } else if size < t3 {
            3
        } else {
            4
        };
        region * gradient.signum()
    }

    /// The sample at a prediction and its quantised error (code segments A.8 and A.9 backwards).
    fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut sample = prediction + error * step;
        if sample < -self.near {
            sample += self.range * step;
        } else if sample > self.most + self.near {
            sample -= self.range * step;
        }
        sample.clamp(0, self.most)
    }
}

/// `ceil(log2(values))`.
fn bits_of(values: i32) -> u32 {
    (values as u32).next_power_of_two().trailing_zeros()
}

/// T.87, C.2.4.1.1.1.
fn default_thresholds(most: i32, near: i32) -> [i32; 3] {
    let clamp = |value: i32, least: i32| if value > most || value < least { least } else { value };
    let (t1, t2, t3) = if most >= 128 {
        let factor = (most.min(4095) + 128) / 256;
        (factor + 2 + 3 * near, 4 * factor + 3 + 5 * near, 17 * factor + 4 + 7 * near)
    } else {
        let factor = 256 / (most + 1);
        ((3 / factor + 3 * near).max(2), (7 / factor + 5 * near).max(3), (21 / factor + 7 * near).max(4))
    };
    let t1 = clamp(t1, near + 1);
    let t2 = clamp(t2, t1);
    [t1, t2, clamp(t3, t2)]
}

/// Statistics of a context: `A`, `B`, `C`, `N`.
#[derive(Clone, Copy)]
struct Context {
    sizes: i32,
    bias: i32,
    correction: i32,
    count: i32,
}

/// Statistics of a run's interruption: `A`, `N`, `Nn`.
#[derive(Clone, Copy)]
struct RunContext {
    sizes: i32,
    count: i32,
    negative: i32,
}

/// All statistics of a scan.
pub(super) struct Model {
    pub(super) parameters: Parameters,
    regular: Vec<Context>,
    run: [RunContext; 2],
}

/// Neighbours of a sample: left, above, above left, above right (figure 3).
#[derive(Clone, Copy)]
pub(super) struct Neighbours {
    pub(super) a: i32,
    pub(super) b: i32,
    pub(super) c: i32,
    pub(super) d: i32,
}

/// Lengths of runs, as powers of two (`J`, code segment A.1).
pub(super) const RUN_BITS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl Model {
    pub(super) fn new(parameters: Parameters) -> Self {
        let sizes = ((parameters.range + 32) / 64).max(2);
        let context = Context { sizes, bias: 0, correction: 0, count: 1 };
        let run = RunContext { sizes, count: 1, negative: 0 };
        // 9 · 9 · 9 regions, of which a half is the other half's mirror.
        Self { parameters, regular: vec![context; 365], run: [run; 2] }
    }

    /// Context and sign of a sample; context 0 is a run.
    pub(super) fn context(&self, neighbours: Neighbours) -> i32 {
        let Neighbours { a, b, c, d } = neighbours;
        let quantise = |gradient| self.parameters.quantise(gradient);
        quantise(d - b) * 81 + quantise(b - c) * 9 + quantise(c - a)
    }

    /// A sample in regular mode (A.4 to A.6).
    pub(super) fn regular(&mut self, bits: &mut Bits, context: i32, neighbours: Neighbours) -> Result<i32, Defect> {
        let parameters = self.parameters;
        let Neighbours { a, b, c, .. } = neighbours;
        let sign = if context < 0 { -1 } else { 1 };
        let state = &mut self.regular[context.unsigned_abs() as usize];
        let predicted = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let predicted = (predicted + sign * state.correction).clamp(0, parameters.most);
        let k = golomb_parameter(state.count, state.sizes);
        let mapped = code(bits, k, parameters.limit, &parameters)?;
        let special = parameters.near == 0 && k == 0 && 2 * state.bias <= -state.count;
        let error = match (special, mapped & 1 == 1) {
            (true, true) => (mapped - 1) / 2,
            (true, false) => -(mapped / 2) - 1,
            (false, false) => mapped / 2,
            (false, true) => -((mapped + 1) / 2),
        };
        state.update(error, &parameters);
        Ok(parameters.reconstruct(predicted, sign * error))
    }

    /// The sample that ends a run (A.7.2); `type_1` if its neighbours are alike.
    pub(super) fn interruption(
        &mut self,
        bits: &mut Bits,
        run_index: usize,
        neighbours: Neighbours,
        type_1: bool,
    ) -> Result<i32, Defect> {
        let parameters = self.parameters;
        let Neighbours { a, b, .. } = neighbours;
        let kind = i32::from(type_1);
        let state = &mut self.run[usize::from(type_1)];
        let sizes = state.sizes + if type_1 { state.count >> 1 } else { 0 };
        let k = golomb_parameter(state.count, sizes);
        let limit = parameters.limit - RUN_BITS[run_index] - 1;
        let coded = code(bits, k, limit, &parameters)?;
        let mapped = coded + kind;
        let odd = mapped & 1 == 1;
        let size = (mapped + 1) / 2;
        let negative = (k != 0 || 2 * state.negative >= state.count) == odd;
        let error = if negative { -size } else { size };
        if error < 0 {
            state.negative += 1;
        }
        state.sizes += (coded + 1 - kind) >> 1;
        if state.count == parameters.reset {
            state.sizes >>= 1;
            state.count >>= 1;
            state.negative >>= 1;
        }
        state.count += 1;
        let sign = if !type_1 && a > b { -1 } else { 1 };
        Ok(parameters.reconstruct(if type_1 { a } else { b }, sign * error))
    }
}

impl Context {
    /// Code segments A.12 and A.13.
    fn update(&mut self, error: i32, parameters: &Parameters) {
        self.bias += error * (2 * parameters.near + 1);
        self.sizes += error.abs();
        if self.count == parameters.reset {
            self.sizes >>= 1;
            self.bias >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
        if self.bias <= -self.count {
            self.bias = (self.bias + self.count).max(1 - self.count);
            self.correction = (self.correction - 1).max(-128);
        } else if self.bias > 0 {
            self.bias = (self.bias - self.count).min(0);
            self.correction = (self.correction + 1).min(127);
        }
    }
}

/// Code segment A.10.
fn golomb_parameter(count: i32, sizes: i32) -> u32 {
    (0..24).find(|&k| i64::from(count) << k >= i64::from(sizes)).unwrap_or(24)
}

/// A mapped error, of at most `limit` bits (A.5.3).
///
/// One beyond `RANGE` is no error of these samples; refusing it bounds the sums of a context.
fn code(bits: &mut Bits, k: u32, limit: u32, parameters: &Parameters) -> Result<i32, Defect> {
    let escape = limit - parameters.error_bits - 1;
    let zeros = bits.zeros(escape)?;
    let value = if zeros < escape { (zeros << k) + bits.take(k)? } else { bits.take(parameters.error_bits)? + 1 };
    i32::try_from(value).ok().filter(|&value| value <= parameters.range + 1).ok_or(Defect::CodeTooLong)
}
