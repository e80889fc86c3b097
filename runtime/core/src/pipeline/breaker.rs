//! The circuit breaker: whether anything should be tried at all, from how the last tries ended.
//!
//! Closed, everything runs. Enough failures open it for a while; when that is over it is half-open, and one run at a time,
//! the probe, tries whether it closes or opens again for longer. An operator can trip it, and then it stays so.
//!
//! A breaker is about the handler and what it calls, not about single messages. So only the *first* try of a message
//! counts, failed or not, and it trips on failures of at least two keys: a message that failed before has a wait of its
//! own, and were its retries counted, a few poisoned keys would stop all the others for good. Its retries pass while the
//! breaker is closed and wait while it is open.
//!
//! Half-open, first tries go before retries, at once and one after the other; with each opening twice as many may fail
//! before the next, up to a bound. So healthy keys behind a crowd of failing ones wait for a few openings and not for one
//! each, and what is called is tried more often only after it was left alone for longer. A retry may probe as well, but a
//! failed one opens nothing and only puts the next retry off: a breaker with nothing but failed messages closes when one
//! of them succeeds, and a message of a healthy key that comes meanwhile is tried at once.
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
/// First tries that may fail while it is half-open double with each opening up to this many: enough that a crowd of
/// failing keys is through in a few openings, few enough for one that cannot answer anybody.
const PROBES_MAX: u32 = 32;
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
    failed_keys: FailedKeys,
    /// Results of late; for the other kinds.
    window: Window,
    /// How long it stays open when it opens next, before jitter.
    next_wait: Duration,
    /// First tries that may fail when it is half-open next.
    next_probes: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen(HalfOpen),
    Tripped,
}

#[derive(Clone, Copy, Debug)]
struct HalfOpen {
    probing: bool,
    /// When so many more first tries fail it opens.
    probes_left: u32,
    /// No retry probes before.
    retry_at: Instant,
}

/// Which try of its message a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// The first. `key` tells keys apart; a message without one has a number of its own.
    First { key: u64 },
    /// It failed before.
    Again,
}

/// Leave to make one run. Hand it back with [`Breaker::report`], whatever became of the run: half-open, the breaker waits
/// for the one it gave out.
#[must_use = "a ticket that is not handed back keeps a half-open breaker waiting for ever"]
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
    probe: bool,
    tries: Try,
}

