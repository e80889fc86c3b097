//! Messages that publishers delay: the host's own handler for them, and the bound on them.
//!
//! A message with a delay is appended to a topic of the host's own, so it is durable like any other. The host's own handler
//! takes it up and publishes what is in it with the delay, which runs from when the log took it; so commit, cancelling,
//! clocks and restarts are those of what any handler delays. It has no module: [`Relay`] is native code. Where it runs, and
//! from when on, is the host's business.
//!
//! The bound is kept where publishers are: whoever would go beyond it is refused, and nothing of what was accepted has to
//! wait for room. Where other hosts work on the log the handler may run on another one, so each host counts what the record
//! says, and what it accepted itself and is not in there yet. What several accept at the same moment they do not know of
//! each other: the handler has twice the room.

use crate::clock::{self, Timestamp};
use crate::config;
use crate::effects::{DELAY_MAX, Effects, Outgoing};
use crate::handler::ShardId;
use crate::handler::{DeadBox, DeadFull, DelayedBound, Digest, HandlerName, OnFailure, Policy, Retry};
use crate::invoke::{Call, Failure, Invoke};
use crate::log::LogError;
use crate::log::{DelayedFilter, DelayedQuery, Log};
use crate::message::Offset;
use crate::routing::reserved;
use crate::shard::{Amount, DELAYED_FULL};
use futures_util::future::BoxFuture;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waits of a message that found no room, which the bound on publishers leaves to accidents.
const RETRY: Retry = Retry { attempts: 8, min: Duration::from_secs(1), max: Duration::from_secs(5) };

/// A delay as people write it; none at all is a delay too. The error says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    let delay = config::duration(text)?;
    let days = DELAY_MAX.as_secs() / (24 * 3600);
    if delay > DELAY_MAX { Err(format!("`{text}` is more than {days}d, the longest delay")) } else { Ok(delay) }
}

/// What the record says is looked at again after this.
const COUNTED_FOR: Duration = Duration::from_millis(500);
/// What is perhaps in the log, and where nobody knows, counts for so long.
const DOUBTED_FOR: Duration = Duration::from_secs(60);

/// Why a message cannot be delayed now. Nothing of it was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDelay {
    #[error(
        "{messages} messages with {bytes} bytes are delayed, and `delayed` in [host] allows {} and {} bytes: wait until \
         some are due, cancel some (`sluicebox handlers waiting {name}` lists them), or raise it",
        bound.messages_max, bound.bytes_max, name = HandlerName::delay()
    )]
    Full { messages: usize, bytes: usize, bound: DelayedBound },
    /// The host does not know yet how much is delayed, or will soon be gone.
    #[error("messages cannot be delayed now: {reason}")]
    NotNow { reason: String },
}

/// What is accepted, and how much of it the handler has not seen yet.
pub struct Delays {
    bound: DelayedBound,
    relay: Arc<Relay>,
    underway: Arc<Underway>,
    state: Mutex<State>,
    /// How much is delayed is known, since the handler has taken up what was there when the host started.
    known: AtomicBool,
    /// As the record said last, where other hosts work on the log.
    recorded: tokio::sync::Mutex<Option<(Instant, Amount)>>,
}

/// Whether the host's own handler is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody has delayed anything yet.
    #[default]
    Idle,
    /// It runs; what it had to take up when the host started is up to here.
    On { from: Offset },
    /// The host is stopping.
    Stopped,
}

/// Accepted, and not yet held back by the handler.
#[derive(Debug, Default)]
struct Underway(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    amount: Amount,
    /// What was in the log up to here when the host started was not accepted by it.
    from: Offset,
    /// Of that what found no room so far, which counts as well.
    without_room: HashSet<Offset>,
    /// Other hosts work on the log.
    is_shared: bool,
    /// There: what this host accepted and the record did not have yet; where it is, if that is known, and since when.
    accepted: VecDeque<(Option<Offset>, Instant, Amount)>,
}

