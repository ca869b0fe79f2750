//! Branching lines, from one root or several.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pose::Pose;
use crate::canvas::{Field, Knot};
use crate::exact::{bell_draw, cos_turns, sin_turns};

/// What all instances of a tree class share. Lengths are in canvas units, angles in turns.
struct Habit {
    roots: usize,
    step: f32,
    steps: usize,
    /// Half width at the root, and what is left of it from step to step.
    half_width: f32,
    taper: f32,
    /// Change of direction at each step: steady and random.
    bend: f32,
    wander: f32,
    /// Chance of a side branch at each step, its angle, and generations of branches.
    branching: f32,
    angle: f32,
    generations: usize,
}

impl Habit {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            roots: rng.random_range(1..=7),
            step: rng.random_range(0.08..0.16),
            steps: rng.random_range(6..16),
            half_width: rng.random_range(0.02..0.07),
            taper: rng.random_range(0.86..1.0),
            bend: rng.random_range(-0.03..0.03),
            wander: rng.random_range(0.0..0.07),
            branching: rng.random_range(0.0..0.45),
            angle: rng.random_range(0.05..0.22),
            generations: rng.random_range(1..=3),
        }
    }

    fn grow(
        &self,
        rng: &mut ChaCha8Rng,
        field: &mut Field,
        pose: &Pose,
        from: [f32; 4],
        steps: usize,
        generation: usize,
    ) {
        let [mut x, mut y, mut turn, mut half_width] = from;
        let knot = |x: f32, y: f32, half_width: f32| {
            let (x, y) = pose.apply(x, y);
            Knot { x, y, half_width: half_width * pose.scale() }
        };
        let mut knots = vec![knot(x, y, half_width)];
        for step in 0..steps {
            turn += self.bend + self.wander * bell_draw(rng);
            (x, y) = (x + self.step * cos_turns(turn), y + self.step * sin_turns(turn));
            half_width *= self.taper;
            knots.push(knot(x, y, half_width));
            if generation > 1 && rng.random_range(0.0f32..1.0) < self.branching {
                let way = if rng.random_range(0..2) == 0 { 1.0 } else { -1.0 };
                let side = [x, y, turn + way * self.angle, 0.7 * half_width];
                self.grow(rng, field, pose, side, (steps - step) / 2 + 1, generation - 1);
            }
        }
        field.stroke(&knots, 1.0);
    }
}

pub(super) fn draw(class_rng: &mut ChaCha8Rng, rng: &mut ChaCha8Rng, size: usize) -> Field {
    let habit = Habit::draw(class_rng);
    let pose = Pose::draw(rng, 0.7..1.2, 0.3);
    let mut field = Field::new(size);
    for root in 0..habit.roots {
        let turn = (root as f32 + 0.7 * bell_draw(rng)) / habit.roots as f32;
        // A single root starts at the rim, several start about the middle.
        let (start, turn) = if habit.roots == 1 { (-0.9, 0.25 * bell_draw(rng)) } else { (0.08, turn) };
        let from = [start * cos_turns(turn), start * sin_turns(turn), turn, habit.half_width];
        habit.grow(rng, &mut field, &pose, from, habit.steps, habit.generations);
    }
    field
}
