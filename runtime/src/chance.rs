//! The one place that draws random numbers: they spread waits, and decide nothing that must hold.

#[cfg(debug_assertions)]
pub use seeded::seed;

/// At least 0 and less than 1.
pub fn fraction() -> f64 {
    #[cfg(debug_assertions)]
    if let Some(fraction) = seeded::fraction() {
        return fraction;
    }
    rand::random()
}

/// The same numbers again for the same seed, for everything on a thread. Builds with debug assertions only.
#[cfg(debug_assertions)]
mod seeded {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use std::cell::RefCell;

    thread_local! {
        static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// `None`: no longer.
    pub fn seed(seed: Option<u64>) {
        SEEDED.set(seed.map(StdRng::seed_from_u64));
    }

    pub(super) fn fraction() -> Option<f64> {
        SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map(|random| random.random()))
    }
}