/// Room for messages that are about to be appended; given back when it is dropped.
#[derive(Debug)]
pub struct Delaying {
    underway: Arc<Underway>,
    amount: Amount,
}

impl Default for Delays {
    fn default() -> Self {
        Self::new(DelayedBound::default())
    }
}

impl Delays {
    pub fn new(bound: DelayedBound) -> Self {
        let underway = Arc::<Underway>::default();
        let relay = Arc::new(Relay { underway: underway.clone() });
        let recorded = tokio::sync::Mutex::default();
        Self { bound, relay, underway, state: Mutex::default(), known: AtomicBool::default(), recorded }
    }

    /// The code of the host's own handler.
    pub fn relay(&self) -> Arc<dyn Invoke> {
        self.relay.clone()
    }

    /// How its messages are treated.
    pub fn policy(&self) -> Policy {
        let DelayedBound { messages_max, bytes_max } = self.bound;
        Policy {
            // An id that comes again is for those to tell who get the message, and one that was cancelled may come again.
            dedup: None,
            retry: RETRY,
            // One that finds no room holds nobody up.
            on_failure: OnFailure::Skip,
            breaker: None,
            // Its letters are messages of others, that nobody else has: only the share of bytes that all dead letters have
            // lets the oldest go.
            dead: DeadBox { letters_max: u64::MAX >> 1, full: DeadFull::DropOldest },
            // Room for what publishers were promised, though it is counted a little late.
            delayed: DelayedBound {
                messages_max: messages_max.saturating_mul(2),
                bytes_max: bytes_max.saturating_mul(2),
            },
            ..Policy::default()
        }
    }

    /// Whether the host's own handler is to run.
    pub fn is_on(&self) -> bool {
        matches!(*self.state(), State::On { .. })
    }

    /// From now on it runs. What it has to try before anything more is accepted is up to `from`. False: it was to run
    /// already.
    pub fn begin(&self, from: Offset) -> bool {
        let mut state = self.state();
        let is_first = *state == State::Idle;
        if is_first {
            self.underway.lock().from = from;
            *state = State::On { from };
        }
        is_first
    }

    /// It could not begin.
    pub fn undo_begin(&self) {
        let mut state = self.state();
        if *state != State::Stopped {
            *state = State::Idle;
        }
    }

    /// Nothing more is accepted.
    pub fn stop(&self) {
        *self.state() = State::Stopped;
    }

    pub fn is_stopped(&self) -> bool {
        *self.state() == State::Stopped
    }

    /// How far the handler must be before it is known how much is delayed; `None`: it is known.
    pub fn uncounted(&self) -> Option<Offset> {
        match *self.state() {
            // What the record says is known at once.
            _ if self.is_shared() => None,
            State::On { from } if from > Offset::START && !self.known.load(Ordering::Acquire) => Some(from),
            _ => None,
        }
    }

