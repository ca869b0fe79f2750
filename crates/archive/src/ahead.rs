//! Work done ahead of whoever takes what it gives, in the order of the items.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How far ahead.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Items that are worked on at once.
    pub(crate) threads: usize,
    /// Items that are worked on or wait to be taken.
    pub(crate) items: usize,
    /// Bytes of them; one more item may be above it, since whoever takes waits for the next.
    pub(crate) bytes: u64,
}

struct State<R> {
    /// By number, with the bytes that it holds.
    done: BTreeMap<usize, (R, u64)>,
    taken: usize,
    held: u64,
    working: usize,
    is_closed: bool,
}

struct Shared<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
    limits: Limits,
}

/// Gives `take` what `work` makes of `items`, in their order. `work` is told how to wait for room for so many bytes, and is told `false`
/// where nobody takes its result any more. Items are asked for by one thread at a time.
pub(crate) fn ahead<T, R: Send, O>(
    items: impl Iterator<Item = T> + Send,
    limits: Limits,
    work: impl Fn(T, &dyn Fn(u64) -> bool) -> R + Sync,
    take: impl FnOnce(&mut dyn Iterator<Item = R>) -> O,
) -> O {
    let items = Mutex::new(items.enumerate());
    let state = State { done: BTreeMap::new(), taken: 0, held: 0, working: limits.threads, is_closed: false };
    let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), limits };
    std::thread::scope(|scope| {
        for _ in 0..limits.threads {
            scope.spawn(|| {
                let _leaving = Leaving(&shared);
                while let Some((number, item)) = next_of(&items)
                    && shared.wait(|state| number < state.taken + limits.items).is_some()
                {
                    shared.work(number, |room| work(item, room));
                }
            });
        }
        take(&mut Taking(&shared))
    })
}

fn next_of<I: Iterator>(items: &Mutex<I>) -> Option<I::Item> {
    items.lock().unwrap_or_else(PoisonError::into_inner).next()
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_free`; none where nobody takes any more.
    fn wait(&self, is_free: impl Fn(&State<R>) -> bool) -> Option<MutexGuard<'_, State<R>>> {
        let waits = |state: &mut State<R>| !state.is_closed && !is_free(state);
        let state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        (!state.is_closed).then_some(state)
    }

    fn work(&self, number: usize, work: impl FnOnce(&dyn Fn(u64) -> bool) -> R) {
        let held = Cell::new(0);
        let room = |bytes: u64| {
            let free = |state: &State<R>| number == state.taken || state.held + bytes <= self.limits.bytes;
            let Some(mut state) = self.wait(free) else { return false };
            state.held += bytes;
            held.set(held.get() + bytes);
            true
        };
        let result = work(&room);
        self.lock().done.insert(number, (result, held.get()));
        self.changed.notify_all();
    }
}

/// The results in their order; dropped, it ends all work.
struct Taking<'a, R>(&'a Shared<R>);

impl<R> Iterator for Taking<'_, R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        let waits = |state: &mut State<R>| !state.done.contains_key(&state.taken) && state.working > 0;
        let state = self.0.changed.wait_while(self.0.lock(), waits);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let taken = state.taken;
        let (result, bytes) = state.done.remove(&taken)?;
        state.taken += 1;
        state.held -= bytes;
        self.0.changed.notify_all();
        Some(result)
    }
}

impl<R> Drop for Taking<'_, R> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

/// A thread at work; one that panics ends all, and the scope passes its panic on.
struct Leaving<'a, R>(&'a Shared<R>);

impl<R> Drop for Leaving<'_, R> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.working -= 1;
        state.is_closed |= std::thread::panicking();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const LIMITS: Limits = Limits { threads: 4, items: 6, bytes: 100 };

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let work = |item: u64, _: &dyn Fn(u64) -> bool| {
            std::thread::sleep(Duration::from_micros((item * 7919) % 500));
            item * 2
        };
        let taken = ahead(0..200, LIMITS, work, |results| results.collect::<Vec<_>>());
        assert_eq!(taken, (0..200).map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_items_and_bytes_are_held_than_allowed() {
        let (begun, held, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |_: usize, room: &dyn Fn(u64) -> bool| {
            begun.fetch_add(1, Ordering::SeqCst);
            assert!(room(40));
            most.fetch_max(held.fetch_add(40, Ordering::SeqCst) + 40, Ordering::SeqCst);
        };
        ahead(0..50, LIMITS, work, |results| {
            for taken in 1..=50 {
                results.next().expect("a result");
                held.fetch_sub(40, Ordering::SeqCst);
                assert!(begun.load(Ordering::SeqCst) <= taken + LIMITS.items);
            }
            assert!(results.next().is_none());
        });
        // Two fit, one is the next to be taken, and one was taken and not yet counted off here.
        assert!(most.load(Ordering::SeqCst) <= 160, "{most:?}");
    }

    #[test]
    fn an_item_larger_than_all_room_is_taken_all_the_same() {
        let work = |item: u64, room: &dyn Fn(u64) -> bool| room(item * 1000);
        assert_eq!(ahead(0..20, LIMITS, work, |results| results.filter(|&had_room| had_room).count()), 20);
    }

    #[test]
    fn whoever_stops_taking_ends_the_work() {
        let work = |item: u64, room: &dyn Fn(u64) -> bool| (item, room(90));
        let first = ahead(0.., LIMITS, work, |results| results.next());
        assert_eq!(first, Some((0, true)));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_at_work_ends_all() {
        let work = |item: u64, _: &dyn Fn(u64) -> bool| assert!(item < 9, "a defect");
        ahead(0.., LIMITS, work, |results| results.for_each(drop));
    }
}
