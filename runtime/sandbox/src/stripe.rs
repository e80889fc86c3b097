//! One of something for each thread, or nearly: so that processors do not pass its cache line around.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Most stripes; on a machine with more cores some threads share one.
const STRIPES_MAX: usize = 32;

/// Twice as many as cores, so that two busy threads seldom share one.
pub(super) struct Striped<T>(Box<[Stripe<T>]>);

/// Two cache lines, because processors fetch them in pairs.
#[repr(align(128))]
struct Stripe<T>(T);

impl<T: Default> Striped<T> {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = (2 * cores).next_power_of_two().min(STRIPES_MAX);
        Self((0..stripes).map(|_| Stripe(T::default())).collect())
    }
}

impl<T> Striped<T> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, this thread's first.
    pub(super) fn own_first(&self) -> impl Iterator<Item = &T> {
        let own = thread_number() % self.0.len();
        self.0[own..].iter().chain(&self.0[..own]).map(|stripe| &stripe.0)
    }
}

/// Numbers threads as they come here first.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_thread_meets_its_own_first_and_then_all_others() {
        let striped: Striped<Mutex<Vec<usize>>> = Striped::new();
        for round in 0..2 {
            let own = striped.own_first().next().unwrap();
            assert_eq!(own.lock().unwrap().len(), round, "the same each time");
            striped.own_first().for_each(|stripe| stripe.lock().unwrap().push(round));
        }
        assert_eq!(striped.own_first().count(), striped.len());
    }
}
