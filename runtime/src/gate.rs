//! The gate of a handler: whether its next run may begin, for all its shards on this host.
//!
//! Breaker, rate, a full box of dead letters ([`crate::dead_box`]) and the operator's word are the handler's, not a shard's,
//! so its shards ask here. A shard that is told no starts nothing and takes nothing up; what it holds keeps its attempts.
//! The decisions are pure ([`crate::pipeline::breaker`], [`crate::pipeline::rate`]); here is who shares them and who waits
//! for them.
//!
//! How many run at a time is left to the permits of [`crate::actor::Version`].

mod delayed;
mod host_fault;
#[cfg(test)]
mod tests;

pub use delayed::{Delayed, DelayedShare};

use crate::chance;
use crate::clock;
use crate::dead_box;
use crate::handler::Policy;
use crate::log::DeadUsage;
use crate::pipeline::breaker::{Admit, Breaker, Event, Sample, State, Ticket, Try};
use crate::pipeline::rate::Rate;
use crate::telemetry::{HandlerMetrics, Occasions, events};
use host_fault::HostFault;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// Shared by the shards of one handler on one host.
pub struct Gate {
    inner: Mutex<Inner>,
    /// What a pass is while nothing but failures would change anything: then nobody takes the lock. See [`Calm`].
    calm: AtomicU64,
    dead_box: dead_box::Counter,
    delayed: Arc<Delayed>,
    delayed_refused: Occasions,
    host_faults: Occasions,
    /// As `Inner::host_fault` says: asked after every run, so without a lock.
    has_host_fault: AtomicBool,
    /// Moves when what was refused may be let through.
    changed: watch::Sender<()>,
    metrics: Arc<HandlerMetrics>,
}

struct Inner {
    breaker: Option<Breaker>,
    rate: Option<Rate>,
    /// Tripped by hand, breaker or not.
    tripped: bool,
    /// The last run could not be made.
    host_fault: Option<HostFault>,
}

/// Why nothing may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Ask again then, or when the gate changed.
    Until(Instant),
    /// The handler runs, at its rate: ask again then, or when the gate changed.
    AtRate(Instant),
    /// Ask again when the gate changed.
    Changed,
    /// Runs that failed before ask again then, or when the gate changed; a first try may ask at once.
    RetriesUntil(Instant),
}

/// Whether runs pass without asking: no rate, nobody tripped it, and a breaker that is [calm](Breaker::calm), or none.
#[derive(Clone, Copy, PartialEq)]
enum Calm {
    No,
    NoBreaker,
    /// Tickets have this generation.
    Closed(u64),
}

impl Calm {
    fn to_word(self) -> u64 {
        match self {
            Calm::No => 0,
            Calm::NoBreaker => u64::MAX,
            Calm::Closed(generation) => generation + 1,
        }
    }

    fn from_word(word: u64) -> Self {
        match word {
            0 => Calm::No,
            u64::MAX => Calm::NoBreaker,
            word => Calm::Closed(word - 1),
        }
    }
}

/// Leave for one run: say what became of it with [`Pass::report`]. Dropped, the run did not take place.
#[must_use]
pub struct Pass<'g> {
    gate: &'g Gate,
    ticket: Option<Ticket>,
    counts: bool,
}

/// The breaker as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// The handler has none.
    Off,
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen,
    /// Opened by hand.
    Tripped,
}

impl Gate {
    /// The gate of a handler that has `dead` dead letters already.
    pub fn new(policy: &Policy, dead: u64, metrics: Arc<HandlerMetrics>) -> Self {
        let inner = Inner {
            breaker: policy.breaker.clone().map(Breaker::new),
            rate: policy.rate.map(Rate::new),
            tripped: false,
            host_fault: None,
        };
        let dead_box = dead_box::Counter::new(policy.dead, dead, metrics.clone());
        let (calm, changed) = (AtomicU64::new(inner.calm().to_word()), watch::Sender::new(()));
        let gate = Self {
            inner: Mutex::new(inner),
            calm,
            dead_box,
            delayed: Arc::default(),
            delayed_refused: Occasions::default(),
            host_faults: Occasions::default(),
            has_host_fault: AtomicBool::new(false),
            changed,
            metrics,
        };
        gate.show(&gate.lock());
        gate
    }

    /// Takes a changed policy; what was counted stays.
    pub fn configure(&self, policy: &Policy) {
        let mut inner = self.lock();
        match (&mut inner.breaker, &policy.breaker) {
            (Some(breaker), Some(settings)) => breaker.configure(settings.clone()),
            (breaker, settings) => *breaker = settings.clone().map(Breaker::new),
        }
        if inner.tripped
            && let Some(breaker) = &mut inner.breaker
        {
            breaker.trip();
        }
        match (&mut inner.rate, policy.rate) {
            (Some(rate), Some(limit)) => rate.configure(limit),
            (rate, limit) => *rate = limit.map(Rate::new),
        }
        self.show(&inner);
        drop(inner);
        self.dead_box.configure(policy.dead);
        self.changed.send_replace(());
    }

