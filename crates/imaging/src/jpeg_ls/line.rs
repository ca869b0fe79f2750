//! Lines of samples: runs, and samples in regular mode (T.87, A.7 and annex B).

use super::bits::{Bits, Defect};
use super::model::{Model, Neighbours, RUN_BITS};

/// The last line and the one being decoded, of each component of a scan.
pub(super) struct Lines {
    width: usize,
    model: Model,
    components: Vec<Component>,
}

/// A sample stands before and behind each line (A.2.1).
struct Component {
    above: Vec<i32>,
    line: Vec<i32>,
    run_index: usize,
}

impl Component {
    /// Of column `x`, 1 the first.
    fn neighbours(&self, x: usize) -> Neighbours {
        Neighbours { a: self.line[x - 1], b: self.above[x], c: self.above[x - 1], d: self.above[x + 1] }
    }

    /// Makes the last line the one above.
    fn begin(&mut self) {
        std::mem::swap(&mut self.above, &mut self.line);
        let width = self.above.len() - 2;
        self.above[width + 1] = self.above[width];
        self.line[0] = self.above[1];
    }
}

impl Lines {
    pub(super) fn new(width: usize, components: usize, model: Model) -> Self {
        let component = || Component { above: vec![0; width + 2], line: vec![0; width + 2], run_index: 0 };
        Self { width, model, components: (0..components).map(|_| component()).collect() }
    }

    /// The line just decoded of a component.
    pub(super) fn row(&self, component: usize) -> &[i32] {
        &self.components[component].line[1..=self.width]
    }

    /// A line of each component in turn.
    pub(super) fn by_line(&mut self, bits: &mut Bits) -> Result<(), Defect> {
        let near = self.model.parameters.near;
        for component in &mut self.components {
            component.begin();
            let mut x = 1;
            while x <= self.width {
                let neighbours = component.neighbours(x);
                let context = self.model.context(neighbours);
                if context != 0 {
                    component.line[x] = self.model.regular(bits, context, neighbours)?;
                    x += 1;
                    continue;
                }
                let run = run(bits, &mut component.run_index, self.width + 1 - x)?;
                component.line[x..x + run.length].fill(neighbours.a);
                x += run.length;
                if run.interrupted {
                    let neighbours = component.neighbours(x);
                    let alike = (neighbours.a - neighbours.b).abs() <= near;
                    component.line[x] = self.model.interruption(bits, component.run_index, neighbours, alike)?;
                    component.run_index = component.run_index.saturating_sub(1);
                    x += 1;
                }
            }
        }
        Ok(())
    }

    /// A line, all components of a pixel together; a run is one of all of them (B.3).
    pub(super) fn by_sample(&mut self, bits: &mut Bits) -> Result<(), Defect> {
        self.components.iter_mut().for_each(Component::begin);
        let mut x = 1;
        while x <= self.width {
            let contexts: Vec<i32> =
                self.components.iter().map(|component| self.model.context(component.neighbours(x))).collect();
            if contexts.iter().any(|&context| context != 0) {
                for (component, context) in self.components.iter_mut().zip(contexts) {
                    let neighbours = component.neighbours(x);
                    component.line[x] = self.model.regular(bits, context, neighbours)?;
                }
                x += 1;
                continue;
            }
            let run = run(bits, &mut self.components[0].run_index, self.width + 1 - x)?;
            for component in &mut self.components {
                let left = component.line[x - 1];
                component.line[x..x + run.length].fill(left);
            }
            x += run.length;
            if run.interrupted {
                let run_index = self.components[0].run_index;
                for component in &mut self.components {
                    let neighbours = component.neighbours(x);
                    component.line[x] = self.model.interruption(bits, run_index, neighbours, false)?;
                }
                self.components[0].run_index = run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }
}

struct Run {
    length: usize,
    /// False if the line ended it.
    interrupted: bool,
}

/// The length of a run of at most `left` (code segments A.15 and A.16).
fn run(bits: &mut Bits, index: &mut usize, left: usize) -> Result<Run, Defect> {
    let mut length = 0;
    while bits.take(1)? == 1 {
        let whole = 1usize << RUN_BITS[*index];
        let filled = whole.min(left - length);
        length += filled;
        if filled == whole {
            *index = (*index + 1).min(31);
        }
        if length == left {
            return Ok(Run { length, interrupted: false });
        }
    }
    length += bits.take(RUN_BITS[*index])? as usize;
    if length >= left {
        return Err(Defect::RunTooLong);
    }
    Ok(Run { length, interrupted: true })
}
