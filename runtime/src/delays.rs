//! Messages that publishers delay: the host's own handler for them, and the bound on them.
//!
//! A message with a delay is appended to a topic of the host's own, so it is durable like any other. The host's own handler
//! takes it up and publishes what is in it with the delay, which runs from when the log took it; so commit, cancelling,
//! clocks and restarts are those of what any handler delays. It has no module: [`Relay`] is native code. Where it runs, and
//! from when on, is the host's business.
//!
//! The bound is kept where publishers are: whoever would go beyond it is refused, and nothing of what was accepted has to
//! wait for room.

use crate::clock::{self, Timestamp};
use crate::config;
use crate::effects::{DELAY_MAX, Effects, Outgoing};
use crate::handler::{DelayedBound, Digest, HandlerName, OnFailure, Policy, Retry};
use crate::invoke::{Call, Failure, Invoke};
use crate::message::Offset;
use crate::routing::reserved;
use crate::shard::Amount;
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Waits of a message that found no room, which the bound on publishers leaves to accidents.
const RETRY: Retry = Retry { attempts: 8, min: Duration::from_secs(1), max: Duration::from_secs(5) };

/// A delay as people write it; none at all is a delay too. The error says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    let delay = config::duration(text)?;
    let days = DELAY_MAX.as_secs() / (24 * 3600);
    if delay > DELAY_MAX { Err(format!("`{text}` is more than {days}d, the longest delay")) } else { Ok(delay) }
}

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

/// Accepted, and not yet seen by the handler.
#[derive(Debug, Default)]
struct Underway(Mutex<Amount>);

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
        Self { bound, relay, underway, state: Mutex::default(), known: AtomicBool::default() }
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

    /// From now on it runs. What it has to take up before anything more is accepted is up to `from`.
    pub fn begin(&self, from: Offset) {
        let mut state = self.state();
        if *state == State::Idle {
            *state = State::On { from };
        }
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
            State::On { from } if from > Offset::START && !self.known.load(Ordering::Acquire) => Some(from),
            _ => None,
        }
    }

    /// The handler is so far.
    pub fn counted(&self) {
        self.known.store(true, Ordering::Release);
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
        let mut underway = self.underway.lock();
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
    fn lock(&self) -> MutexGuard<'_, Amount> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Less by so much. Never below nothing: a run that is repeated takes its message twice.
    fn less(&self, by: Amount) {
        let mut amount = self.lock();
        amount.messages = amount.messages.saturating_sub(by.messages);
        amount.bytes = amount.bytes.saturating_sub(by.bytes);
    }
}

impl Delaying {
    /// The messages are in the log: the handler will see them.
    pub fn appended(mut self) {
        self.amount = Amount::default();
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
        let result = relay(&call, clock::steady());
        if let Ok(effects) = &result {
            let bytes = effects.outputs.iter().map(Outgoing::bytes).sum();
            self.underway.less(Amount { messages: effects.outputs.len(), bytes });
        }
        Box::pin(std::future::ready(result))
    }

    fn uses_state(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

fn relay(call: &Call, now: Timestamp) -> Result<Effects, Failure> {
    let message = &call.message;
    let (topic, headers, delay) = reserved::undelayed(message)
        .ok_or_else(|| Failure::Reject { reason: "this is no message that a publisher delayed".into() })?;
    let (key, id, body) = (message.key.clone(), message.id.clone(), message.body.clone());
    let mut output = Outgoing { topic, key, id, headers, body, delay: Some(delay) };
    let fits = call.delayed_room.without(output.bytes()).is_some();
    // While there is room also what is due is held, so that it does not overtake what is held for a moment more.
    if !fits && message.time.after(delay) <= now {
        output.delay = None;
    }
    Ok(Effects { outputs: vec![output], ..Effects::default() })
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
        let effects = relay(&call(DelayedRoom::ANY), Timestamp(9000)).unwrap();
        let [output] = &effects.outputs[..] else { panic!("{effects:?}") };
        assert_eq!((output.topic.as_str(), output.delay), ("late", Some(Duration::from_secs(5))));
        assert_eq!((output.key.as_ref().map(Key::as_str), output.id.as_deref()), (Some("ada"), Some("i")));
        assert_eq!((output.headers.get("tenant"), &output.body[..]), (Some("shop"), &b"body"[..]));
        assert_eq!(output.headers.iter().count(), 1);
    }

    #[test]
    fn what_is_due_needs_no_room() {
        let full = DelayedRoom { messages: 0, bytes: 0 };
        let delay = |now| relay(&call(full), Timestamp(now)).unwrap().outputs[0].delay;
        assert_eq!((delay(5999), delay(6000)), (Some(Duration::from_secs(5)), None));
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
        second.appended();
        delays.reserve(ONE, ONE).unwrap().appended();
        assert!(delays.reserve(ONE, ONE).is_err());
        // The handler has seen one of the two, and it is due already.
        delays.underway.less(ONE);
        assert!(delays.reserve(ONE, ONE).is_ok());
        let large = Amount { messages: 1, bytes: 1000 };
        assert!(matches!(delays.reserve(large, ONE), Err(NoDelay::Full { .. })));
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