    /// The handler is so far.
    pub fn counted(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// Other hosts work on the log too: what is delayed is counted from its record.
    pub fn share(&self) {
        self.underway.lock().is_shared = true;
    }

    pub fn is_shared(&self) -> bool {
        self.underway.lock().is_shared
    }

    /// What the handler holds, on whatever host it is, as its record says.
    pub async fn recorded(&self, log: &dyn Log) -> Result<Amount, LogError> {
        let mut recorded = self.recorded.lock().await;
        let now = clock::instant();
        if let Some((_, amount)) = recorded.filter(|(at, _)| now.saturating_duration_since(*at) < COUNTED_FOR) {
            return Ok(amount);
        }
        let shard = ShardId { handler: HandlerName::delay(), index: 0 };
        // First, so that what was taken up by then is among what is held.
        let read = log.status().await?.into_iter().find(|status| status.shard == shard).map(|status| status.read);
        let query = DelayedQuery {
            handler: shard.handler,
            filter: DelayedFilter::default(),
            after: None,
            delayed_max: usize::MAX,
        };
        let held = log.delayed(query).await?;
        let bytes = held.iter().map(|facts| usize::try_from(facts.bytes).unwrap_or(usize::MAX)).sum();
        let amount = Amount { messages: held.len(), bytes };
        self.underway.lock().recorded_upto(read.unwrap_or(Offset::START), now);
        *recorded = Some((now, amount));
        Ok(amount)
    }

    /// Room for so many messages more, beside those that are `held`.
    pub fn reserve(&self, more: Amount, held: Amount) -> Result<Delaying, NoDelay> {
        let not_now = |reason: &str| Err(NoDelay::NotNow { reason: reason.into() });
        match *self.state() {
            State::On { .. } => {}
            State::Stopped => return not_now("the host is stopping"),
            State::Idle => return not_now("the host is starting: try again"),
        }
        if self.uncounted().is_some() {
            return not_now("the host still counts what was delayed before it started: try again");
        }
        let mut waiting = self.underway.lock();
        let underway = &mut waiting.amount;
        let messages = held.messages.saturating_add(underway.messages);
        let bytes = held.bytes.saturating_add(underway.bytes);
        let bound = self.bound;
        if messages.saturating_add(more.messages) > bound.messages_max
            || bytes.saturating_add(more.bytes) > bound.bytes_max
        {
            return Err(NoDelay::Full { messages, bytes, bound });
        }
        underway.messages += more.messages;
        underway.bytes += more.bytes;
        Ok(Delaying { underway: self.underway.clone(), amount: more })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Underway {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn less(&self, by: Amount) {
        self.lock().less(by);
    }
}

impl Waiting {
    /// The message at this offset was tried. One without room goes on counting until it has some.
    fn tried(&mut self, offset: Offset, amount: Amount, has_room: bool) {
        if self.is_shared {
            return;
        }
        let was_here = offset <= self.from;
        if !has_room {
            if was_here && self.without_room.insert(offset) {
                self.amount.messages += amount.messages;
                self.amount.bytes += amount.bytes;
            }
        } else if !was_here || self.without_room.remove(&offset) {
            self.less(amount);
        }
    }

    /// The record says what became of all up to here.
    fn recorded_upto(&mut self, read: Offset, now: Instant) {
        let is_recorded = |(at, since, _): &(Option<Offset>, Instant, Amount)| match at {
            Some(offset) => *offset <= read,
            None => now.saturating_duration_since(*since) >= DOUBTED_FOR,
        };
        let (recorded, left) = std::mem::take(&mut self.accepted).into_iter().partition(is_recorded);
        self.accepted = left;
        let recorded: VecDeque<(Option<Offset>, Instant, Amount)> = recorded;
        recorded.into_iter().for_each(|(_, _, amount)| self.less(amount));
    }

    /// Less by so much. Never below nothing: a run that is repeated takes its message twice.
    fn less(&mut self, by: Amount) {
        self.amount.messages = self.amount.messages.saturating_sub(by.messages);
        self.amount.bytes = self.amount.bytes.saturating_sub(by.bytes);
    }
}

impl Delaying {
    /// What became of the append: unless the log took nothing, the handler will see the messages. Where nobody knows they
    /// count all the same: rather a publisher is refused than the bound broken.
    pub fn settle(mut self, appended: &Result<Vec<Offset>, LogError>) {
        let last = match appended {
            Ok(offsets) => offsets.last().copied(),
            Err(LogError::Unknown { .. }) => None,
            Err(_) => return,
        };
        let amount = std::mem::take(&mut self.amount);
        let mut underway = self.underway.lock();
        if underway.is_shared {
            underway.accepted.push_back((last, clock::instant(), amount));
        }
    }
}

impl Drop for Delaying {
    fn drop(&mut self) {
        self.underway.less(self.amount);
    }
}

/// Publishes what a delayed message will be when it is due.
struct Relay {
    underway: Arc<Underway>,
}

impl Invoke for Relay {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let result = relay(&call, clock::steady()).and_then(|(output, has_room)| {
            let amount = Amount { messages: 1, bytes: output.bytes() };
            self.underway.lock().tried(call.message.offset, amount, has_room);
            match has_room {
                true => Ok(Effects { outputs: vec![output], ..Effects::default() }),
                false => Err(Failure::Full { reason: DELAYED_FULL.into() }),
            }
        });
        Box::pin(std::future::ready(result))
    }

    fn uses_state(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

/// What is published, and whether there is room for it.
fn relay(call: &Call, now: Timestamp) -> Result<(Outgoing, bool), Failure> {
    let message = &call.message;
    let (topic, headers, delay) = reserved::undelayed(message)
        .ok_or_else(|| Failure::Reject { reason: "this is no message that a publisher delayed".into() })?;
    let (key, id, body) = (message.key.clone(), message.id.clone(), message.body.clone());
    let mut output = Outgoing { topic, key, id, headers, body, delay: Some(delay) };
    let fits = call.delayed_room.without(output.bytes()).is_some();
    let is_due = message.time.after(delay) <= now;
    // While there is room also what is due is held, so that it does not overtake what is held for a moment more.
    if !fits && is_due {
        output.delay = None;
    }
    Ok((output, fits || is_due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoke::DelayedRoom;
    use crate::message::{Headers, Key, Message, NewMessage};
    use crate::topic::Topic;

    const ONE: Amount = Amount { messages: 1, bytes: 10 };

    fn delays() -> Delays {
        let delays = Delays::new(DelayedBound { messages_max: 3, bytes_max: 1000 });
        delays.begin(Offset::START);
        delays
    }

    fn call(room: DelayedRoom) -> Call {
        let headers = Headers::new(vec![("tenant".into(), "shop".into())]);
        let key = Key::parse("ada").unwrap();
        let id = Some("i".into());
        let new = NewMessage { key, id, headers, ..NewMessage::new(Topic::parse("late").unwrap(), "body") };
        let held = reserved::delayed(new, Duration::from_secs(5));
        let message = Arc::new(Message::from_new(held, Offset(1), Timestamp(1000)));
        Call { key: message.key.clone(), message, attempt: 1, state: Default::default(), delayed_room: room }
    }

    #[test]
    fn a_delayed_message_is_published_as_it_was_with_the_delay_it_was_given() {
        let (output, _) = relay(&call(DelayedRoom::ANY), Timestamp(9000)).unwrap();
        assert_eq!((output.topic.as_str(), output.delay), ("late", Some(Duration::from_secs(5))));
        assert_eq!((output.key.as_ref().map(Key::as_str), output.id.as_deref()), (Some("ada"), Some("i")));
        assert_eq!((output.headers.get("tenant"), &output.body[..]), (Some("shop"), &b"body"[..]));
        assert_eq!(output.headers.iter().count(), 1);
    }

    #[test]
    fn what_is_due_needs_no_room() {
        let full = DelayedRoom { messages: 0, bytes: 0 };
        let delay = |now| {
            let (output, has_room) = relay(&call(full), Timestamp(now)).unwrap();
            (output.delay, has_room)
        };
        assert_eq!((delay(5999), delay(6000)), ((Some(Duration::from_secs(5)), false), (None, true)));
    }

    #[test]
    fn a_message_that_nobody_delayed_is_rejected() {
        let mut call = call(DelayedRoom::ANY);
        let new = NewMessage::new(Topic::parse("late").unwrap(), "body");
        call.message = Arc::new(Message::from_new(new, Offset(1), Timestamp(0)));
        assert!(matches!(relay(&call, Timestamp(0)), Err(Failure::Reject { .. })));
    }

    #[test]
    fn what_is_held_and_what_is_on_its_way_are_bounded_together() {
        let delays = delays();
        let first = delays.reserve(ONE, ONE).unwrap();
        let second = delays.reserve(ONE, ONE).unwrap();
        let full = delays.reserve(ONE, ONE).unwrap_err();
        assert!(full.to_string().starts_with("3 messages with 30 bytes are delayed"), "{full}");
        // One was not appended after all, the other was.
        drop(first);
        second.settle(&Ok(vec![Offset(1)]));
        delays.reserve(ONE, ONE).unwrap().settle(&Ok(vec![Offset(1)]));
        assert!(delays.reserve(ONE, ONE).is_err());
        // The handler has seen one of the two, and it is due already.
        delays.underway.less(ONE);
        assert!(delays.reserve(ONE, ONE).is_ok());
        let large = Amount { messages: 1, bytes: 1000 };
        assert!(matches!(delays.reserve(large, ONE), Err(NoDelay::Full { .. })));
    }

    #[test]
    fn an_append_that_perhaps_succeeded_keeps_its_room() {
        let delays = delays();
        let reason = || "why".to_owned();
        let (unknown, none) = (LogError::Unknown { reason: reason() }, LogError::Full { reason: reason() });
        delays.reserve(ONE, ONE).unwrap().settle(&Err(unknown));
        delays.reserve(ONE, ONE).unwrap().settle(&Err(none));
        delays.reserve(ONE, ONE).unwrap().settle(&Ok(vec![Offset(1)]));
        assert!(delays.reserve(ONE, ONE).is_err());
    }

    #[tokio::test]
    async fn what_finds_no_room_counts_once_until_it_has_some() {
        let delays = delays();
        let bytes = relay(&call(DelayedRoom::ANY), Timestamp(0)).unwrap().0.bytes();
        let counted = || delays.underway.lock().amount;
        let full = DelayedRoom { messages: 0, bytes: 0 };
        let far = || Call {
            message: Arc::new(Message { time: clock::steady(), ..(*call(full).message).clone() }),
            ..call(full)
        };
        let one = Amount { messages: 1, bytes };
        delays.reserve(one, Amount::default()).unwrap().settle(&Ok(vec![Offset(1)]));
        for _ in 0..2 {
            assert!(matches!(delays.relay().call(far()).await, Err(Failure::Full { .. })));
            assert_eq!(counted(), one, "it was accepted");
        }
        delays.relay().call(Call { delayed_room: DelayedRoom::ANY, ..far() }).await.unwrap();
        assert_eq!(counted(), Amount::default());
        // One that was there when the host started was not accepted by it.
        delays.underway.lock().from = Offset(1);
        for _ in 0..2 {
            assert!(delays.relay().call(far()).await.is_err());
            assert_eq!(counted(), one);
        }
        for _ in 0..2 {
            delays.relay().call(Call { delayed_room: DelayedRoom::ANY, ..far() }).await.unwrap();
            assert_eq!(counted(), Amount::default());
        }
    }

    #[test]
    fn nothing_is_accepted_before_what_was_delayed_earlier_is_counted_nor_at_stop() {
        let delays = Delays::default();
        let reserve = || delays.reserve(ONE, Amount::default()).map(drop).map_err(|no| no.to_string());
        assert!(reserve().unwrap_err().contains("is starting"));
        delays.begin(Offset(7));
        assert_eq!(delays.uncounted(), Some(Offset(7)));
        assert!(reserve().unwrap_err().contains("still counts"));
        delays.counted();
        assert_eq!((delays.uncounted(), reserve()), (None, Ok(())));
        delays.stop();
        delays.undo_begin();
        assert!(reserve().unwrap_err().contains("is stopping"));
    }

    #[test]
    fn delays_have_a_unit_and_a_bound() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!((parse("0s"), parse("30d")), (Ok(Duration::ZERO), Ok(DELAY_MAX)));
        assert_eq!(parse("30"), Err("`30` has no unit: write `30s` or `30ms`".into()));
        assert_eq!(parse("30d1ms"), Err("`30d1ms` is more than 30d, the longest delay".into()));
        assert!(parse("soon").unwrap_err().contains("write whole numbers with the units"));
    }
}
