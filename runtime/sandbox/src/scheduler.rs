//! The scheduler: guests that compute without pause take turns, and the turns go round between *handlers*.
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

mod fair_queue;

use super::ticker::TICK;
use fair_queue::FairQueue;
use futures_util::task::AtomicWaker;
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
pub(super) struct Scheduler {
    slots: usize,
    queue: Mutex<FairQueue<Arc<Wait>>>,
}

impl Scheduler {
    /// One slot for each core this process may use.
    pub(super) fn new() -> Arc<Self> {
        let slots = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self { slots, queue: Mutex::new(FairQueue::new(slots)) })
    }

    /// Gives out what is free. The runs are woken after the lock is gone: a waker may run anything.
    fn give_out(mut queue: MutexGuard<'_, FairQueue<Arc<Wait>>>) {
        let mut given = Vec::new();
        while let Some(wait) = queue.next() {
            wait.leave();
            wait.granted.store(true, Relaxed);
            given.push(wait);
        }
        drop(queue);
        given.iter().for_each(|wait| wait.waker.wake());
    }

    fn lock(&self) -> MutexGuard<'_, FairQueue<Arc<Wait>>> {
        // A panic while it was held left it whole: nothing between two changes can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One version of a handler among those that share.
pub(super) struct Group {
    scheduler: Arc<Scheduler>,
    handler: HandlerName,
    /// Runs that wait for a slot and have computed for a tick already. Those that wait before their first tick do not
    /// count: a handler of short runs would never leave the queue again, once a few of them met in it.
    queued: Arc<AtomicUsize>,
}

impl Group {
    pub(super) fn new(scheduler: Arc<Scheduler>, handler: HandlerName) -> Arc<Self> {
        Arc::new(Self { scheduler, handler, queued: Arc::default() })
    }

    /// Waits until a run may begin: only where too many of the handler's runs wait for slots already.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn {
        let slot = match self.queued.load(Relaxed) > self.scheduler.slots {
            true => Some(self.rest(Duration::ZERO, Computed::NotYet).await),
            false => None,
        };
        let usage = Usage { began: clock::instant(), used: Duration::ZERO, rests: false, slot };
        Turn(Account(Arc::new(Mutex::new(usage))))
    }

    /// At a tick of one of its runs: `None` when the guest may go on, otherwise what to wait for.
    pub(super) fn at_tick(
        self: &Arc<Self>,
        account: &Account,
        now: Instant,
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let mut usage = account.usage();
        usage.use_until(now);
        if usage.used < FREE {
            return None;
        }
        let (slot, used) = (usage.slot.take(), std::mem::take(&mut usage.used));
        usage.rests = true;
        drop(usage);
        // It joins the queue before its slot goes to the next: alone in its handler, it may be the next.
        let rest = self.rest(if slot.is_some() { Duration::ZERO } else { used }, Computed::ATick);
        drop(slot);
        let account = account.clone();
        Some(Box::pin(async move {
            let slot = rest.await;
            let mut usage = account.usage();
            (usage.rests, usage.slot) = (false, Some(slot));
        }))
    }

    fn queue(self: &Arc<Self>, used: Duration, computed: Computed) -> Waiting {
        let counted = (computed == Computed::ATick).then(|| self.queued.clone());
        if let Some(queued) = &counted {
            queued.fetch_add(1, Relaxed);
        }
        let wait = Arc::new(Wait { granted: AtomicBool::new(false), waker: AtomicWaker::new(), counted });
        let mut queue = self.scheduler.lock();
        queue.push(&self.handler, used, wait.clone());
        Scheduler::give_out(queue);
        Waiting { group: self.clone(), wait, is_over: false }
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

/// Shared by a run that waits and the queue.
struct Wait {
    granted: AtomicBool,
    waker: AtomicWaker,
    /// The group's count, if this run is in it.
    counted: Option<Arc<AtomicUsize>>,
}

impl Wait {
    /// It waits no more. Called once, under the queue's lock.
    fn leave(&self) {
        if let Some(queued) = &self.counted {
            queued.fetch_sub(1, Relaxed);
        }
    }
}

/// A place in the queue. Dropped, it gives up the place, or the slot if that was granted meanwhile.
struct Waiting {
    group: Arc<Group>,
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
        Poll::Ready(Slot { group: self.group.clone(), used: Duration::ZERO })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let Group { scheduler, handler, .. } = &*self.group;
        let mut queue = scheduler.lock();
        // Granted under the same lock.
        if self.wait.granted.load(Relaxed) {
            queue.give_back(handler, Duration::ZERO);
        } else {
            self.wait.leave();
            queue.leave(handler, |wait| Arc::ptr_eq(wait, &self.wait));
        }
        Scheduler::give_out(queue);
    }
}

/// Leave to compute; given back when dropped.
struct Slot {
    group: Arc<Group>,
    /// How long, so far.
    used: Duration,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut queue = self.group.scheduler.lock();
        queue.give_back(&self.group.handler, self.used);
        Scheduler::give_out(queue);
    }
}

/// Leave for one run to begin. Dropping it gives the slot back; an [`Account`] that outlives it has no effect.
pub(super) struct Turn(Account);

/// What one run used, kept from outside of the guest and from inside. It does not name the group: all runs of a handler
/// would count up and down in one place, and the cores would pass its cache line around.
#[derive(Clone)]
pub(super) struct Account(Arc<Mutex<Usage>>);

struct Usage {
    /// From when on it uses what is not yet in `used`.
    began: Instant,
    /// Since it last gave a slot back.
    used: Duration,
    /// Whether it waits for a slot: then to be pending is not to wait in an import.
    rests: bool,
    slot: Option<Slot>,
}

impl Usage {
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
    pub(super) fn account(&self) -> Account {
        self.0.clone()
    }

    /// When it was made, which is when the guest's time begins.
    pub(super) fn began(&self) -> Instant {
        self.0.usage().began
    }

    /// Runs a future with the guest in it and keeps the account.
    pub(super) async fn run<F: Future>(&self, mut future: Pin<&mut F>) -> F::Output {
        let mut is_first = true;
        std::future::poll_fn(move |cx| {
            // A run that completes at its first poll, as most do, reads no clock for this.
            if !std::mem::take(&mut is_first) {
                self.0.usage().began = clock::instant();
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
        let mut usage = self.0.usage();
        if usage.slot.is_some() {
            usage.use_until(clock::instant());
        }
        let slot = usage.slot.take();
        drop(usage);
        drop(slot);
    }
}

impl Account {
    /// The future is pending. If that is because the guest waits in an import, others may have its slot.
    fn pause(&self) {
        let mut usage = self.usage();
        usage.use_until(clock::instant());
        let slot = if usage.rests { None } else { usage.slot.take() };
        drop(usage);
        drop(slot);
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // It is plain data: a panic while it was held left it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
