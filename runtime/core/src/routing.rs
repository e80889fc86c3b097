//! Routing: which messages a handler gets, under which key and id, on which shard. Recorded in the log.
//!
//! Pure functions of message and routing: the same message always goes to the same lane, on every host and after every
//! restart. A changed subscription holds from a recorded offset on, messages below it are routed under the old one.

mod extract;
mod id;
pub mod reconcile;
pub mod reserved;
mod router;

pub use self::id::Id;
pub use self::router::{Router, Routes};

use crate::clock::Timestamp;
use crate::commit::Deaths;
use crate::handler::HandlerName;
use crate::message::{IdHash, Key, Message, Offset, WorkId};
use crate::topic::{Pattern, Topic};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Where a key or id is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Field {
    /// A JSON pointer (RFC 6901) into the body.
    Pointer(String),
    /// A header by name, ASCII case ignored.
    Header(String),
    /// A token of the topic, counted from 1.
    TopicToken(usize),
}

/// How a handler's messages get their key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFrom {
    /// The key the publisher gave; a message without one stands alone and has no state.
    Message,
    /// The first field that yields. When none does the message is a dead letter.
    Fields(Vec<Field>),
    /// Every message in one lane.
    All,
    /// No order and no state.
    None,
}

/// How a handler's messages get their dedup identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdFrom {
    /// The id the publisher gave.
    Message,
    /// The first field that yields; otherwise it has no id.
    Fields(Vec<Field>),
}

/// A subscription and the offset from which it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// It holds for messages with a greater offset, up to the next span's.
    pub after: Offset,
    /// Empty: the handler was removed there.
    pub subscribe: Vec<Pattern>,
}

/// The place from which on a rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// For messages with a greater offset.
    pub after: Offset,
    /// The time of the log there: what is later has a greater offset.
    pub time: Timestamp,
}

/// The routing of one handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    pub handler: HandlerName,
    pub key: KeyFrom,
    pub id: IdFrom,
    /// At least 1.
    pub shards: u16,
    /// The log's end when it was recorded: what returned to an earlier handler of its name is not this one's.
    pub recorded: Offset,
    /// From here on the id decides the shard of a message without a key, and a mark is of key and id together. Later than
    /// the start only where an earlier version wrote the log: what that one took up stays where it is.
    pub identity: Since,
    /// Ascending by `after`; never empty. Messages at or below the first `after` are not the handler's.
    pub spans: Vec<Span>,
}

/// A message and where it belongs under one handler's routing.
#[derive(Clone, Debug)]
pub struct Routed {
    pub message: Arc<Message>,
    /// Hash of the key; where the message stands alone, of its id, or of its offset when it has none: the shard follows
    /// from it, and the lane.
    pub hash: u64,
    /// `None`: the message stands alone and sees no state.
    pub key: Option<Key>,
    /// Hashed by who takes the message up, not by who routes it: that is one for all handlers.
    pub id: Option<Id>,
    /// It cannot be handled: a dead letter without a run.
    pub unroutable: Option<Unroutable>,
    /// What became of it before an operator sent it back.
    pub deaths: Option<Box<Deaths>>,
}

/// Why a message is dead before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unroutable {
    /// The `kind` of the dead letter.
    pub kind: &'static str,
    pub error: String,
}

impl Routed {
    /// What names it inside its shard.
    pub fn work(&self) -> WorkId {
        self.message.offset.into()
    }

    /// The shard it belongs to.
    pub fn shard(&self, shards: u16) -> u16 {
        shard_of(self.hash, shards)
    }

    /// Its id, as it is told duplicates by; `None`: it has no id.
    pub fn id_text(&self) -> Option<Cow<'_, str>> {
        self.id.as_ref().map(|id| id.text(&self.message))
    }

    /// The hash of its key and id; `None`: it has no id.
    pub fn id_hash(&self) -> Option<IdHash> {
        self.id.as_ref().map(|id| id.hash(&self.message, self.key.as_ref()))
    }

    /// The hash of its id alone, as marks of earlier versions have it.
    pub fn id_alone_hash(&self) -> Option<IdHash> {
        self.id.as_ref().map(|id| id.hash_alone(&self.message))
    }

    /// Hashes its key and id, once for all who ask later.
    pub fn hash_id(&mut self) {
        if let Some(id) = &mut self.id {
            id.remember_hash(&self.message, self.key.as_ref());
        }
    }
}

