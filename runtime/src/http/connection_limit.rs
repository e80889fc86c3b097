//! A limit on connections, and which one is cut when it is reached.
//!
//! When no more are allowed, the connection is cut for whose client the host has waited longest: one that sends no request
//! or not all of it, or does not read its answer. So clients that only sit there, or send or read a byte now and then, keep
//! nobody out for long. A connection whose request is being worked on stays, and so does a tail that is read. Permits for
//! large answers are made free alike.
//!
//! The limits of `tower` only queue: as many silent clients as there are permits would shut everybody out.

use crate::clock;
use prometheus::IntCounterVec;
use slab::Slab;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// A client that sends or reads as much as this (16 KiB), or the rest, is not waited for; with less it is.
pub(super) const RATE_BYTES_MIN: usize = 16 * 1024;

/// The limit of one listener.
pub(super) struct ConnectionLimit {
    permits: Arc<Semaphore>,
    open: Mutex<Slab<Arc<Connection>>>,
    /// None is cut whose client was waited for less than this.
    idle_min: Duration,
    started: Instant,
    cuts: IntCounterVec,
}

/// What is known of one connection while it lives.
pub(super) struct Connection {
    limit: Arc<ConnectionLimit>,
    /// Since when the client is waited for, if it is: when enough bytes last came or went, or a request began or ended. In
    /// milliseconds after the limit `started`.
    moved_ms: AtomicU64,
    /// Received since then.
    received_bytes: AtomicUsize,
    /// Requests whose answers were not written whole yet; more than one when they are pipelined.
    requests: AtomicUsize,
    /// Large answers of it that are in memory.
    large_answers: AtomicUsize,
    /// The client does not read.
    is_unread: AtomicBool,
    /// The rest of a request's body is waited for.
    is_body_awaited: AtomicBool,
    /// Cancelled when it has to end.
    pub(super) cut: CancellationToken,
}

/// Leave to have a connection; dropping it makes room for another one.
pub(super) struct ConnectionPermit {
    pub(super) connection: Arc<Connection>,
    at: usize,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionLimit {
    pub(super) fn new(connections_max: usize, idle_min: Duration, cuts: IntCounterVec) -> Arc<Self> {
        let (permits, open) = (Arc::new(Semaphore::new(connections_max)), Mutex::default());
        Arc::new(Self { permits, open, idle_min, started: clock::instant(), cuts })
    }

    /// A permit, as soon as there is one. Safe to cancel.
    pub(super) async fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        let permit = self.acquire_from(&self.permits, "place", Connection::waits_for_client).await;
        let connection = Arc::new(Connection {
            limit: self.clone(),
            moved_ms: AtomicU64::new(self.now_ms()),
            received_bytes: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            large_answers: AtomicUsize::new(0),
            is_unread: AtomicBool::new(false),
            is_body_awaited: AtomicBool::new(false),
            cut: CancellationToken::new(),
        });
        let at = self.open().insert(connection.clone());
        ConnectionPermit { connection, at, _permit: permit }
    }

    /// A permit, as soon as there is one; until then connections that may be cut are, for this reason.
    async fn acquire_from(
        &self,
        permits: &Arc<Semaphore>,
        reason: &str,
        may_be_cut: fn(&Connection) -> bool,
    ) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = permits.clone().try_acquire_owned() {
                return permit;
            }
            let wait = self.make_room(reason, may_be_cut);
            if let Ok(Ok(permit)) = tokio::time::timeout(wait, permits.clone().acquire_owned()).await {
                return permit;
            }
        }
    }

    /// Cuts the connection that was waited for longest, of those that may be; returns after how long to look again.
    fn make_room(&self, reason: &str, may_be_cut: fn(&Connection) -> bool) -> Duration {
        let now_ms = self.now_ms();
        let open = self.open();
        let waiting = open.iter().map(|(_, connection)| connection);
        let waiting = waiting.filter(|connection| !connection.cut.is_cancelled() && may_be_cut(connection));
        let Some(longest) = waiting.min_by_key(|connection| connection.moved_ms.load(Relaxed)) else {
            return self.idle_min;
        };
        let waited = Duration::from_millis(now_ms.saturating_sub(longest.moved_ms.load(Relaxed)));
        if waited >= self.idle_min {
            longest.count_cut(reason);
            longest.cut.cancel();
            return self.idle_min;
        }
        // Milliseconds are rounded down, so that it must not look again at once.
        (self.idle_min - waited).max(Duration::from_millis(1))
    }

    fn open(&self) -> MutexGuard<'_, Slab<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connection.limit.open().remove(self.at);
    }
}

impl Connection {
    /// The client did what it was waited for.
    pub(super) fn moved(&self) {
        self.received_bytes.store(0, Relaxed);
        self.moved_ms.store(self.limit.now_ms(), Relaxed);
    }

    /// Bytes came. The first ones begin something; after them only many count, or a byte now and then would keep the
    /// connection.
    pub(super) fn received(&self, bytes: usize) {
        let before = self.received_bytes.fetch_add(bytes, Relaxed);
        if before + bytes >= RATE_BYTES_MIN {
            self.moved();
        } else if before == 0 {
            self.moved_ms.store(self.limit.now_ms(), Relaxed);
        }
    }

    pub(super) fn set_body_awaited(&self, is_awaited: bool) {
        self.is_body_awaited.store(is_awaited, Relaxed);
    }

    pub(super) fn set_unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Relaxed);
    }

    /// It is cut, for this reason.
    pub(super) fn count_cut(&self, reason: &str) {
        self.limit.cuts.with_label_values(&[reason]).inc();
    }

    /// A request came; it lasts until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> RequestGuard {
        self.moved();
        self.requests.fetch_add(1, Relaxed);
        RequestGuard(self.clone())
    }

    /// Waits until a large answer may be made for it; it is in memory until the guard is dropped. Connections that do not
    /// read theirs are cut. Safe to cancel.
    pub(super) async fn large_answer(self: &Arc<Self>, permits: &Arc<Semaphore>) -> LargeAnswerGuard {
        let permit = self.limit.acquire_from(permits, "turn", Self::leaves_large_answer_unread).await;
        self.large_answers.fetch_add(1, Relaxed);
        LargeAnswerGuard { connection: self.clone(), _permit: permit }
    }

    fn waits_for_client(&self) -> bool {
        self.requests.load(Relaxed) == 0 || self.is_unread.load(Relaxed) || self.is_body_awaited.load(Relaxed)
    }

    fn leaves_large_answer_unread(&self) -> bool {
        self.large_answers.load(Relaxed) > 0 && self.is_unread.load(Relaxed)
    }
}

/// A request is under way.
pub(super) struct RequestGuard(Arc<Connection>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.moved();
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// A large answer is in memory.
pub(super) struct LargeAnswerGuard {
    connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for LargeAnswerGuard {
    fn drop(&mut self) {
        self.connection.large_answers.fetch_sub(1, Relaxed);
    }
}
