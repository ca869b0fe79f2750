//! Bounds of what requests send: how long it may take, and how much of it there may be in memory.
//!
//! The size of one body is bounded by axum. What all bodies hold at a time is bounded here, since a thousand connections
//! with a body each are more than any memory: a request that would go beyond is refused, and the others go on.

use crate::error::Refusal;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Longest time without a byte of a body.
const SILENCE: Duration = Duration::from_secs(20);
/// Bodies of full size that may be in memory at a time.
const BODIES: usize = 4;

/// What all requests share.
pub(crate) struct Bodies {
    left: AtomicUsize,
    timeout: Duration,
}

/// What one request holds of it, until it is answered.
pub(super) struct Held {
    bodies: Arc<Bodies>,
    bytes: AtomicUsize,
    fate: AtomicU8,
}

const FINE: u8 = 0;
const SLOW: u8 = 1;
const FULL: u8 = 2;

impl Bodies {
    /// With the size of one body, and the time that it may take.
    pub(crate) fn new(body_bytes: usize, timeout: Duration) -> Arc<Self> {
        Arc::new(Bodies { left: body_bytes.saturating_mul(BODIES).into(), timeout })
    }

    /// A body within the bounds, and what it holds.
    pub(super) fn bound(self: &Arc<Self>, body: Body) -> (Body, Arc<Held>) {
        let held = Arc::new(Held { bodies: Arc::clone(self), bytes: 0.into(), fate: FINE.into() });
        if body.is_end_stream() {
            return (body, held);
        }
        let (silence, deadline) = (SILENCE.min(self.timeout), self.timeout);
        let bounded = Bounded {
            body,
            held: Arc::clone(&held),
            deadline: Box::pin(sleep(deadline)),
            silence: Box::pin(sleep(silence)),
            patience: silence,
        };
        (Body::new(bounded), held)
    }
}

impl Held {
    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self.bodies.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Why the body was not read to its end, if it was for one of the bounds.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self.fate.load(Ordering::Relaxed) {
            SLOW => Some(Refusal::Timeout(self.bodies.timeout)),
            FULL => Some(Refusal::Full(Duration::from_secs(1))),
            _ => None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.left.fetch_add(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

struct Bounded {
    body: Body,
    held: Arc<Held>,
    deadline: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
    patience: Duration,
}

impl Bounded {
    fn end(&self, fate: u8, reason: &str) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.held.fate.store(fate, Ordering::Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(reason.to_owned()))))
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Also of a body that never falls silent.
        if self.deadline.as_mut().poll(cx).is_ready() {
            return self.end(SLOW, "the body took too long");
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if !self.held.take(frame.data_ref().map_or(0, Bytes::len)) {
                    return self.end(FULL, "too many bodies are in memory");
                }
                let next = Instant::now() + self.patience;
                self.silence.as_mut().reset(next);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending if self.silence.as_mut().poll(cx).is_ready() => self.end(SLOW, "no more of the body came"),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_what_there_is_and_give_it_back() {
        let bodies = Bodies::new(100, Duration::from_secs(1));
        let held = || Held { bodies: Arc::clone(&bodies), bytes: 0.into(), fate: FINE.into() };
        let (one, other) = (held(), held());
        assert!(one.take(300) && other.take(100) && !other.take(1));
        drop(one);
        assert!(other.take(300));
        drop(other);
        assert_eq!(bodies.left.load(Ordering::Relaxed), 400);
    }
}
