//! The circuit breaker: whether anything should be tried at all, from how the last tries ended.
//!
//! Closed, everything runs. Enough failures open it for a while; when that is over it is half-open, and exactly one run,
//! the probe, decides whether it closes or opens again for longer. An operator can trip it, and then it stays so.
//!
//! It guarantees that reaching the threshold is enough, however many results arrive late and together, and that a run
//! says nothing about a state that began after it. It does no IO, and time and randomness are handed in. Who waits for
//! what it answers, and who counts its events, is for others.

mod window;

#[cfg(test)]
mod tests;

use crate::effects::Effects;
use crate::handler::{BreakerSettings, Trip};
use crate::invoke::Failure;
use std::time::{Duration, Instant};
use window::Window;

/// The waits of an opened breaker grow by this factor with each failed probe.
const WAIT_GROWTH: f64 = 1.5;
/// No wait is longer than this (1 year), whatever the settings say: later times could not be reckoned with.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The breaker of one handler.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Rises with every change of phase, so that a ticket tells when it was given out.
    generation: u64,
    /// Failures since the last success; for [`Trip::Consecutive`].
    consecutive: u32,
    /// Results of late; for the other kinds.
    window: Window,
    /// How long it stays open when it opens next, before jitter.
    next_wait: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { probing: bool },
    Tripped,
}

/// Leave to make one run. Hand it back with [`Breaker::report`], whatever became of the run: half-open, the breaker waits
/// for the one it gave out.
#[must_use = "a ticket that is not handed back keeps a half-open breaker waiting for ever"]
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

impl Ticket {
    /// As the breaker would give out while it is [calm](Breaker::calm).
    pub fn calm(generation: u64) -> Self {
        Self { generation, probe: false }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether this run decides about the breaker, alone.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Whether to run.
#[must_use]
#[derive(Debug)]
pub enum Admit {
    Run(Ticket),
    /// It is open: ask again then.
    Until(Instant),
    /// It is half-open and the one probe is under way: ask again when that was reported.
    Probing,
    /// Tripped by hand: until it is reset.
    Tripped,
}

/// What a run says about the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    Success,
    Failure,
    /// A reject, a caller's cancel, a run that did not take place. It counts for nothing; a probe that says this gives its
    /// place to another.
    Ignored,
}

impl Sample {
    pub fn of(result: &Result<Effects, Failure>) -> Self {
        match result {
            Ok(_) => Sample::Success,
            Err(Failure::Retry { .. } | Failure::Timeout { .. } | Failure::Trap { .. } | Failure::Memory { .. }) => {
                Sample::Failure
            }
            // A reject is about the message. A fault of the host means that no sandbox could be made: the handler never
            // had its say, and holding it back would not mend the host.
            Err(Failure::Reject { .. } | Failure::Host { .. }) => Sample::Ignored,
        }
    }
}

/// What happened to a breaker, for metrics and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It opened, for so long.
    Tripped { wait: Duration },
    /// Its wait is over, and the probe goes out.
    Ready,
    /// It closed.
    Reset,
    /// A failure that counts.
    Fail,
}

/// As people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
    Tripped,
}

impl Breaker {
    /// Closed.
    pub fn new(settings: BreakerSettings) -> Self {
        let (window, next_wait) = (Window::new(settings.trip.window()), settings.wait);
        Self { settings, phase: Phase::Closed, generation: 0, consecutive: 0, window, next_wait }
    }

    /// Takes new settings. The state stays, and so does what was counted unless something else is counted now.
    pub fn configure(&mut self, settings: BreakerSettings) {
        let kind = std::mem::discriminant::<Trip>;
        let (old, new) = (self.settings.trip, settings.trip);
        if kind(&old) != kind(&new) || old.window() != new.window() {
            self.window = Window::new(new.window());
        }
        if settings.wait != self.settings.wait {
            self.next_wait = settings.wait;
        }
        self.settings = settings;
    }

    /// Asks for leave to make one run.
    #[inline]
    pub fn admit(&mut self, now: Instant) -> (Admit, Option<Event>) {
        match self.phase {
            Phase::Closed => (Admit::Run(Ticket { generation: self.generation, probe: false }), None),
            _ => self.admit_when_not_closed(now),
        }
    }

