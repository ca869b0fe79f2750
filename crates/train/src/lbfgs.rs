//! The minimum of a smooth function: L-BFGS with a line search to the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization,
//! algorithms 7.4, 7.5, 3.5 and 3.6).

use std::collections::VecDeque;

/// Steps and gradient changes that are remembered.
const MEMORY: usize = 10;
/// Sufficient decrease.
const DECREASE: f64 = 1e-4;
/// Sufficient flattening, of a quasi-Newton direction.
const FLATTENING: f64 = 0.9;
/// Evaluations of one line search.
const TRIALS: usize = 30;

/// Where the search ended.
#[derive(Debug)]
pub(crate) struct Minimum {
    pub(crate) at: Vec<f64>,
    pub(crate) value: f64,
    pub(crate) iterations: usize,
    /// True where the largest derivative is within the tolerance, or the value is as low as its numbers can tell.
    pub(crate) converged: bool,
}

/// A point of a line search: how far, the value there, the slope along the line.
#[derive(Clone, Copy)]
struct Trial {
    step: f64,
    value: f64,
    slope: f64,
}

/// From `at` to where no derivative is beyond `tolerance`, in so many iterations at most. `function` gives its value and fills in its
/// gradient, both `[n]`.
pub(crate) fn minimise(
    at: Vec<f64>,
    tolerance: f64,
    iterations: usize,
    function: &mut dyn FnMut(&[f64], &mut [f64]) -> f64,
) -> Minimum {
    let mut gradient = vec![0.0; at.len()];
    let value = function(&at, &mut gradient);
    let mut minimum = Minimum { at, value, iterations: 0, converged: false };
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::new();
    loop {
        if gradient.iter().all(|d| d.abs() <= tolerance) {
            minimum.converged = true;
            return minimum;
        }
        if minimum.iterations == iterations {
            return minimum;
        }
        let direction = direction(&gradient, &pairs);
        let start = Trial { step: 0.0, value: minimum.value, slope: dot(&gradient, &direction) };
        // The first direction has no scale yet.
        let first = if pairs.is_empty() { 1.0 / norm(&gradient).max(1.0) } else { 1.0 };
        let mut point = minimum.at.clone();
        let mut new_gradient = gradient.clone();
        let mut along = |step: f64| {
            let moved = minimum.at.iter().zip(&direction).map(|(x, d)| x + step * d);
            point.iter_mut().zip(moved).for_each(|(to, x)| *to = x);
            let value = function(&point, &mut new_gradient);
            Trial { step, value, slope: dot(&new_gradient, &direction) }
        };
        let Some(found) = search(start, first, &mut along) else {
            // No lower value can be told from this one: a stale memory is dropped once, then this is the minimum.
            if pairs.is_empty() {
                minimum.converged = true;
                return minimum;
            }
            pairs.clear();
            continue;
        };
        let step = direction.iter().map(|d| found.step * d).collect::<Vec<_>>();
        let change = new_gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect::<Vec<_>>();
        if dot(&step, &change) > f64::EPSILON * norm(&step) * norm(&change) {
            pairs.truncate(MEMORY - 1);
            pairs.push_front((step, change));
        }
        (minimum.at, minimum.value, gradient) = (point, found.value, new_gradient);
        minimum.iterations += 1;
    }
}

/// Minus the gradient times the inverse of the Hessian, as the pairs of steps and gradient changes, the latest first, know it.
fn direction(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|d| -d).collect();
    let mut weights = Vec::with_capacity(pairs.len());
    for (step, change) in pairs {
        let weight = dot(step, &direction) / dot(step, change);
        add(&mut direction, -weight, change);
        weights.push(weight);
    }
    if let Some((step, change)) = pairs.front() {
        let scale = dot(step, change) / dot(change, change);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for ((step, change), weight) in pairs.iter().zip(weights).rev() {
        let other = dot(change, &direction) / dot(step, change);
        add(&mut direction, weight - other, step);
    }
    direction
}

/// A step to the strong Wolfe conditions; none where no trial is lower than the start. `along` was asked last about what is returned.
fn search(start: Trial, first: f64, along: &mut dyn FnMut(f64) -> Trial) -> Option<Trial> {
    let decreases = |trial: Trial| trial.value <= start.value + DECREASE * trial.step * start.slope;
    let flat = |trial: Trial| trial.slope.abs() <= -FLATTENING * start.slope;
    if start.slope >= 0.0 {
        return None;
    }
    let (mut low, mut high) = (start, None::<Trial>);
    let mut step = first;
    let mut last = start;
    for _ in 0..TRIALS {
        last = along(step);
        if !last.value.is_finite() || !decreases(last) || (last.value >= low.value && low.step > 0.0) {
            high = Some(last);
        } else if flat(last) {
            return Some(last);
        } else {
            if last.slope * (high.map_or(f64::INFINITY, |high| high.step) - last.step) >= 0.0 {
                high = Some(low);
            }
            low = last;
        }
        step = match high {
            None => 2.0 * step,
            Some(high) => between(low, high),
        };
    }
    // The conditions are out of reach of these numbers: the lowest trial will do.
    (low.step > 0.0).then(|| if low.step == last.step { last } else { along(low.step) })
}

/// The lowest point of the parabola through the low end's value and slope and the high end's value, kept away from both ends.
fn between(low: Trial, high: Trial) -> f64 {
    let width = high.step - low.step;
    let curvature = (high.value - low.value - low.slope * width) / (width * width);
    let share = if curvature.is_finite() && curvature > 0.0 { -low.slope / (2.0 * curvature) / width } else { 0.5 };
    low.step + share.clamp(0.1, 0.9) * width
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn add(to: &mut [f64], scale: f64, other: &[f64]) {
    to.iter_mut().zip(other).for_each(|(to, x)| *to += scale * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quadratic_of_bad_condition_is_solved() {
        // SciPy 1.17 takes 715 iterations.
        let scales: Vec<f64> = (0..40).map(|i| 10f64.powf(f64::from(i) / 10.0 - 2.0)).collect();
        let f = &mut |x: &[f64], d: &mut [f64]| {
            let each = x.iter().zip(&scales).enumerate();
            each.map(|(i, (x, scale))| {
                d[i] = scale * (x - i as f64);
                0.5 * scale * (x - i as f64).powi(2)
            })
            .sum()
        };
        let minimum = minimise(vec![0.0; 40], 1e-9, 1000, f);
        assert!(minimum.converged && minimum.iterations < 900, "{minimum:?}");
        minimum.at.iter().enumerate().for_each(|(i, x)| assert!((x - i as f64).abs() < 1e-6, "{i}: {x}"));
    }

    #[test]
    fn the_valley_of_rosenbrock_is_followed_to_its_end() {
        let f = &mut |x: &[f64], d: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            d[0] = -2.0 * a - 400.0 * x[0] * b;
            d[1] = 200.0 * b;
            a * a + 100.0 * b * b
        };
        let minimum = minimise(vec![-1.2, 1.0], 1e-8, 200, f);
        assert!(minimum.converged && minimum.value < 1e-14, "{minimum:?}");
        assert!(minimum.iterations < 60, "{minimum:?}");
    }

    #[test]
    fn what_has_no_minimum_is_not_converged() {
        let minimum = minimise(vec![0.0], 1e-9, 20, &mut |x, d| {
            d[0] = -(-x[0]).exp();
            (-x[0]).exp()
        });
        assert!(minimum.converged || minimum.iterations == 20);
        assert!(minimum.at[0] > 5.0, "{minimum:?}");
    }
}
