//! Warm sandboxes with nothing to do: bounded for each handler and over all of them.

use super::instance::Instance;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Most idle sandboxes of one handler.
const HANDLER_IDLE_MAX: usize = 64;

/// The places for idle sandboxes of all handlers: each keeps a slot of the pool.
pub(super) struct Places(AtomicU32);

impl Places {
    pub(super) fn new(places: u32) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(places)))
    }

    fn take(self: &Arc<Self>, weight: u32) -> Option<Place> {
        self.0.try_update(Relaxed, Relaxed, |left| left.checked_sub(weight)).ok()?;
        Some(Place { places: self.clone(), weight })
    }
}

/// Given back when dropped.
struct Place {
    places: Arc<Places>,
    weight: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.fetch_add(self.weight, Relaxed);
    }
}

/// A sandbox that may handle another message.
pub(super) struct Warm {
    pub(super) instance: Instance,
    /// Messages it may still handle.
    pub(super) runs_left: u32,
}

/// The idle sandboxes of one handler, the last used first: its pages are in the processor's caches.
pub(super) struct Idle {
    places: Arc<Places>,
    weight: u32,
    /// Fields of a tuple drop in order: the sandbox leaves the pool before its place is free.
    warm: Mutex<Vec<(Warm, Place)>>,
}

impl Idle {
    pub(super) fn new(places: Arc<Places>, weight: u32) -> Self {
        Self { places, weight, warm: Mutex::new(Vec::new()) }
    }

    pub(super) fn take(&self) -> Option<Warm> {
        self.lock().pop().map(|(warm, _)| warm)
    }

    /// Keeps the sandbox if there is room for it; otherwise it ends here.
    pub(super) fn keep(&self, warm: Warm) {
        let Some(place) = self.places.take(self.weight) else { return };
        let mut idle = self.lock();
        if idle.len() < HANDLER_IDLE_MAX {
            idle.push((warm, place));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Warm, Place)>> {
        // A panic while it was held left a whole list: entries move in and out in one step.
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
