//! Warm sandboxes with nothing to do: bounded for each handler and over all of them.
//!
//! A sandbox goes back to the thread that ran it last, because that thread's processor has its pages in the caches. Another
//! thread takes it only when it has none of its own.

use super::host::TimeBudget;
use super::instance::{Ended, Instance};
use super::stripe::Striped;
use sluicebox_core::invoke::Call;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most idle sandboxes of one handler.
const HANDLER_IDLE_MAX: usize = 64;

/// Room for the idle sandboxes of all handlers: each keeps a slot of the pool.
pub(super) struct IdleSlots(AtomicU32);

impl IdleSlots {
    pub(super) fn new(slots: u32) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(slots)))
    }

    fn take(self: &Arc<Self>, weight: u32) -> Option<IdleSlot> {
        self.0.try_update(Relaxed, Relaxed, |left| left.checked_sub(weight)).ok()?;
        Some(IdleSlot { slots: self.clone(), weight })
    }
}

/// Given back when dropped.
struct IdleSlot {
    slots: Arc<IdleSlots>,
    weight: u32,
}

impl Drop for IdleSlot {
    fn drop(&mut self) {
        self.slots.0.fetch_add(self.weight, Relaxed);
    }
}

/// A sandbox that may handle another message.
pub(super) struct Warm {
    /// Fields drop in order: the sandbox leaves the pool before its slot is free.
    pub(super) instance: Instance,
    /// Messages it may still handle.
    pub(super) runs_left: u32,
    /// From when it was idle. A run that neither waits nor ends the sandbox brings it back, so the count of all handlers is
    /// left alone.
    slot: Option<IdleSlot>,
}

impl Warm {
    pub(super) fn new(instance: Instance, runs_left: u32) -> Self {
        Self { instance, runs_left, slot: None }
    }

    /// Handles one message.
    pub(super) async fn run(&mut self, call: Call, budget: TimeBudget) -> Ended {
        let Self { instance, slot, .. } = self;
        let mut run = pin!(instance.run(call, budget));
        poll_fn(|cx| {
            let poll = run.as_mut().poll(cx);
            if poll.is_pending() {
                // While it waits it is not idle, and another may be.
                *slot = None;
            }
            poll
        })
        .await
    }
}

/// The idle sandboxes of one handler, the last used first.
pub(super) struct Idle {
    slots: Arc<IdleSlots>,
    weight: u32,
    warm: Striped<Mutex<Vec<Warm>>>,
}

impl Idle {
    pub(super) fn new(slots: Arc<IdleSlots>, weight: u32) -> Self {
        Self { slots, weight, warm: Striped::new() }
    }

    pub(super) fn take(&self) -> Option<Warm> {
        self.warm.own_first().find_map(|stripe| lock(stripe).pop())
    }

    /// Keeps the sandbox if there is room for it; otherwise it ends here.
    pub(super) fn keep(&self, mut warm: Warm) {
        if warm.slot.is_none() {
            warm.slot = self.slots.take(self.weight);
        }
        if warm.slot.is_none() {
            return;
        }
        let stripe_max = HANDLER_IDLE_MAX / self.warm.len();
        for stripe in self.warm.own_first() {
            let mut idle = lock(stripe);
            if idle.len() < stripe_max {
                return idle.push(warm);
            }
        }
    }
}

fn lock(stripe: &Mutex<Vec<Warm>>) -> MutexGuard<'_, Vec<Warm>> {
    // A panic while it was held left a whole list: entries move in and out in one step.
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}
