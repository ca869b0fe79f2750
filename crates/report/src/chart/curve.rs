//! Curves with few points that look like those with many.

/// Most points that [`decimate`] leaves.
pub const MOST_POINTS: usize = 200;
/// How far a decimated curve may be from the true one, in pixels, where the number of points allows: it cannot be seen.
const TOLERANCE: f64 = 0.3;
/// Width of a column in which only the first, last, lowest and highest point are kept, in pixels.
const COLUMN: f64 = 0.25;

/// `points` (pixels, x ascending) with at most [`MOST_POINTS`] of them left, both ends among these.
///
/// First each quarter-pixel column is cut to its first, lowest, highest and last point (the M4 of Jugel et al., VLDB 2014),
/// then Ramer–Douglas–Peucker leaves out what lies within 0.3 pixels of the rest; where more than the limit would remain,
/// the tolerance grows.
pub fn decimate(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points = columns(points);
    let mut tolerance = TOLERANCE;
    loop {
        let kept = simplify(&points, tolerance);
        if kept.len() <= MOST_POINTS {
            return kept;
        }
        tolerance *= 1.3;
    }
}

fn columns(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| (a.0 / COLUMN).floor() == (b.0 / COLUMN).floor()) {
        let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
        let lowest = (0..column.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..column.len()).max_by(by_height).unwrap_or(0);
        let mut of_column = [0, lowest, highest, column.len() - 1];
        of_column.sort_unstable();
        for (i, at) in of_column.iter().enumerate() {
            if i == 0 || of_column[i - 1] != *at {
                kept.push(column[*at]);
            }
        }
    }
    kept
}

fn simplify(points: &[(f64, f64)], tolerance: f64) -> Vec<(f64, f64)> {
    if points.len() < 3 {
        return points.to_vec();
    }
    let mut keep = vec![false; points.len()];
    keep[0] = true;
    keep[points.len() - 1] = true;
    let mut open = vec![(0, points.len() - 1)];
    while let Some((from, to)) = open.pop() {
        let far = (from + 1..to)
            .map(|i| (distance(points[i], points[from], points[to]), i))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((distance, at)) = far
            && distance > tolerance
        {
            keep[at] = true;
            open.extend([(from, at), (at, to)]);
        }
    }
    points.iter().zip(keep).filter_map(|(point, keep)| keep.then_some(*point)).collect()
}

/// From `point` to the segment from `a` to `b`.
fn distance(point: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx * dx + dy * dy;
    let along = if length == 0.0 { 0.0 } else { ((point.0 - a.0) * dx + (point.1 - a.1) * dy) / length };
    let along = along.clamp(0.0, 1.0);
    (point.0 - a.0 - along * dx).hypot(point.1 - a.1 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Largest distance of a point of `all` to the polyline `kept`.
    fn deviation(all: &[(f64, f64)], kept: &[(f64, f64)]) -> f64 {
        let to_polyline = |point: &(f64, f64)| {
            kept.windows(2).map(|ends| distance(*point, ends[0], ends[1])).fold(f64::INFINITY, f64::min)
        };
        all.iter().map(to_polyline).fold(0.0, f64::max)
    }

    /// A step curve of `n` points in a square of 150 pixels, bent by `power`.
    fn steps(n: usize, power: f64) -> Vec<(f64, f64)> {
        let mut points = vec![(0.0, 150.0)];
        for i in 1..=n {
            let x = i as f64 / n as f64;
            let y = 150.0 * (1.0 - x.powf(power));
            let before = points[points.len() - 1];
            points.push((before.0, y));
            points.push((x * 150.0, y));
        }
        points
    }

    #[test]
    fn a_long_curve_looks_the_same_with_few_points() {
        for power in [0.05, 0.3, 1.0] {
            for n in [7, 500, 40_000] {
                let all = steps(n, power);
                let kept = decimate(&all);
                assert!(kept.len() <= MOST_POINTS, "{} points", kept.len());
                // The tolerance, and the width of a column.
                let far = deviation(&all, &kept);
                assert!(far <= TOLERANCE + COLUMN, "{far} pixels at {n} points, power {power}");
                assert_eq!((kept[0], kept[kept.len() - 1]), (all[0], all[all.len() - 1]));
            }
        }
    }

    #[test]
    fn short_curves_stay() {
        assert_eq!(decimate(&[]), []);
        assert_eq!(decimate(&[(1.0, 2.0)]), [(1.0, 2.0)]);
        let corner = [(0.0, 0.0), (0.0, 10.0), (10.0, 10.0)];
        assert_eq!(decimate(&corner), corner);
    }

    proptest! {
        #[test]
        fn the_limit_holds_for_any_curve(mut xs in prop::collection::vec((0f64..150.0, 0f64..150.0), 1..2000)) {
            xs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let kept = decimate(&xs);
            prop_assert!(kept.len() <= MOST_POINTS);
            prop_assert_eq!(kept[0], xs[0]);
            prop_assert_eq!(kept[kept.len() - 1], xs[xs.len() - 1]);
        }
    }
}