/// Says which messages a handler gets. It remembers the answer about the last topic, since neighbours mostly have one.
pub struct Subscriber<'r> {
    routing: &'r Routing,
    last: Option<(Topic, bool)>,
}

impl Subscriber<'_> {
    pub fn wants(&mut self, message: &Message) -> bool {
        // Elsewhere the answer depends on the offset too.
        let [span] = &self.routing.spans[..] else { return self.routing.subscribes(message) };
        if message.offset <= span.after || message.topic.is_reserved() {
            return self.routing.subscribes(message);
        }
        match &self.last {
            Some((topic, wants)) if *topic == message.topic => *wants,
            _ => {
                let wants = self.routing.subscribes(message);
                self.last = Some((message.topic.clone(), wants));
                wants
            }
        }
    }
}

impl Routing {
    /// Whether the handler gets messages with this offset and topic.
    pub fn subscribes(&self, message: &Message) -> bool {
        let Some(span) = self.spans.iter().rev().find(|span| span.after < message.offset) else { return false };
        if message.topic.is_reserved() {
            // Dead letters that return to this handler; nothing else of the host's own is a handler's business, but the
            // host's own handler's.
            let is_own = self.handler.is_reserved() && span.subscribe.iter().any(|own| own.matches(&message.topic));
            let is_retry = !span.subscribe.is_empty() && message.offset > self.recorded;
            return is_own || (is_retry && self.is_own_retry(&message.topic));
        }
        span.subscribe.iter().any(|pattern| pattern.matches(&message.topic))
    }

    /// As [`Routing::subscribes`], for many messages.
    pub fn subscriber(&self) -> Subscriber<'_> {
        Subscriber { routing: self, last: None }
    }

    /// A change of the subscription has begun: the place from which on it holds is not known yet, and nothing is handled
    /// until it is.
    pub fn is_changing(&self) -> bool {
        self.spans.last().is_some_and(|span| span.after == Offset::END)
    }

    /// Every pattern that any message after `after` may match: what a catch-up read asks for.
    pub fn patterns_after(&self, after: Offset) -> Vec<Pattern> {
        let first = self.spans.iter().rposition(|span| span.after <= after).unwrap_or(0);
        let mut patterns: Vec<Pattern> =
            self.spans[first..].iter().flat_map(|span| span.subscribe.iter().cloned()).collect();
        if !patterns.is_empty() {
            patterns.push(Pattern::from(&reserved::retry_topic(&self.handler)));
        }
        patterns.sort();
        patterns.dedup();
        patterns
    }

    fn is_own_retry(&self, topic: &Topic) -> bool {
        let name = topic.as_str().strip_prefix(reserved::RETRY_TOKEN).and_then(|rest| rest.strip_prefix('.'));
        name == Some(self.handler.as_str())
    }

    /// Where the handler's first message may be: a new shard's `read`.
    pub fn start(&self) -> Offset {
        self.spans.first().map_or(Offset::START, |span| span.after)
    }

    /// Key, id and lane of one message. Who routes many has a [`Router`].
    pub fn route(&self, message: &Arc<Message>) -> Routed {
        Router::new([self]).message(message).to(0)
    }

    /// The shard of a key: the one place that says so.
    pub fn shard_of(&self, key: &Key) -> u16 {
        shard_of(Self::lane_hash(Some(key), Offset::START), self.shards)
    }

    /// The hash of a key, or of the offset of a message that stands alone without an id.
    pub fn lane_hash(key: Option<&Key>, offset: Offset) -> u64 {
        match key {
            Some(key) => xxhash_rust::xxh3::xxh3_64(key.as_str().as_bytes()),
            None => xxhash_rust::xxh3::xxh3_64(&offset.0.to_le_bytes()),
        }
    }
}

/// The shard of a lane.
fn shard_of(hash: u64, shards: u16) -> u16 {
    u16::try_from(hash % u64::from(shards.max(1))).expect("a remainder is less than a u16")
}

