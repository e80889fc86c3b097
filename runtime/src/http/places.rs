//! Places for connections: a bounded number, and who has to leave when all are taken.
//!
//! When a client finds no place, the connection goes for whose client the host has waited longest: one that sends no
//! request, or does not read its answer. So clients that only sit there keep nobody out for long. A connection whose
//! request is being worked on stays, and so does a tail that is read. Turns at large answers are made room for alike.

use crate::clock;
use prometheus::IntCounterVec;
use slab::Slab;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places of one listener.
pub(super) struct Places {
    permits: Arc<Semaphore>,
    taken: Mutex<Slab<Arc<Watch>>>,
    /// Nobody has to leave who was waited for less than this.
    wait_min: Duration,
    started: Instant,
    cut: IntCounterVec,
}

/// A place; dropping it makes it free.
pub(super) struct Place {
    places: Arc<Places>,
    at: usize,
    pub(super) watch: Arc<Watch>,
    _permit: OwnedSemaphorePermit,
}

/// What is known of one connection while it lives.
pub(super) struct Watch {
    started: Instant,
    /// When bytes last came or went, in milliseconds after `started`.
    moved_ms: AtomicU64,
    /// Requests whose answers were not written whole yet; more than one when they are pipelined.
    requests: AtomicUsize,
    /// Large answers of it that are in memory.
    looks: AtomicUsize,
    /// The client does not read.
    is_unread: AtomicBool,
    cut: IntCounterVec,
    /// Cancelled when it has to leave.
    pub(super) leave: CancellationToken,
}

impl Places {
    pub(super) fn new(places_max: usize, wait_min: Duration, cut: IntCounterVec) -> Arc<Self> {
        let (permits, taken) = (Arc::new(Semaphore::new(places_max)), Mutex::default());
        Arc::new(Self { permits, taken, wait_min, started: clock::instant(), cut })
    }

    /// A place, as soon as there is one. Safe to cancel.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return self.occupy(permit);
            }
            let wait = self.make_room("place", Watch::waits_for_client);
            if let Ok(Ok(permit)) = tokio::time::timeout(wait, self.permits.clone().acquire_owned()).await {
                return self.occupy(permit);
            }
        }
    }

    fn occupy(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let watch = Arc::new(Watch {
            started: self.started,
            moved_ms: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            is_unread: AtomicBool::new(false),
            cut: self.cut.clone(),
            leave: CancellationToken::new(),
        });
        watch.moved();
        let at = self.taken().insert(watch.clone());
        Place { places: self.clone(), at, watch, _permit: permit }
    }

    /// Takes one of these turns at a large answer, as soon as there is one; clients that do not read theirs lose it.
    /// Safe to cancel.
    pub(super) async fn turn(&self, turns: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = turns.clone().try_acquire_owned() {
                return permit;
            }
            let wait = self.make_room("turn", Watch::leaves_look_unread);
            if let Ok(Ok(permit)) = tokio::time::timeout(wait, turns.clone().acquire_owned()).await {
                return permit;
            }
        }
    }

    /// Sends away the connection that was waited for longest, of those that may go; returns after how long to look again.
    fn make_room(&self, reason: &str, may_go: impl Fn(&Watch) -> bool) -> Duration {
        let now_ms = ms(self.started.elapsed());
        let taken = self.taken();
        let waiting = taken.iter().map(|(_, watch)| watch).filter(|watch| !watch.leave.is_cancelled() && may_go(watch));
        let longest = waiting.min_by_key(|watch| watch.moved_ms.load(Relaxed));
        let Some(watch) = longest else { return self.wait_min };
        let waited = Duration::from_millis(now_ms.saturating_sub(watch.moved_ms.load(Relaxed)));
        if waited >= self.wait_min {
            watch.count_cut(reason);
            watch.leave.cancel();
            return self.wait_min;
        }
        // Milliseconds are rounded down, so that it must not look again at once.
        (self.wait_min - waited).max(Duration::from_millis(1))
    }

    fn taken(&self) -> MutexGuard<'_, Slab<Arc<Watch>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(self.at);
    }
}

impl Watch {
    /// Bytes came or went.
    pub(super) fn moved(&self) {
        self.moved_ms.store(ms(self.started.elapsed()), Relaxed);
    }

    pub(super) fn set_unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Relaxed);
    }

    /// A request came; it lasts until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Relaxed);
        Busy(self.clone())
    }

    /// Its connection is cut, for this reason.
    pub(super) fn count_cut(&self, reason: &str) {
        self.cut.with_label_values(&[reason]).inc();
    }

    /// A large answer is made for it; it lasts until the guard is dropped.
    pub(super) fn look(self: &Arc<Self>, turn: OwnedSemaphorePermit) -> Look {
        self.looks.fetch_add(1, Relaxed);
        Look { watch: self.clone(), _turn: turn }
    }

    fn waits_for_client(&self) -> bool {
        self.requests.load(Relaxed) == 0 || self.is_unread.load(Relaxed)
    }

    fn leaves_look_unread(&self) -> bool {
        self.looks.load(Relaxed) > 0 && self.is_unread.load(Relaxed)
    }
}

/// The connection that a request came by.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) places: Arc<Places>,
    pub(super) watch: Arc<Watch>,
}

impl Place {
    pub(super) fn visit(&self) -> Visit {
        Visit { places: self.places.clone(), watch: self.watch.clone() }
    }
}

/// A large answer is in memory.
pub(super) struct Look {
    watch: Arc<Watch>,
    _turn: OwnedSemaphorePermit,
}

impl Drop for Look {
    fn drop(&mut self) {
        self.watch.looks.fetch_sub(1, Relaxed);
    }
}

/// A request is under way.
pub(super) struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.moved();
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