    /// Moves when a shut gate may have opened.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether asking for a pass is in vain now, without asking for one.
    pub fn shut(&self, now: Instant) -> Option<Shut> {
        if self.dead_box.is_full() {
            self.dead_box.say_full();
            return Some(Shut::Changed);
        }
        if self.calm() != Calm::No {
            return None;
        }
        let inner = self.lock();
        if inner.tripped {
            return Some(Shut::Changed);
        }
        if let Some(fault) = inner.host_fault.filter(|fault| now < fault.until) {
            return Some(Shut::Until(fault.until));
        }
        match inner.breaker.as_ref().map(Breaker::state) {
            Some(State::Open { until }) if now < until => Some(Shut::Until(until)),
            Some(State::Tripped) => Some(Shut::Changed),
            _ => None,
        }
    }

    /// Whether the breaker is half-open, so that first tries go before retries.
    pub fn is_half_open(&self, now: Instant) -> bool {
        self.calm() == Calm::No && self.lock().breaker.as_ref().is_some_and(|breaker| breaker.is_half_open(now))
    }

    /// Whether asking for a pass for a retry is in vain now, with the breaker half-open.
    pub fn shut_for_retries(&self, now: Instant) -> Option<Shut> {
        let inner = self.lock();
        match inner.breaker.as_ref()?.refuses_retries(now)? {
            Admit::RetriesAt(until) => Some(Shut::RetriesUntil(until)),
            _ => Some(Shut::Changed),
        }
    }

