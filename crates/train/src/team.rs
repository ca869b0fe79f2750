//! Several processes, ranks, that train one plug-in.
//!
//! ```text
//! every rank          the same settings, manifest, order of images, weights, optimizer
//! a step              lanes of the batch, spread over ranks -> chain: rank 0's lanes, + rank 1's, … in order -> the sum to all
//! a forward pass      images, spread over ranks -> answers to all, in order
//! rank 0 alone        run folder, plug-in, what is said
//! ```
//!
//! What is added is added in the order in which one process adds it, so the number of ranks changes nothing, to the last bit.
//! A rank that fails takes part in the next exchange and says so there: none waits for one that is gone, and one speaks for all.

mod engine;
mod error;
mod message;
mod reading;

pub(crate) use engine::in_the_whole;
pub use error::TeamError;

use crate::error::Error;
use engine::{TeamDevice, TeamEngine};
use melo_vit::{Device, Engine, Gradients};
use message::Message;
pub(crate) use message::{Reader, Writer};
pub(crate) use reading::read_images;
use std::fmt::{Debug, Display};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values that are sent at a time, so that ranks add and send at once.
const CHUNK: usize = 1 << 18;
/// What ranks do that have come to their end.
const END: &str = "its end";

/// What carries bytes between ranks. Every rank makes the same calls in the same order.
pub trait Transport: Debug + Send + Sync {
    /// Number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// The machine that this rank runs on.
    fn host(&self) -> String;

    /// What each rank gave, in the order of ranks.
    ///
    /// # Errors
    /// [`TeamError::Lost`].
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, TeamError>;

    /// Sends values to another rank, which receives as many.
    ///
    /// # Errors
    /// [`TeamError::Lost`].
    fn send(&self, to: usize, values: &[f32]) -> Result<(), TeamError>;

    /// Receives values from another rank.
    ///
    /// # Errors
    /// [`TeamError::Lost`].
    fn receive(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError>;

    /// The values of one rank, to all.
    ///
    /// # Errors
    /// [`TeamError::Lost`].
    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError>;
}

/// The ranks of a training, as one of them sees them; or this process alone.
#[derive(Debug)]
pub struct Team {
    transport: Option<Box<dyn Transport>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The ranks that failed in the last exchange in which any did.
    failed: Vec<usize>,
    /// Why there is no exchange any more.
    over: Option<TeamError>,
}

/// How a training ended on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Well, on all of them.
    Done,
    /// Not well on one at least.
    Failed {
        /// True on the one rank that tells.
        speaks: bool,
    },
}

impl Team {
    /// This process alone: nothing is exchanged, and nothing costs anything.
    pub fn alone() -> Arc<Self> {
        Arc::new(Team { transport: None, state: Mutex::default() })
    }

    /// Ranks, even if there is only one: with all weights trained, results are then those of any number of ranks.
    pub fn new(transport: Box<dyn Transport>) -> Arc<Self> {
        Arc::new(Team { transport: Some(transport), state: Mutex::default() })
    }

    /// True where there are no ranks.
    pub fn is_alone(&self) -> bool {
        self.transport.is_none()
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.transport.as_ref().map_or(0, |transport| transport.rank())
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.transport.as_ref().map_or(1, |transport| transport.size())
    }

    /// The machine that this rank runs on; empty of a process alone.
    pub fn host(&self) -> String {
        self.transport.as_ref().map_or_else(String::new, |transport| transport.host())
    }

    /// True on the rank that writes and tells.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// This rank's part of so many things in a row.
    pub(crate) fn share(&self, of: usize) -> Range<usize> {
        of * self.rank() / self.size()..of * (self.rank() + 1) / self.size()
    }

    /// What each rank gave, in the order of ranks. `what` says what is being done, `its 3rd step`.
    ///
    /// # Errors
    /// This rank's own; [`TeamError`] where another one has one, on all ranks.
    pub fn gather<E: Display + From<TeamError>>(
        &self,
        what: &str,
        mine: Result<Vec<u8>, E>,
    ) -> Result<Vec<Vec<u8>>, E> {
        match mine {
            Ok(bytes) => Ok(self.exchange(what, Ok(bytes))?),
            Err(error) => {
                // What others say is less than this.
                let _ = self.exchange(what, Err(error.to_string()));
                Err(error)
            }
        }
    }

