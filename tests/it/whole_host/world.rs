//! What an onlooker saw who misses nothing: `retain` deletes in the log what is kept here.

use crate::checker::{self, History, Life};
use crate::harness::{after, counts, dead_letters};
use sluicebox::handler::{HandlerName, OnFailure, Policy};
use sluicebox::log::Log;
use sluicebox::message::{Key, Message, Offset};
use sluicebox::routing::{Routing, Span};
use sluicebox::topic::Pattern;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

#[derive(Default)]
pub struct World(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    archive: BTreeMap<Offset, Arc<Message>>,
    removed: BTreeSet<(HandlerName, Offset)>,
    /// Those of commits of which nobody said what came of them.
    perhaps_removed: BTreeSet<(HandlerName, Offset)>,
    cancelled: BTreeSet<(HandlerName, Offset)>,
    lives: BTreeMap<HandlerName, Life>,
    /// Every subscription that ever held: the log forgets those that no shard needs.
    spans: BTreeMap<HandlerName, BTreeMap<Offset, Vec<Pattern>>>,
}

impl World {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// How many messages there ever were.
    pub fn story(&self) -> usize {
        self.seen().archive.len()
    }

    pub fn messages(&self) -> Vec<Arc<Message>> {
        self.seen().archive.values().cloned().collect()
    }

    /// Keeps what the log holds now.
    pub async fn keep(&self, log: &dyn Log) {
        let last = self.seen().archive.keys().next_back().copied().unwrap_or(Offset::START);
        let (messages, _) = after(log, last).await;
        self.archive(&messages);
    }

    pub fn archive(&self, messages: &[Arc<Message>]) {
        self.seen().archive.extend(messages.iter().map(|message| (message.offset, message.clone())));
    }

    pub fn routed(&self, routings: &[Routing]) {
        let spans = &mut self.seen().spans;
        for routing in routings {
            let known = spans.entry(routing.handler.clone()).or_default();
            known.extend(routing.spans.iter().map(|span| (span.after, span.subscribe.clone())));
        }
    }

    /// For whoever looks for the reason.
    pub fn known(&self) -> String {
        let seen = self.seen();
        let lives = seen.lives.iter().map(|(name, life)| format!("{name} born {} from {}", life.born, life.earliest));
        let (lives, spans) = (lives.collect::<Vec<_>>(), &seen.spans);
        format!("{lives:?}, {spans:?}, removed {:?}, perhaps {:?}", seen.removed, seen.perhaps_removed)
    }

    /// A routing with every subscription that ever held.
    fn whole(&self, routing: Routing) -> Routing {
        let span = |(after, subscribe): (&Offset, &Vec<Pattern>)| Span { after: *after, subscribe: subscribe.clone() };
        Routing { spans: self.seen().spans[&routing.handler].iter().map(span).collect(), ..routing }
    }

    pub fn removed(&self, handler: &HandlerName, offsets: Vec<Offset>) {
        self.seen().removed.extend(offsets.into_iter().map(|offset| (handler.clone(), offset)));
    }

    pub fn perhaps_removed(&self, handler: &HandlerName, offsets: Vec<Offset>) {
        self.seen().perhaps_removed.extend(offsets.into_iter().map(|offset| (handler.clone(), offset)));
    }

    /// The delayed message of this input may never come.
    pub fn cancelled(&self, handler: &HandlerName, source: Offset) {
        self.seen().cancelled.insert((handler.clone(), source));
    }

    /// A handler was forgotten: what it did is no longer its own, and it begins with the oldest message that is there.
    pub async fn forgotten(&self, handler: &HandlerName, log: &dyn Log) {
        let (messages, _) = after(log, Offset::START).await;
        let mut seen = self.seen();
        let born = seen.archive.keys().next_back().copied().unwrap_or(Offset::START);
        let earliest = messages.first().map_or(born, |message| message.offset);
        seen.lives.insert(handler.clone(), Life { born, earliest });
        seen.spans.remove(handler);
        let others = |(of, _): &(HandlerName, Offset)| of != handler;
        seen.removed.retain(others);
        seen.perhaps_removed.retain(others);
        seen.cancelled.retain(others);
    }

    /// What is in the log now and what was there before, for the checker.
    pub async fn history(&self, log: &dyn Log, keys: &[Key], policy: impl Fn(&HandlerName) -> Policy) -> History {
        let mut handlers = vec![];
        for routing in log.routings().await.unwrap().routings {
            let policy = policy(&routing.handler);
            let life = self.seen().lives.get(&routing.handler).copied().unwrap_or_default();
            handlers.push(checker::Handler {
                state: counts(log, &routing, keys).await,
                output: format!("out.{}", routing.handler),
                ordered: policy.on_failure == OnFailure::Park,
                life,
                routing: self.whole(routing),
                policy,
            });
        }
        let (messages, dead) = (self.messages(), dead_letters(log).await);
        let seen = self.seen();
        let (mut removed, cancelled) = (seen.removed.clone(), seen.cancelled.clone());
        let is_there = |(of, offset): &(HandlerName, Offset)| {
            dead.iter().any(|letter| letter.shard.handler == *of && letter.message.offset == *offset)
        };
        removed.extend(seen.perhaps_removed.iter().filter(|letter| !is_there(letter)).cloned());
        History { messages, dead, handlers, removed, cancelled, ..History::default() }
    }
}