    /// Asks for leave to begin one run.
    pub fn pass(&self, tries: Try, now: Instant) -> Result<Pass<'_>, Shut> {
        if self.dead_box.is_full() {
            return Err(Shut::Changed);
        }
        match self.calm() {
            Calm::No => self.ask(tries, now),
            Calm::NoBreaker => Ok(Pass { gate: self, ticket: None, counts: false }),
            Calm::Closed(generation) => {
                Ok(Pass { gate: self, ticket: Some(Ticket::calm(generation, tries)), counts: false })
            }
        }
    }

    fn ask(&self, tries: Try, now: Instant) -> Result<Pass<'_>, Shut> {
        let mut inner = self.lock();
        if inner.tripped {
            return Err(Shut::Changed);
        }
        if let Some(fault) = inner.host_fault.filter(|fault| now < fault.until) {
            return Err(Shut::Until(fault.until));
        }
        if let Some(rate) = &mut inner.rate {
            rate.take(now).map_err(Shut::AtRate)?;
        }
        let counts = inner.rate.is_some();
        let Some(breaker) = &mut inner.breaker else { return Ok(Pass { gate: self, ticket: None, counts }) };
        let (admit, event) = breaker.admit(tries, now);
        let shut = match admit {
            Admit::Run(ticket) => {
                if let Some(event) = event {
                    self.tell(&inner, event);
                }
                return Ok(Pass { gate: self, ticket: Some(ticket), counts });
            }
            Admit::Until(until) => Shut::Until(until),
            Admit::RetriesAt(until) => Shut::RetriesUntil(until),
            Admit::Probing | Admit::Tripped => Shut::Changed,
        };
        if let Some(rate) = &mut inner.rate {
            rate.give_back();
        }
        Err(shut)
    }

    /// The host could not make a run: nothing runs for a while.
    pub fn host_failed(&self, reason: &str, now: Instant) {
        if let Some(times) = self.host_faults.note(now) {
            events::host_fault(&self.metrics, reason, times);
        }
        let mut inner = self.lock();
        if let Some(fault) = HostFault::after(inner.host_fault, now, chance::fraction()) {
            inner.host_fault = Some(fault);
            self.has_host_fault.store(true, Ordering::Release);
        }
    }

    /// The host made a run, whatever became of it.
    pub fn host_works(&self) {
        if !self.has_host_fault.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.lock();
        inner.host_fault = None;
        if !self.has_host_fault.swap(false, Ordering::AcqRel) {
            return;
        }
        drop(inner);
        events::host_fault_over(&self.metrics);
        self.changed.send_replace(());
    }

    /// What the handler holds back until it is due.
    pub fn delayed(&self) -> Arc<Delayed> {
        self.delayed.clone()
    }

    /// A run waits because there was no room for a message with a delay.
    pub fn delayed_full(&self, now: Instant) {
        events::delayed_full(&self.metrics, self.delayed_refused.note(now));
    }

    /// An operator opened it, or a shard found in its record that one did.
    pub fn trip(&self) {
        let mut inner = self.lock();
        if !inner.tripped {
            inner.tripped = true;
            if let Some(breaker) = &mut inner.breaker {
                breaker.trip();
            }
            events::breaker_tripped_by_hand(&self.metrics);
            self.show(&inner);
        }
    }

    /// An operator closed it.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.tripped = false;
        let event = inner.breaker.as_mut().and_then(Breaker::reset);
        if let Some(event) = event {
            self.tell(&inner, event);
        }
        drop(inner);
        self.changed.send_replace(());
    }

    /// A durable commit added so many bytes of dead letters.
    pub fn dead_grew(&self, bytes: u64) {
        self.dead_box.grew(bytes);
    }

    /// What the log says when the gate is made.
    pub fn dead_begins(&self, usage: DeadUsage, bytes_max: Option<u64>) {
        self.dead_box.begins(usage, bytes_max);
    }

    /// What the log says of the handler's dead letters, and how many bytes they may take.
    pub fn dead_counted(&self, usage: Option<DeadUsage>, bytes_max: Option<u64>) {
        if self.dead_box.counted(usage, bytes_max) {
            self.changed.send_replace(());
        }
    }

    /// A durable commit added and removed dead letters.
    pub fn dead_changed(&self, added: u64, removed: u64) {
        if added == 0 && removed == 0 {
            return;
        }
        if self.dead_box.changed(added, removed) {
            self.changed.send_replace(());
        }
    }

    pub fn breaker(&self) -> BreakerState {
        self.lock().state()
    }

    fn report(&self, ticket: Ticket, sample: Sample) {
        let says_nothing = match sample {
            Sample::Success => self.calm() == Calm::Closed(ticket.generation()),
            Sample::Ignored => true,
            Sample::Failure => false,
        };
        if ticket.counts_for_nothing() || says_nothing && !ticket.is_probe() {
            return;
        }
        let random = if sample == Sample::Failure { chance::fraction() } else { 0.0 };
        let mut inner = self.lock();
        let probe = ticket.is_probe();
        let Some(breaker) = &mut inner.breaker else { return };
        let told = breaker.report(ticket, sample, clock::instant(), random);
        told.into_iter().flatten().for_each(|event| self.tell(&inner, event));
        drop(inner);
        if probe {
            // Closed again, or the next one may probe, or there is a time to wait for.
            self.changed.send_replace(());
        }
    }

    fn tell(&self, inner: &Inner, event: Event) {
        events::breaker(&self.metrics, event);
        self.show(inner);
    }

    fn show(&self, inner: &Inner) {
        self.metrics.breaker_state.set(match inner.state() {
            BreakerState::Off | BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => 2,
            BreakerState::Tripped => 3,
        });
    }

    fn calm(&self) -> Calm {
        Calm::from_word(self.calm.load(Ordering::Acquire))
    }

    fn lock(&self) -> Locked<'_> {
        Locked { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner), calm: &self.calm }
    }
}

/// Whoever had the lock says, before giving it back, whether the next ones need it.
struct Locked<'g> {
    inner: MutexGuard<'g, Inner>,
    calm: &'g AtomicU64,
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.calm.store(self.inner.calm().to_word(), Ordering::Release);
    }
}

impl Inner {
    fn calm(&self) -> Calm {
        match &self.breaker {
            _ if self.tripped || self.rate.is_some() || self.host_fault.is_some() => Calm::No,
            None => Calm::NoBreaker,
            Some(breaker) => breaker.calm().map_or(Calm::No, Calm::Closed),
        }
    }

    fn state(&self) -> BreakerState {
        if self.tripped {
            return BreakerState::Tripped;
        }
        match self.breaker.as_ref().map(Breaker::state) {
            None => BreakerState::Off,
            Some(State::Closed) => BreakerState::Closed,
            Some(State::Open { until }) => BreakerState::Open { until },
            Some(State::HalfOpen) => BreakerState::HalfOpen,
            Some(State::Tripped) => BreakerState::Tripped,
        }
    }
}

impl Pass<'_> {
    /// What became of the run.
    pub fn report(mut self, sample: Sample) {
        self.counts = false;
        if let Some(ticket) = self.ticket.take() {
            self.gate.report(ticket, sample);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.counts
            && let Some(rate) = &mut self.gate.lock().rate
        {
            rate.give_back();
        }
        // A probe that never ran gives its place to another: without this a half-open breaker would wait for ever.
        if let Some(ticket) = self.ticket.take() {
            self.gate.report(ticket, Sample::Ignored);
        }
    }
}