    /// True where it is on one rank at least.
    pub(crate) fn any(&self, what: &str, mine: bool) -> Result<bool, Error> {
        let all = self.gather::<Error>(what, Ok(vec![u8::from(mine)]))?;
        Ok(all.iter().any(|bytes| bytes == &[1]))
    }

    /// Checks that all ranks have the same of some named things.
    ///
    /// # Errors
    /// [`TeamError::Differs`].
    pub(crate) fn agree(&self, what: &str, things: &[(String, String)]) -> Result<(), TeamError> {
        let mut mine = Writer::default();
        mine.text(&self.host());
        things.iter().for_each(|(_, value)| mine.text(value));
        let all = self.gather::<TeamError>(what, Ok(mine.bytes()))?;
        let mut of_ranks = all.iter().map(|bytes| Reader::new(bytes));
        let read = |mut of: Reader<'_>| (of.text(), things.iter().map(|_| of.text()).collect::<Vec<_>>());
        let Some((_, first)) = of_ranks.next().map(read) else { return Ok(()) };
        for (rank, (host, others)) in (1..).zip(of_ranks.map(read)) {
            let differs = things.iter().zip(first.iter().zip(others)).find(|(_, (first, other))| *first != other);
            if let Some(((what, _), (expected, found))) = differs {
                let (what, expected) = (what.clone(), expected.clone());
                return Err(TeamError::Differs { rank, host, what, expected, found });
            }
        }
        Ok(())
    }

    /// Adds the lanes of all ranks, those of rank 0 first, to `sum`, which is the same on all ranks before and after.
    pub(crate) fn add(&self, lanes: &[Gradients], sum: &mut Gradients) -> Result<(), TeamError> {
        let (rank, last) = (self.rank(), self.size() - 1);
        let lanes: Vec<Vec<&Vec<f32>>> = lanes.iter().map(Gradients::tensors).collect();
        let mut sum = sum.tensors_mut();
        let lengths: Vec<usize> = sum.iter().map(|tensor| tensor.len()).collect();
        let chunks = chunks(&lengths);
        let mut values = Vec::new();
        for chunk in &chunks {
            values.clear();
            chunk.iter().for_each(|(tensor, range)| values.extend_from_slice(&sum[*tensor][range.clone()]));
            if let Some(transport) = &self.transport
                && rank > 0
            {
                transport.receive(rank - 1, &mut values)?;
            }
            for lane in &lanes {
                let part = chunk.iter().flat_map(|(tensor, range)| &lane[*tensor][range.clone()]);
                values.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            match &self.transport {
                Some(transport) if rank < last => transport.send(rank + 1, &values)?,
                _ => put(chunk, &values, &mut sum),
            }
        }
        if last > 0 {
            for chunk in &chunks {
                values.clear();
                chunk.iter().for_each(|(tensor, range)| values.extend_from_slice(&sum[*tensor][range.clone()]));
                self.broadcast(last, &mut values)?;
                put(chunk, &values, &mut sum);
            }
        }
        Ok(())
    }

    /// The values of one rank, to all.
    pub(crate) fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), TeamError> {
        self.transport.as_ref().map_or(Ok(()), |transport| transport.broadcast(from, values))
    }

    /// A device whose engines share every pass out.
    pub fn device(self: &Arc<Self>, device: Arc<dyn Device>) -> Arc<dyn Device> {
        if self.is_alone() { device } else { Arc::new(TeamDevice { device, team: Arc::clone(self) }) }
    }

    /// An engine that shares every pass out.
    pub fn engine(self: &Arc<Self>, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        if self.is_alone() { engine } else { Arc::new(TeamEngine::new(engine, Arc::clone(self))) }
    }