    #[cold]
    fn admit_when_not_closed(&mut self, now: Instant) -> (Admit, Option<Event>) {
        let ready = match self.phase {
            Phase::Open { until } if now < until => return (Admit::Until(until), None),
            Phase::Tripped => return (Admit::Tripped, None),
            Phase::HalfOpen { probing: true } => return (Admit::Probing, None),
            Phase::HalfOpen { probing: false } => None,
            Phase::Open { .. } | Phase::Closed => Some(Event::Ready),
        };
        self.enter(Phase::HalfOpen { probing: true });
        (Admit::Run(Ticket { generation: self.generation, probe: true }), ready)
    }

    /// Hands a ticket back and says what became of its run. `random` is uniform in [0, 1).
    ///
    /// A ticket from before the last change of state changes nothing.
    pub fn report(&mut self, ticket: Ticket, sample: Sample, now: Instant, random: f64) -> [Option<Event>; 2] {
        if ticket.generation != self.generation {
            return [None, None];
        }
        match (ticket.probe, sample) {
            (false, Sample::Ignored) => [None, None],
            (false, Sample::Success) => {
                self.consecutive = 0;
                if let Trip::Rate { .. } = self.settings.trip {
                    self.window.add(false, now);
                }
                [None, None]
            }
            (false, Sample::Failure) => {
                self.consecutive = self.consecutive.saturating_add(1);
                if !matches!(self.settings.trip, Trip::Consecutive { .. }) {
                    self.window.add(true, now);
                }
                let opened = self.has_reached_its_threshold().then(|| self.open(now, random));
                [Some(Event::Fail), opened]
            }
            (true, Sample::Ignored) => {
                self.enter(Phase::HalfOpen { probing: false });
                [None, None]
            }
            (true, Sample::Success) => [self.reset(), None],
            (true, Sample::Failure) => [Some(Event::Fail), Some(self.open(now, random))],
        }
    }

    /// Trips it by hand: nothing runs until [`reset`](Self::reset).
    pub fn trip(&mut self) {
        self.enter(Phase::Tripped);
    }

    /// Closes it and forgets what it counted, by hand or because a probe succeeded; the waits begin anew.
    pub fn reset(&mut self) -> Option<Event> {
        let was_closed = matches!(self.phase, Phase::Closed);
        self.enter(Phase::Closed);
        self.next_wait = self.settings.wait;
        (!was_closed).then_some(Event::Reset)
    }

    /// Closed, and with nothing counted that a success would change: the generation of the tickets it gives out. Until
    /// something else happens to it, asking it and reporting a success changes nothing.
    pub fn calm(&self) -> Option<u64> {
        let counts_all = matches!(self.settings.trip, Trip::Rate { .. });
        let calm = matches!(self.phase, Phase::Closed) && self.consecutive == 0 && !counts_all;
        calm.then_some(self.generation)
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } => State::Open { until },
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Tripped => State::Tripped,
        }
    }

    /// Whether what is counted suffices. Asked at every failure, and with "at least": none can skip the threshold.
    fn has_reached_its_threshold(&self) -> bool {
        match self.settings.trip {
            Trip::Consecutive { failures } => self.consecutive >= failures,
            Trip::Count { failures, .. } => self.window.failed() >= u64::from(failures),
            Trip::Rate { percent, samples, .. } => {
                let (all, failed) = (self.window.all(), self.window.failed());
                all >= u64::from(samples) && failed * 100 >= all * u64::from(percent)
            }
        }
    }

    fn open(&mut self, now: Instant, random: f64) -> Event {
        let max_wait = self.settings.max_wait.min(WAIT_MAX);
        // ± 50 %, so that breakers which tripped together do not probe together.
        let jitter = 0.5 + random.clamp(0.0, 1.0);
        let base = self.next_wait.min(max_wait);
        let wait = base.mul_f64(jitter).min(max_wait);
        self.next_wait = base.mul_f64(WAIT_GROWTH).min(max_wait);
        self.enter(Phase::Open { until: now + wait });
        Event::Tripped { wait }
    }

    /// What was counted belonged to the phase that ends here.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.consecutive = 0;
        self.window.clear();
    }
}

impl Trip {
    /// Failures one after another are counted without one.
    fn window(self) -> Duration {
        match self {
            Trip::Consecutive { .. } => Duration::ZERO,
            Trip::Count { window, .. } | Trip::Rate { window, .. } => window,
        }
    }
}
