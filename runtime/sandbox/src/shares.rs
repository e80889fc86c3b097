//! Shares of the processor: guests that compute without pause take turns, and the turns go round between *handlers*.
//!
//! A guest that has used up a tick needs a slot to go on, of which there are as many as cores, and gives it back after one
//! tick. So at most so many of them are runnable at any time, however many there are, and other tasks wait for a tick or
//! two at most. The first tick is free: a handler that is done by then, or that mostly waits, never comes here. It is not
//! free for a handler of which more runs wait for a slot already than there are slots: otherwise its runs would take the
//! processor by their number after all, a first tick each.
//!
//! What is used is measured, not sampled, so a guest cannot hide between two ticks. A slot is given back at the next tick,
//! when the guest waits in an import, when its run ends, and when its future is dropped. The wait for one is the guest's
//! own time and races its deadline like everything it does, but for the wait before its first tick: then its time has not
//! begun.

mod ring;

use super::ticker::TICK;
use futures_util::task::AtomicWaker;
use ring::Ring;
use sluicebox_core::clock;
use sluicebox_core::handler::HandlerName;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Used more than this since it last had a slot, a guest needs one at the next tick. Less than a tick, because a guest that
/// is woken by a tick is a little late for the whole of the next one.
const FREE: Duration = TICK.checked_div(2).expect("2 is not 0");

/// How often a guest that was given a slot lets other tasks go first. A tick is as long as some turns of a shard: so a task
/// that always has work gets at least as much time as a guest.
const YIELDS: u32 = 4;

/// The slots of a host.
pub(super) struct Shares {
    slots: usize,
    ring: Mutex<Ring<Arc<Wait>>>,
}

impl Shares {
    /// One slot for each core this process may use.
    pub(super) fn new() -> Arc<Self> {
        let slots = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self { slots, ring: Mutex::new(Ring::new(slots)) })
    }

    /// Gives out what is free. The runs are woken after the lock is gone: a waker may run anything.
    fn give_out(mut ring: MutexGuard<'_, Ring<Arc<Wait>>>) {
        let mut given = Vec::new();
        while let Some(wait) = ring.next() {
            wait.leave();
            wait.granted.store(true, Relaxed);
            given.push(wait);
        }
        drop(ring);
        given.iter().for_each(|wait| wait.waker.wake());
    }

    fn lock(&self) -> MutexGuard<'_, Ring<Arc<Wait>>> {
        // A panic while it was held left it whole: nothing between two changes can panic.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One version of a handler among those that share.
pub(super) struct Member {
    shares: Arc<Shares>,
    handler: HandlerName,
    /// Runs that wait for a slot and have computed for a tick already. Those that wait before their first tick do not
    /// count: a handler of short runs would never leave the queue again, once a few of them met in it.
    queued: Arc<AtomicUsize>,
}

impl Member {
    pub(super) fn new(shares: Arc<Shares>, handler: HandlerName) -> Arc<Self> {
        Arc::new(Self { shares, handler, queued: Arc::default() })
    }

    /// Waits until a run may begin: only where too many of the handler's runs wait for slots already.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        let slot = match self.queued.load(Relaxed) > self.shares.slots {
            true => Some(self.rest(Duration::ZERO, Computed::NotYet).await),
            false => None,
        };
        let account = Account { began: clock::instant(), used: Duration::ZERO, rests: false, slot };
        Turn(Arc::new(Inner { member: self.clone(), account: Mutex::new(account) }))
    }

    fn queue(self: &Arc<Self>, used: Duration, computed: Computed) -> Waiting {
        let counted = (computed == Computed::ATick).then(|| self.queued.clone());
        if let Some(queued) = &counted {
            queued.fetch_add(1, Relaxed);
        }
        let wait = Arc::new(Wait { granted: AtomicBool::new(false), waker: AtomicWaker::new(), counted });
        let mut ring = self.shares.lock();
        ring.queue(&self.handler, used, wait.clone());
        Shares::give_out(ring);
        Waiting { member: self.clone(), wait, is_over: false }
    }

    /// Waits for a slot, having used so much without one, and lets other tasks go first.
    fn rest(self: &Arc<Self>, used: Duration, computed: Computed) -> impl Future<Output = Slot> + Send + use<> {
        let waiting = self.queue(used, computed);
        async {
            let slot = waiting.await;
            // Not before the task that polls this was left: runs that share a task pass a slot on to each other, and would
            // all have their turns in one poll. And not by a wake at once, for tokio to look at timers and sockets too.
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            slot
        }
    }
}

/// Whether a run that wants a slot has shown that it computes.
#[derive(Clone, Copy, PartialEq)]
enum Computed {
    NotYet,
    ATick,
}

