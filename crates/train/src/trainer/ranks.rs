//! What ranks of a run tell each other besides passes: the state that it goes on from, and that they still hold the same.

use super::Run;
use crate::adamw::AdamW;
use crate::error::Error;
use crate::state::Values;
use crate::team::{Reader, Writer};
use melo_vit::{hash_numbers, hex};
use sha2::{Digest, Sha256};

impl Run<'_> {
    /// What rank 0 has taken up, to all ranks.
    pub(super) fn spread_state(&mut self, taken_up: bool) -> Result<(), Error> {
        let team = self.team;
        let mut mine = Writer::default();
        if taken_up {
            mine.number(self.optimizer.steps);
            mine.text(&serde_json::to_string(&self.record.history).expect("a history is plain data"));
        }
        let all = team.gather::<Error>("taking up a state", Ok(mine.bytes()))?;
        if team.size() == 1 || all[0].is_empty() {
            return Ok(());
        }
        let mut of_first = Reader::new(&all[0]);
        self.optimizer.steps = of_first.number();
        self.record.history = serde_json::from_str(&of_first.text()).expect("what was written can be read");
        let mut last: Values = self.model.tensors().into_iter().cloned().collect();
        let AdamW { first, second, .. } = &mut self.optimizer;
        let state = last.iter_mut().chain(&mut self.best).chain(first).chain(second);
        state.into_iter().try_for_each(|tensor| team.broadcast(0, tensor))?;
        self.set_values(&last)
    }

    /// After an epoch all ranks hold the same weights, unless processors round differently: found before anything is saved.
    pub(super) fn check_ranks(&self) -> Result<(), Error> {
        if self.team.size() == 1 {
            return Ok(());
        }
        let mut digest = Sha256::new();
        self.model.tensors().into_iter().for_each(|tensor| hash_numbers(&mut digest, tensor));
        let losses =
            self.record.history.last().map(|row| format!("{:?}", (row.train_loss, row.val_loss, row.figures())));
        let things = [
            ("the epoch's losses and figures".to_owned(), losses.unwrap_or_default()),
            ("the trained weights (digest)".to_owned(), hex(&digest.finalize())),
        ];
        Ok(self.team.agree("the end of an epoch", &things)?)
    }
}