fn describe<'f>(fields: impl IntoIterator<Item = &'f Field>) -> String {
    let names: Vec<String> = fields
        .into_iter()
        .map(|field| match field {
            Field::Pointer(pointer) => format!("`{pointer}`"),
            Field::Header(name) => format!("header `{name}`"),
            Field::TopicToken(number) => format!("topic token {number}"),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::NewMessage;

    fn routing(key: KeyFrom) -> Routing {
        Routing {
            handler: HandlerName::parse("h").unwrap(),
            key,
            id: IdFrom::Fields(vec![Field::Pointer("/id".into())]),
            shards: 8,
            recorded: Offset::START,
            identity: Since::default(),
            spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("events.*").unwrap()] }],
        }
    }

    fn message(body: &str) -> Arc<Message> {
        let new = NewMessage::new(Topic::parse("events.made").unwrap(), body.to_owned());
        Arc::new(Message::from_new(new, Offset(7), Timestamp(0)))
    }

    #[test]
    fn a_message_whose_key_setting_yields_nothing_is_unroutable_with_the_reason() {
        let routing = routing(KeyFrom::Fields(vec![Field::Pointer("/user".into())]));
        let error = |body| routing.route(&message(body)).unroutable.unwrap().error;
        assert!(error("{}").contains("none of `/user` yields"));
        assert!(error("{").contains("the body is not JSON: EOF"));
        assert!(error(&format!(r#"{{"user":"{}"}}"#, "x".repeat(257))).contains("257 bytes"));
        assert!(routing.route(&message(r#"{"user":1}"#)).unroutable.is_none());
    }

    #[test]
    fn a_key_has_the_shard_of_its_messages() {
        let routing = routing(KeyFrom::Fields(vec![Field::Pointer("/user".into())]));
        for user in ["ada", "ben", "cleo", "dan"] {
            let routed = routing.route(&message(&format!(r#"{{"user":"{user}"}}"#)));
            assert_eq!(routed.shard(routing.shards), routing.shard_of(&Key::parse(user).unwrap().unwrap()));
        }
    }

    #[test]
    fn the_shard_of_a_key_is_the_same_for_ever() {
        // As another implementation of the hash says. A log names shards by it, so it can never change.
        let shards = |shards| {
            let routing = Routing { shards, ..routing(KeyFrom::Message) };
            ["ada", "ben", "cleo", "dan", "*"].map(|key| routing.shard_of(&Key::parse(key).unwrap().unwrap()))
        };
        assert_eq!(shards(8), [7, 0, 7, 3, 5]);
        assert_eq!(shards(5), [4, 1, 1, 2, 1]);
    }

    #[test]
    fn an_id_is_told_as_it_was_found() {
        let routing = routing(KeyFrom::None);
        let routed = |body| routing.route(&message(body));
        assert_eq!(routed(r#"{"id":"a"}"#).id_text().as_deref(), Some("a"));
        // Not as it is written in the body.
        assert_eq!(routed(r#"{"id":"a\u0062"}"#).id_text().as_deref(), Some("ab"));
        assert_eq!(routed(r#"{"id":7}"#).id_text().as_deref(), Some("7"));
        assert_eq!(routed("{}").id_text(), None);
        assert_eq!(routed(r#"{"id":"a"}"#).id_alone_hash(), Some(IdHash::of_id_alone(b"a")));
        assert_eq!(routed("{}").id_alone_hash(), None);
    }

    #[test]
    fn a_subscription_changes_until_its_place_is_known() {
        let mut routing = routing(KeyFrom::None);
        assert!(!routing.is_changing());
        routing.spans.push(Span { after: Offset::END, subscribe: vec![] });
        assert!(routing.is_changing());
    }

    #[test]
    fn an_empty_id_is_no_id() {
        let routing = routing(KeyFrom::None);
        assert_eq!(routing.route(&message(r#"{"id":""}"#)).id_hash(), None);
        assert_eq!(routing.route(&message(r#"{"id":"a"}"#)).id_hash(), Some(IdHash::of(None, "a")));
    }

    #[test]
    fn the_same_id_under_another_key_is_another_id() {
        let routing = routing(KeyFrom::Fields(vec![Field::Pointer("/user".into())]));
        let hash = |user: &str| routing.route(&message(&format!(r#"{{"user":"{user}","id":"a"}}"#))).id_hash().unwrap();
        assert_eq!(hash("ada"), hash("ada"));
        assert_ne!(hash("ada"), hash("ben"));
    }

    #[test]
    fn without_a_key_the_id_decides_the_shard_and_without_both_the_offset() {
        let mut routing = routing(KeyFrom::None);
        let hash = |routing: &Routing, offset, body: &str| {
            let message = Message { offset: Offset(offset), ..(*message(body)).clone() };
            routing.route(&Arc::new(message)).hash
        };
        assert_eq!(hash(&routing, 7, r#"{"id":"a"}"#), hash(&routing, 8, r#"{"id":"a"}"#));
        assert_ne!(hash(&routing, 7, r#"{"id":"a"}"#), hash(&routing, 7, r#"{"id":"b"}"#));
        assert_ne!(hash(&routing, 7, "{}"), hash(&routing, 8, "{}"));
        // What an earlier version took up stays in the shard that has it.
        routing.identity.after = Offset(7);
        assert_eq!(hash(&routing, 7, r#"{"id":"a"}"#), hash(&routing, 7, "{}"));
        assert_ne!(hash(&routing, 8, r#"{"id":"a"}"#), hash(&routing, 8, "{}"));
    }

    #[test]
    fn what_returned_to_an_earlier_handler_of_the_name_is_not_this_ones() {
        let routing = Routing { recorded: Offset(7), ..routing(KeyFrom::None) };
        let at = |offset| {
            let new = NewMessage::new(reserved::retry_topic(&routing.handler), "");
            routing.subscribes(&Message::from_new(new, Offset(offset), Timestamp(0)))
        };
        assert!(!at(7) && at(8));
    }

    #[test]
    fn what_publishers_delay_goes_to_the_hosts_own_handler_alone() {
        let subscribe = vec![Pattern::from(&reserved::delayed_topic())];
        let own = Routing {
            handler: HandlerName::delay(),
            spans: vec![Span { after: Offset::START, subscribe }],
            ..routing(KeyFrom::Message)
        };
        // As a log might have it that somebody wrote by hand.
        let other = Routing { handler: HandlerName::parse("h").unwrap(), ..own.clone() };
        let new = NewMessage::new(reserved::delayed_topic(), "");
        let message = Message::from_new(new, Offset(1), Timestamp(0));
        assert!(own.subscribes(&message) && !other.subscribes(&message));
        assert!(!own.subscribes(&self::message("")));
    }

    #[test]
    fn a_changed_subscription_holds_from_its_offset_on() {
        let mut routing = routing(KeyFrom::None);
        routing.spans.push(Span { after: Offset(7), subscribe: vec![Pattern::parse("other").unwrap()] });
        let at = |offset, topic: &str| {
            let new = NewMessage::new(Topic::parse(topic).unwrap(), "");
            routing.subscribes(&Message::from_new(new, Offset(offset), Timestamp(0)))
        };
        assert!(at(7, "events.made") && !at(8, "events.made"));
        assert!(!at(7, "other") && at(8, "other"));
        // And one for dead letters that return.
        assert_eq!(routing.patterns_after(Offset(3)).len(), 3);
        assert_eq!(routing.patterns_after(Offset(7)).len(), 2);
    }

    #[test]
    fn the_answer_for_many_messages_is_that_for_each() {
        let one = routing(KeyFrom::None);
        let mut two = one.clone();
        two.spans.push(Span { after: Offset(7), subscribe: vec![Pattern::parse("other").unwrap()] });
        let own = reserved::retry_topic(&one.handler);
        let late = Routing { spans: vec![Span { after: Offset(20), ..one.spans[0].clone() }], ..one.clone() };
        let topics = ["events.made", "events.made", "other", own.as_str(), "events.made", "_retry.else", "other"];
        for routing in [one, two, late] {
            let mut subscriber = routing.subscriber();
            // Whoever is behind asks for what is before as well.
            for (offset, topic) in (0..28).chain(0..28).zip(topics.iter().cycle()) {
                let new = NewMessage::new(Topic::parse(topic).unwrap(), "");
                let message = Message::from_new(new, Offset(offset), Timestamp(0));
                assert_eq!(subscriber.wants(&message), routing.subscribes(&message), "{topic} at {offset}");
            }
        }
    }

    #[test]
    fn a_message_beyond_the_hop_limit_is_a_loop() {
        let mut looping = (*message("{}")).clone();
        looping.hops = crate::message::HOPS_MAX;
        assert_eq!(routing(KeyFrom::None).route(&Arc::new(looping.clone())).unroutable, None);
        looping.hops += 1;
        assert_eq!(routing(KeyFrom::None).route(&Arc::new(looping)).unroutable.unwrap().kind, "loop");
    }
}
