//! A true history with one thing in it that is not: the checker must see each. It would be worthless otherwise.

use crate::checker::{self, Handler, History, own};
use serde_json::Value;
use sluicebox::commit::{DeadLetter, Deaths};
use sluicebox::handler::ShardId;
use sluicebox::message::{Message, Offset};
use std::collections::BTreeSet;
use std::sync::Arc;

/// `deleted` are the messages of the history that the log does not have any more.
pub fn check_each_is_caught(history: &History, deleted: &[Arc<Message>]) {
    let first = Truth::of(history, "first");
    let third = Truth::of(history, "third");
    let gone: BTreeSet<Offset> = deleted.iter().map(|message| message.offset).collect();

    for truth in [&first, &third] {
        let unkeyed =
            truth.find("an effect of a message without a key", |message| truth.is_effect_of_one_without_key(message));
        check("was lost", truth.without(&unkeyed));
        check("had its effect twice", truth.again(&unkeyed));

        let name = &truth.handler().routing.handler;
        let later = truth.find("a delayed message", |message| message.topic.as_str() == format!("later.{name}"));
        check("did not come", truth.without(&later));
        check("came twice", truth.again(&later));
        let first_of_its_key = truth.find("an effect with a key", |message| {
            message.topic.as_str() == truth.handler().output && message.key.is_some()
        });
        check("n went from", truth.without(&first_of_its_key));

        let returned =
            truth.find("a dead letter that returned", |message| message.topic.as_str() == format!("_retry.{name}"));
        check("came back twice", truth.again(&returned));
        check("did not come back", truth.as_if_it_was_retried());
        check("and its dead letter was kept", truth.as_if_nobody_removed(&returned));
        check("was given up and is not", truth.as_if_it_was_kept());
    }

    let mut ordered = third.0.clone();
    ordered.handlers[0].ordered = true;
    check("was handled after", ordered);

    // What is not there any more is as much a part of the promise as the rest.
    let unseen = first.find("an effect without a key of a message that was deleted", |message| {
        first.is_effect_of_one_without_key(message) && gone.contains(&source(message)) && gone.contains(&message.offset)
    });
    check("was lost", first.without(&unseen));
    let mut unsettled = first.0.clone();
    unsettled.dead.push(letter(first.handler(), deleted.last().expect("some are deleted"), "gone"));
    check("was deleted before it was settled", unsettled);
}

#[track_caller]
fn check(expected: &str, lie: History) {
    match checker::check(&lie) {
        Ok(()) => panic!("went unnoticed: {expected}"),
        Err(why) => assert!(why.contains(expected), "{why:?}, not {expected:?}"),
    }
}

/// The input that a fact is about.
fn source(fact: &Message) -> Offset {
    let fact: Value = serde_json::from_slice(&fact.body).unwrap();
    Offset(fact["source"].as_u64().unwrap())
}

fn letter(handler: &Handler, message: &Arc<Message>, kind: &str) -> DeadLetter {
    DeadLetter {
        shard: ShardId { handler: handler.routing.handler.clone(), index: 0 },
        message: message.clone(),
        key: message.key.clone(),
        attempts: 1,
        kind: kind.into(),
        error: "".into(),
        digest: None,
        time: message.time,
        identity: None,
        deaths: Deaths::first(message.offset, message.time),
    }
}

/// The history of one handler.
struct Truth(History);

impl Truth {
    fn of(history: &History, name: &str) -> Self {
        let handlers = history.handlers.iter().filter(|handler| handler.routing.handler.as_str() == name);
        let truth = History { handlers: handlers.cloned().collect(), ..history.clone() };
        assert_eq!((truth.handlers.len(), checker::check(&truth)), (1, Ok(())));
        Self(truth)
    }

    fn handler(&self) -> &Handler {
        &self.0.handlers[0]
    }

    #[track_caller]
    fn find(&self, what: &str, is_it: impl Fn(&Message) -> bool) -> Arc<Message> {
        let found = self.0.messages.iter().find(|message| is_it(message));
        found.unwrap_or_else(|| panic!("too little happened to show anything: there is not {what}")).clone()
    }

    fn without(&self, message: &Message) -> History {
        let mut lie = self.0.clone();
        lie.messages.retain(|other| other.offset != message.offset);
        lie
    }

    /// It comes once more at the end.
    fn again(&self, message: &Message) -> History {
        let mut lie = self.0.clone();
        let end = lie.messages.last().map_or(Offset::START, |last| last.offset);
        lie.messages.push(Arc::new(Message { offset: Offset(end.0 + 1), ..message.clone() }));
        lie
    }

    /// The message of a dead letter that was dropped. It came once: letters of one message take the place of one another.
    fn dropped(&self) -> Arc<Message> {
        let name = &self.handler().routing.handler;
        let dropped = self.0.removed.difference(&self.0.retried).filter(|(handler, _)| handler == name);
        let dropped: BTreeSet<Offset> = dropped.map(|(_, offset)| *offset).collect();
        let is_it = |message: &Message| dropped.contains(&message.offset) && self.is_alone(message);
        self.find("a message that was dropped", is_it)
    }

    /// It came once under its id, and never returned.
    fn is_alone(&self, input: &Message) -> bool {
        let same = self.0.messages.iter().filter(|other| other.id == input.id && other.key == input.key);
        same.filter(|other| own::subscribes(&self.handler().routing, other)).count() == 1
    }

    /// Nothing else says that the message was handled.
    fn is_effect_of_one_without_key(&self, message: &Message) -> bool {
        let is_effect = message.topic.as_str() == self.handler().output && message.key.is_none();
        is_effect && self.0.messages.iter().any(|input| input.offset == source(message) && self.is_alone(input))
    }

    fn as_if_it_was_retried(&self) -> History {
        let mut lie = self.0.clone();
        lie.retried.insert((self.handler().routing.handler.clone(), self.dropped().offset));
        lie
    }

    fn as_if_it_was_kept(&self) -> History {
        let mut lie = self.0.clone();
        let message = self.dropped();
        let of_its_key = lie.dead.iter().filter(|letter| letter.shard.handler == self.handler().routing.handler);
        let index = of_its_key.filter(|letter| letter.key == message.key).map(|letter| letter.shard.index).next();
        let mut letter = letter(self.handler(), &message, "reject");
        letter.shard.index = index.unwrap_or(0);
        lie.dead.push(letter);
        lie
    }

    fn as_if_nobody_removed(&self, returned: &Message) -> History {
        let mut lie = self.0.clone();
        let letter = (self.handler().routing.handler.clone(), was(returned));
        lie.removed.remove(&letter);
        lie.retried.remove(&letter);
        lie
    }
}

fn was(returned: &Message) -> Offset {
    Offset(returned.headers.get("_offset").unwrap().parse().unwrap())
}
