//! Places for connections: a number of them, of which one address may have only some.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Places, and how many every address has that has some.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_address: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them; it is given back when it goes away.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>, IpAddr);

impl Places {
    /// So many, and so many of one address.
    pub(crate) fn new(most: usize, most_of_address: usize) -> Arc<Self> {
        Arc::new(Places { most, most_of_address, taken: Mutex::default() })
    }

    /// One for an address; none where all are taken, or those that it may have.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&address).copied().unwrap_or(0));
        (all < self.most && own < self.most_of_address).then(|| {
            taken.insert(address, own + 1);
            Place(Arc::clone(self), address)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.1) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_never_has_every_place() {
        let places = Places::new(8, 7);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held: Vec<Place> = (0..7).map(|_| places.take(one).expect("a place")).collect();
        assert!(places.take(one).is_none() && places.take("::ffff:10.0.0.1".parse().unwrap()).is_none());
        let others = places.take(other).expect("another's place");
        assert!(places.take([10, 0, 0, 3].into()).is_none(), "all are taken");
        held.pop();
        held.push(places.take(one).expect("given back"));
        drop((held, others));
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
