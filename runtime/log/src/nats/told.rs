//! What a client tells of its connection beside messages: that it was made, and what the server does not permit.
//!
//! Who may not publish gets no answer; the server says so by itself, and the client tells it through a queue of events, beside
//! the queues of messages. So that nothing was refused is known only once all that the server said by then was taken out of
//! that queue. That is what echoes are for: messages to a subscription that nobody reads. Each of them after the first finds it
//! full, which the client tells through the same queue, in its order.

use async_nats::{Event, ServerError};
use std::collections::VecDeque;
use tokio::sync::watch;

/// Events that a client keeps while they are not taken out; it drops others without a word.
const QUEUED_MAX: u64 = 128;
/// So begins what is not permitted; the subject follows.
const VIOLATION: &str = "permissions violation";
const OF_PUBLISH: &str = "permissions violation for publish to ";
const OF_SUBSCRIPTION: &str = "permissions violation for subscription";

/// Whether it says that something is not permitted.
pub(super) fn is_denied(reason: &str) -> bool {
    reason.to_ascii_lowercase().contains(VIOLATION)
}

/// Hears what the client tells.
pub(super) struct Teller {
    made: watch::Sender<u64>,
    denied: watch::Sender<Option<String>>,
    subscriptions: watch::Sender<u64>,
    refusals: watch::Sender<Refusals>,
}

/// What was told.
#[derive(Clone)]
pub(super) struct Told {
    /// How often the connection was made.
    pub(super) made: watch::Receiver<u64>,
    /// What the server did not permit last. It answers such a request with nothing else.
    pub(super) denied: watch::Receiver<Option<String>>,
    /// How many subscriptions it did not permit, or ended.
    pub(super) subscriptions: watch::Receiver<u64>,
    pub(super) refusals: watch::Receiver<Refusals>,
}

pub(super) fn channel() -> (Teller, Told) {
    let (made, of_made) = watch::channel(0);
    let (denied, of_denied) = watch::channel(None);
    let (subscriptions, of_subscriptions) = watch::channel(0);
    let (refusals, of_refusals) = watch::channel(Refusals::default());
    let told = Told { made: of_made, denied: of_denied, subscriptions: of_subscriptions, refusals: of_refusals };
    (Teller { made, denied, subscriptions, refusals }, told)
}

impl Teller {
    pub(super) fn hear(&self, event: &Event) {
        if matches!(event, Event::Connected) {
            self.made.send_modify(|made| *made += 1);
        }
        let reason = match event {
            Event::ServerError(ServerError::Other(reason)) => reason.as_str(),
            _ => "",
        };
        let lower = reason.to_ascii_lowercase();
        self.refusals.send_modify(|refusals| refusals.hear(event, reason, &lower));
        if lower.contains(OF_SUBSCRIPTION) {
            self.subscriptions.send_modify(|count| *count += 1);
        }
        if lower.contains(VIOLATION) {
            self.denied.send_replace(Some(reason.to_owned()));
        }
    }
}

/// What was published and not permitted.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Events up to now.
    events: u64,
    /// Echoes that came back, but for the first.
    echoes: u64,
    /// The last ones: which event, and the subject where it was said.
    last: VecDeque<(u64, Option<String>)>,
}

impl Refusals {
    fn hear(&mut self, event: &Event, reason: &str, lower: &str) {
        self.events += 1;
        if matches!(event, Event::SlowConsumer(_)) {
            self.echoes += 1;
        }
        if !lower.contains(VIOLATION) || lower.contains(OF_SUBSCRIPTION) {
            return;
        }
        if self.last.len() as u64 == QUEUED_MAX {
            self.last.pop_front();
        }
        self.last.push_back((self.events, subject(reason, lower)));
    }

    /// A place among the events; what is published after it is told after it.
    pub(super) fn place(&self) -> u64 {
        self.events
    }

    pub(super) fn echoes(&self) -> u64 {
        self.echoes
    }

    /// Whether it was said that something was refused that was published on the subject after this place.
    pub(super) fn holds(&self, subject: &str, after: u64) -> bool {
        self.since(after).any(|of| of.as_deref() == Some(subject))
    }

    /// Whether something may have been refused that was published after this place, without a word of where.
    pub(super) fn may_miss(&self, after: u64) -> bool {
        // With so many of them some may have been dropped.
        self.events - after >= QUEUED_MAX || self.since(after).any(Option::is_none)
    }

    fn since(&self, after: u64) -> impl Iterator<Item = &Option<String>> {
        self.last.iter().rev().take_while(move |(at, _)| *at > after).map(|(_, of)| of)
    }
}

/// The subject to which nothing may be published.
fn subject(reason: &str, lower: &str) -> Option<String> {
    let at = lower.find(OF_PUBLISH)? + OF_PUBLISH.len();
    let quoted = reason.get(at..)?.trim().strip_prefix('"')?;
    Some(quoted.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denies(subject: &str) -> Event {
        Event::ServerError(ServerError::Other(format!("Permissions Violation for Publish to \"{subject}\"")))
    }

    #[test]
    fn a_refusal_is_of_its_subject_and_of_what_was_published_before_it_was_told() {
        let (teller, told) = channel();
        teller.hear(&denies("out.a"));
        let place = told.refusals.borrow().place();
        teller.hear(&denies("out.b"));
        let refusals = told.refusals.borrow();
        assert!(refusals.holds("out.a", 0) && refusals.holds("out.b", place));
        assert!(!refusals.holds("out.a", place) && !refusals.holds("out.c", 0) && !refusals.may_miss(0));
    }

    #[test]
    fn where_refusals_may_have_been_dropped_nothing_is_believed() {
        let (teller, told) = channel();
        for _ in 0..QUEUED_MAX - 1 {
            teller.hear(&denies("out.a"));
        }
        assert!(!told.refusals.borrow().may_miss(0));
        teller.hear(&denies("out.a"));
        assert!(told.refusals.borrow().may_miss(0) && !told.refusals.borrow().may_miss(1));
    }

    #[test]
    fn a_refusal_without_a_subject_may_be_of_any() {
        let (teller, told) = channel();
        teller.hear(&Event::ServerError(ServerError::Other("Permissions Violation".into())));
        assert!(told.refusals.borrow().may_miss(0));
        let place = told.refusals.borrow().place();
        let sub = "Permissions Violation for Subscription to \"_INBOX.x\"";
        teller.hear(&Event::ServerError(ServerError::Other(sub.into())));
        assert!(!told.refusals.borrow().may_miss(place));
        assert_eq!((*told.subscriptions.borrow(), told.denied.borrow().as_deref()), (1, Some(sub)));
    }
}