/// Shared by a run that waits and the ring.
struct Wait {
    granted: AtomicBool,
    waker: AtomicWaker,
    /// The member's count, if this run is in it.
    counted: Option<Arc<AtomicUsize>>,
}

impl Wait {
    /// It waits no more. Called once, under the ring's lock.
    fn leave(&self) {
        if let Some(queued) = &self.counted {
            queued.fetch_sub(1, Relaxed);
        }
    }
}

/// A place in the ring. Dropped, it gives up the place, or the slot if that was granted meanwhile.
struct Waiting {
    member: Arc<Member>,
    wait: Arc<Wait>,
    is_over: bool,
}

impl Future for Waiting {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        self.wait.waker.register(cx.waker());
        if !self.wait.granted.load(Relaxed) {
            return Poll::Pending;
        }
        self.is_over = true;
        Poll::Ready(Slot { member: self.member.clone(), used: Duration::ZERO })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let Member { shares, handler, .. } = &*self.member;
        let mut ring = shares.lock();
        // Granted under the same lock.
        if self.wait.granted.load(Relaxed) {
            ring.give_back(handler, Duration::ZERO);
        } else {
            self.wait.leave();
            ring.leave(handler, |wait| Arc::ptr_eq(wait, &self.wait));
        }
        Shares::give_out(ring);
    }
}

/// Leave to compute; given back when dropped.
struct Slot {
    member: Arc<Member>,
    /// How long, so far.
    used: Duration,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut ring = self.member.shares.lock();
        ring.give_back(&self.member.handler, self.used);
        Shares::give_out(ring);
    }
}

/// What one run used. Dropping it gives the slot back; a [`Meter`] that outlives it has no effect.
pub(super) struct Turn(Arc<Inner>);

/// The same, for the inside of the guest.
#[derive(Clone)]
pub(super) struct Meter(Arc<Inner>);

struct Inner {
    member: Arc<Member>,
    account: Mutex<Account>,
}

struct Account {
    /// From when on it uses what is not yet in `used`.
    began: Instant,
    /// Since it last gave a slot back.
    used: Duration,
    /// Whether it waits for a slot: then to be pending is not to wait in an import.
    rests: bool,
    slot: Option<Slot>,
}

impl Account {
    fn use_until(&mut self, now: Instant) {
        let used = now.saturating_duration_since(self.began);
        self.began = now;
        self.used += used;
        if let Some(slot) = &mut self.slot {
            slot.used += used;
        }
    }
}

impl Turn {
    pub(super) fn meter(&self) -> Meter {
        Meter(self.0.clone())
    }

    /// When it was made, which is when the guest's time begins.
    pub(super) fn began(&self) -> Instant {
        self.0.account().began
    }

    /// Runs a future with the guest in it and keeps the account.
    pub(super) async fn run<F: Future>(&self, mut future: Pin<&mut F>) -> F::Output {
        let mut is_first = true;
        std::future::poll_fn(move |cx| {
            // A run that completes at its first poll, as most do, reads no clock for this.
            if !std::mem::take(&mut is_first) {
                self.0.account().began = clock::instant();
            }
            let poll = future.as_mut().poll(cx);
            if poll.is_pending() {
                self.0.pause();
            }
            poll
        })
        .await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut account = self.0.account();
        if account.slot.is_some() {
            account.use_until(clock::instant());
        }
        let slot = account.slot.take();
        drop(account);
        drop(slot);
    }
}

impl Meter {
    /// At a tick: `None` when the guest may go on, otherwise what to wait for.
    pub(super) fn at_tick(&self, now: Instant) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let mut account = self.0.account();
        account.use_until(now);
        if account.used < FREE {
            return None;
        }
        let (slot, used) = (account.slot.take(), std::mem::take(&mut account.used));
        account.rests = true;
        drop(account);
        // It joins the queue before its slot goes to the next: alone in its handler, it may be the next.
        let rest = self.0.member.rest(if slot.is_some() { Duration::ZERO } else { used }, Computed::ATick);
        drop(slot);
        let inner = self.0.clone();
        Some(Box::pin(async move {
            let slot = rest.await;
            let mut account = inner.account();
            (account.rests, account.slot) = (false, Some(slot));
        }))
    }
}

impl Inner {
    /// The future is pending. If that is because the guest waits in an import, others may have its slot.
    fn pause(&self) {
        let mut account = self.account();
        account.use_until(clock::instant());
        let slot = if account.rests { None } else { account.slot.take() };
        drop(account);
        drop(slot);
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // It is plain data: a panic while it was held left it usable.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