    /// Ends the training on this rank, which has failed where it says how; waits until it has ended on all, or one has failed. Nothing
    /// can be exchanged afterwards.
    pub fn conclude(&self, failed: Option<&str>) -> Conclusion {
        let speaks = |speaks| Conclusion::Failed { speaks };
        if self.is_alone() {
            return if failed.is_none() { Conclusion::Done } else { speaks(true) };
        }
        if self.state().over.is_some() {
            return speaks(self.state().failed.first() == Some(&self.rank()));
        }
        let before = std::mem::take(&mut self.state().failed);
        let mine = failed.map_or(Ok(Vec::new()), |message| Err(message.to_owned()));
        if self.exchange(END, mine).is_ok() {
            return Conclusion::Done;
        }
        let at_the_end = self.state().failed.clone();
        // Where all ranks failed they did so together, because of those that failed before.
        let first = if at_the_end.len() == self.size() { before.first() } else { None };
        speaks(first.or(at_the_end.first()) == Some(&self.rank()))
    }

    fn exchange(&self, what: &str, mine: Result<Vec<u8>, String>) -> Result<Vec<Vec<u8>>, TeamError> {
        let Some(transport) = &self.transport else { return Ok(vec![mine.unwrap_or_default()]) };
        if let Some(error) = &self.state().over {
            return Err(error.clone());
        }
        let mine = Message { what: what.to_owned(), host: transport.host(), content: mine };
        let all =
            transport.gather(&mine.encode()).and_then(|all| all.iter().map(|bytes| Message::decode(bytes)).collect());
        let all: Vec<Message> = match all {
            Ok(all) => all,
            Err(error) => return Err(self.end(vec![transport.rank()], error)),
        };
        let failed: Vec<usize> = (0..all.len()).filter(|&rank| all[rank].content.is_err()).collect();
        let ended: Vec<usize> = failed.iter().copied().filter(|&rank| all[rank].what == END).collect();
        if let Some(rank) = (0..all.len()).find(|&rank| all[rank].what != all[0].what) {
            if let Some(&rank) = ended.first() {
                return Err(self.end(ended.clone(), all[rank].failure(rank)));
            }
            let (host, there, here) = (all[rank].host.clone(), all[rank].what.clone(), all[0].what.clone());
            return Err(self.end(vec![0], TeamError::Apart { rank, host, there, here }));
        }
        match failed.first() {
            Some(&rank) => {
                self.state().failed.clone_from(&failed);
                Err(all[rank].failure(rank))
            }
            None => Ok(all.into_iter().filter_map(|message| message.content.ok()).collect()),
        }
    }

    /// No exchange any more.
    fn end(&self, failed: Vec<usize>, error: TeamError) -> TeamError {
        *self.state() = State { failed, over: Some(error.clone()) };
        error
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parts of tensors of these lengths, one behind the other: at most [`CHUNK`] values a list.
fn chunks(lengths: &[usize]) -> Vec<Vec<(usize, Range<usize>)>> {
    let (mut chunks, mut room) = (Vec::new(), 0);
    for (tensor, &length) in lengths.iter().enumerate() {
        let mut start = 0;
        while start < length {
            if room == 0 {
                chunks.push(Vec::new());
                room = CHUNK;
            }
            let end = length.min(start + room);
            chunks.last_mut().expect("a chunk with room").push((tensor, start..end));
            room -= end - start;
            start = end;
        }
    }
    chunks
}

fn put(chunk: &[(usize, Range<usize>)], mut values: &[f32], tensors: &mut [&mut Vec<f32>]) {
    for (tensor, range) in chunk {
        let (part, rest) = values.split_at(range.len());
        tensors[*tensor][range.clone()].copy_from_slice(part);
        values = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_every_value_once_and_in_order() {
        for lengths in [vec![], vec![0, 3, 0], vec![CHUNK, CHUNK + 1, 5], vec![1, 3 * CHUNK, 2, CHUNK - 3]] {
            let chunks = chunks(&lengths);
            let sizes = chunks.iter().map(|chunk| chunk.iter().map(|(_, range)| range.len()).sum::<usize>());
            assert!(sizes.rev().skip(1).all(|size| size == CHUNK), "{lengths:?}");
            let all: Vec<(usize, usize)> =
                chunks.into_iter().flatten().flat_map(|(tensor, range)| range.map(move |at| (tensor, at))).collect();
            let every =
                lengths.iter().enumerate().flat_map(|(tensor, &length)| (0..length).map(move |at| (tensor, at)));
            assert!(all.into_iter().eq(every), "{lengths:?}");
        }
    }
}