impl Ticket {
    /// As the breaker would give out while it is [calm](Breaker::calm).
    pub fn calm(generation: u64, tries: Try) -> Self {
        Self { generation, probe: false, tries }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the breaker waits for this run, alone.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Whether the breaker takes no notice of how this run ends.
    pub fn counts_for_nothing(&self) -> bool {
        !self.probe && self.tries == Try::Again
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
    /// It is half-open and a retry failed: the next retry may run then, a first try at once.
    RetriesAt(Instant),
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
            // A reject is about the message, and no room for delayed messages about how many there are. A fault of the
            // host means that no sandbox could be made: the handler never had its say.
            Err(Failure::Reject { .. } | Failure::Full { .. } | Failure::Host { .. }) => Sample::Ignored,
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
        Self {
            settings,
            phase: Phase::Closed,
            generation: 0,
            consecutive: 0,
            failed_keys: FailedKeys::default(),
            window,
            next_wait,
            next_probes: 1,
        }
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
    pub fn admit(&mut self, tries: Try, now: Instant) -> (Admit, Option<Event>) {
        match self.phase {
            Phase::Closed => (Admit::Run(Ticket { generation: self.generation, probe: false, tries }), None),
            _ => self.admit_when_not_closed(tries, now),
        }
    }

    #[cold]
    fn admit_when_not_closed(&mut self, tries: Try, now: Instant) -> (Admit, Option<Event>) {
        let (half_open, ready) = match self.phase {
            Phase::Open { until } if now < until => return (Admit::Until(until), None),
            Phase::Tripped => return (Admit::Tripped, None),
            Phase::HalfOpen(HalfOpen { probing: true, .. }) => return (Admit::Probing, None),
            Phase::HalfOpen(HalfOpen { retry_at, .. }) if tries == Try::Again && now < retry_at => {
                return (Admit::RetriesAt(retry_at), None);
            }
            Phase::HalfOpen(half_open) => (half_open, None),
            Phase::Open { .. } | Phase::Closed => {
                let probes_left = self.next_probes;
                self.next_probes = (probes_left * 2).min(PROBES_MAX);
                (HalfOpen { probing: true, probes_left, retry_at: now }, Some(Event::Ready))
            }
        };
        self.enter(Phase::HalfOpen(HalfOpen { probing: true, ..half_open }));
        (Admit::Run(Ticket { generation: self.generation, probe: true, tries }), ready)
    }

    /// Hands a ticket back and says what became of its run. `random` is uniform in [0, 1).
    ///
    /// A ticket from before the last change of state changes nothing.
    pub fn report(&mut self, ticket: Ticket, sample: Sample, now: Instant, random: f64) -> [Option<Event>; 2] {
        if ticket.generation != self.generation {
            return [None, None];
        }
        match (self.phase, ticket.tries) {
            (Phase::HalfOpen(half_open), tries) => self.probed(half_open, tries, sample, now, random),
            (_, Try::First { key }) => self.count(key, sample, now, random),
            (_, Try::Again) => [None, None],
        }
    }

    fn count(&mut self, key: u64, sample: Sample, now: Instant, random: f64) -> [Option<Event>; 2] {
        match sample {
            Sample::Ignored => [None, None],
            Sample::Success => {
                self.consecutive = 0;
                match self.settings.trip {
                    Trip::Consecutive { .. } => self.failed_keys = FailedKeys::default(),
                    Trip::Rate { .. } => self.window.add(false, now),
                    Trip::Count { .. } => {}
                }
                [None, None]
            }
            Sample::Failure => {
                self.consecutive = self.consecutive.saturating_add(1);
                self.failed_keys.add(key, now);
                if !matches!(self.settings.trip, Trip::Consecutive { .. }) {
                    self.window.add(true, now);
                }
                let opened = self.has_reached_its_threshold(now).then(|| self.open(now, random));
                [Some(Event::Fail), opened]
            }
        }
    }

    fn probed(
        &mut self,
        half_open: HalfOpen,
        tries: Try,
        sample: Sample,
        now: Instant,
        random: f64,
    ) -> [Option<Event>; 2] {
        let HalfOpen { probes_left, retry_at, .. } = half_open;
        let (probes_left, retry_at) = match (sample, tries) {
            (Sample::Success, _) => return [self.reset(), None],
            (Sample::Ignored, _) => (probes_left, retry_at),
            (Sample::Failure, Try::First { .. }) if probes_left <= 1 => {
                return [Some(Event::Fail), Some(self.open(now, random))];
            }
            (Sample::Failure, Try::First { .. }) => (probes_left - 1, retry_at),
            // The waits do not grow by it: who failed before must not keep those who come waiting.
            (Sample::Failure, Try::Again) => (probes_left, now + self.jittered_wait(random)),
        };
        self.enter(Phase::HalfOpen(HalfOpen { probing: false, probes_left, retry_at }));
        [(sample == Sample::Failure && tries != Try::Again).then_some(Event::Fail), None]
    }

    /// Trips it by hand: nothing runs until [`reset`](Self::reset).
    pub fn trip(&mut self) {
        self.enter(Phase::Tripped);
    }

    /// Closes it and forgets what it counted, by hand or because a probe succeeded; the waits begin anew.
    pub fn reset(&mut self) -> Option<Event> {
        let was_closed = matches!(self.phase, Phase::Closed);
        self.enter(Phase::Closed);
        (self.next_wait, self.next_probes) = (self.settings.wait, 1);
        (!was_closed).then_some(Event::Reset)
    }

    /// Closed, and with nothing counted that a success would change: the generation of the tickets it gives out. Until
    /// something else happens to it, asking it and reporting a success changes nothing.
    pub fn calm(&self) -> Option<u64> {
        let counts_all = matches!(self.settings.trip, Trip::Rate { .. });
        let calm = matches!(self.phase, Phase::Closed) && self.consecutive == 0 && !counts_all;
        calm.then_some(self.generation)
    }

    /// Half-open, or about to be: first tries go before retries.
    pub fn is_half_open(&self, now: Instant) -> bool {
        match self.phase {
            Phase::HalfOpen(_) => true,
            Phase::Open { until } => until <= now,
            Phase::Closed | Phase::Tripped => false,
        }
    }

    /// Half-open: why a retry is not let through, whatever it is.
    pub fn refuses_retries(&self, now: Instant) -> Option<Admit> {
        match self.phase {
            Phase::HalfOpen(HalfOpen { probing: true, .. }) => Some(Admit::Probing),
            Phase::HalfOpen(HalfOpen { retry_at, .. }) if now < retry_at => Some(Admit::RetriesAt(retry_at)),
            _ => None,
        }
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } => State::Open { until },
            Phase::HalfOpen(_) => State::HalfOpen,
            Phase::Tripped => State::Tripped,
        }
    }

    /// Whether what is counted suffices. Asked at every failure, and with "at least": none can skip the threshold.
    fn has_reached_its_threshold(&self, now: Instant) -> bool {
        if !self.failed_keys.are_two(self.settings.trip, now) {
            return false;
        }
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
        let wait = self.jittered_wait(random);
        let max_wait = self.max_wait();
        self.next_wait = self.next_wait.min(max_wait).mul_f64(WAIT_GROWTH).min(max_wait);
        self.enter(Phase::Open { until: now + wait });
        Event::Tripped { wait }
    }

    /// ± 50 %, so that breakers which tripped together do not probe together.
    fn jittered_wait(&self, random: f64) -> Duration {
        let max_wait = self.max_wait();
        self.next_wait.min(max_wait).mul_f64(0.5 + random.clamp(0.0, 1.0)).min(max_wait)
    }

    fn max_wait(&self) -> Duration {
        self.settings.max_wait.min(WAIT_MAX)
    }

    /// What was counted belonged to the phase that ends here.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.consecutive = 0;
        self.failed_keys = FailedKeys::default();
        self.window.clear();
    }
}

/// Whether failures are of more than one key: of the last one, and of another before it.
#[derive(Clone, Copy, Debug, Default)]
struct FailedKeys {
    last: Option<(u64, Instant)>,
    /// The newest failure of another key than the last one's.
    other: Option<Instant>,
}

impl FailedKeys {
    fn add(&mut self, key: u64, now: Instant) {
        if let Some((last, at)) = self.last
            && last != key
        {
            self.other = Some(at);
        }
        self.last = Some((key, now));
    }

    /// Failures in a row are forgotten at a success, the others when they are older than the window.
    fn are_two(&self, trip: Trip, now: Instant) -> bool {
        let in_a_row = matches!(trip, Trip::Consecutive { .. });
        self.other.is_some_and(|other| in_a_row || now.saturating_duration_since(other) <= trip.window())
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
