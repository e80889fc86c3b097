//! The host's own topics: commands for a handler, dead letters that return to it, and messages that publishers delay.

use crate::clock::Timestamp;
use crate::commit::{DeadLetter, Deaths};
use crate::handler::HandlerName;
use crate::message::{Headers, Message, NewMessage, Offset};
use crate::topic::Topic;
use std::time::Duration;

/// First token of the topics of commands.
pub const CONTROL_TOKEN: &str = "_control";
/// First token of the topics on which dead letters return to their handler.
pub const RETRY_TOKEN: &str = "_retry";
/// The topic of messages that publishers delay.
const DELAYED_TOPIC: &str = "_delayed";
/// First header of a message on it: the topic on which it is to appear.
const TO_HEADER: &str = "_to";
/// Second header of it: how long after it came, in milliseconds.
const DELAY_HEADER: &str = "_delay";
/// Holds the topic that a returned dead letter had.
const TOPIC_HEADER: &str = "_topic";
/// Holds the offset that a returned dead letter had.
pub const OFFSET_HEADER: &str = "_offset";
/// Holds what became of it before: see [`deaths`].
const DEATHS_HEADER: &str = "_deaths";

/// Where the commands for a handler are.
pub fn control_topic(handler: &HandlerName) -> Topic {
    Topic::parse(&format!("{CONTROL_TOKEN}.{handler}")).expect("a handler's name is a token")
}

/// Where messages are until their delay is over.
pub fn delayed_topic() -> Topic {
    Topic::parse(DELAYED_TOPIC).expect("it is a token")
}

/// A message as it is appended when it is to appear `delay` later.
pub fn delayed(message: NewMessage, delay: Duration) -> NewMessage {
    let to = (TO_HEADER.to_owned(), message.topic.as_str().to_owned());
    let delay = (DELAY_HEADER.to_owned(), delay.as_millis().to_string());
    let headers = message.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    // In front: the message may have headers of these names too.
    let headers = Headers::new([to, delay].into_iter().chain(headers).collect());
    NewMessage { topic: delayed_topic(), headers, ..message }
}

/// Whether its delay runs from when the log took it, however late a handler sees it.
pub fn is_delayed(message: &Message) -> bool {
    message.topic.as_str() == DELAYED_TOPIC
}

/// What a message that is delayed will be: topic, headers and delay; `None`: it is no such message.
pub fn undelayed(message: &Message) -> Option<(Topic, Headers, Duration)> {
    let mut headers = message.headers.iter();
    let mut value = |name| headers.next().filter(|(found, _)| *found == name).map(|(_, value)| value);
    let topic = Topic::parse_public(value(TO_HEADER)?).ok()?;
    let delay = Duration::from_millis(value(DELAY_HEADER)?.parse().ok()?);
    let rest = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    is_delayed(message).then(|| (topic, Headers::new(rest), delay))
}

/// Whether these are commands of operators and nothing else.
pub fn are_commands(messages: &[NewMessage]) -> bool {
    let is_command = |message: &NewMessage| {
        let rest = message.topic.as_str().strip_prefix(CONTROL_TOKEN);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    messages.iter().all(is_command)
}

/// Where the dead letters that return to a handler are.
pub fn retry_topic(handler: &HandlerName) -> Topic {
    Topic::parse(&format!("{RETRY_TOKEN}.{handler}")).expect("a handler's name is a token")
}

/// A dead letter's message as it returns to its handler, or goes `to` another one, and to no other: after all that is in
/// the log now.
pub fn returned(letter: &DeadLetter, to: Option<&HandlerName>) -> NewMessage {
    let other = to.filter(|to| **to != letter.shard.handler);
    let message = &letter.message;
    let headers = message.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let topic = (TOPIC_HEADER.to_owned(), message.topic.as_str().to_owned());
    let offset = (OFFSET_HEADER.to_owned(), message.offset.to_string());
    let Deaths { count, first_offset, first_time, returns } = letter.deaths;
    let deaths = format!("{count} {first_offset} {} {}", first_time.0, returns.saturating_add(1));
    let deaths = (DEATHS_HEADER.to_owned(), deaths);
    NewMessage {
        topic: retry_topic(other.unwrap_or(&letter.shard.handler)),
        key: message.key.clone(),
        id: message.id.clone(),
        headers: Headers::new([topic, offset, deaths].into_iter().chain(headers).collect()),
        body: message.body.clone(),
        // From handler to handler and on: a circle of operators' scripts ends like one of outputs.
        hops: message.hops.saturating_add(u8::from(other.is_some())),
    }
}

/// What became of a message before it was returned; `None` for any other, and for one that an earlier version returned.
pub fn deaths(message: &Message) -> Option<Deaths> {
    let mut numbers = message.headers.get(DEATHS_HEADER)?.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(Deaths {
        count: u32::try_from(next()?).ok()?,
        first_offset: Offset(next()?),
        first_time: Timestamp(next()?),
        returns: u32::try_from(next()?).ok()?,
    })
}

/// The message that a returned dead letter was, at its new place; `None` for any other message.
pub fn original(message: &Message) -> Option<Message> {
    if !message.topic.as_str().starts_with(RETRY_TOKEN) {
        return None;
    }
    let topic = Topic::parse(message.headers.get(TOPIC_HEADER)?).ok()?;
    let rest = message.headers.iter().filter(|(name, _)| ![TOPIC_HEADER, OFFSET_HEADER, DEATHS_HEADER].contains(name));
    let headers = Headers::new(rest.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    Some(Message { topic, headers, ..message.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::ShardId;
    use std::sync::Arc;

    #[test]
    fn only_a_list_of_nothing_else_are_commands() {
        let on = |topic: &str| NewMessage::new(Topic::parse(topic).unwrap(), "");
        assert!(are_commands(&[on("_control.order"), on("_control.notify")]));
        for other in ["_controlled.order", "_retry.order", "events.made"] {
            assert!(!are_commands(&[on("_control.order"), on(other)]), "{other}");
        }
    }

    #[test]
    fn a_delayed_message_says_what_it_will_be_whatever_its_own_headers_are() {
        let own = vec![("_delay".to_owned(), "9".to_owned()), ("_to".into(), "x".into())];
        let new =
            NewMessage { headers: Headers::new(own), ..NewMessage::new(Topic::parse("events.made").unwrap(), "body") };
        let held = delayed(new.clone(), Duration::from_secs(5));
        assert_eq!(held.check(), Ok(()));
        let message = Message::from_new(held, Offset(1), Timestamp(0));
        assert_eq!(undelayed(&message), Some((new.topic.clone(), new.headers.clone(), Duration::from_secs(5))));
        let other = Message::from_new(new, Offset(1), Timestamp(0));
        assert_eq!((undelayed(&other), is_delayed(&other)), (None, false));
    }

    #[test]
    fn a_delayed_message_with_all_headers_that_may_be_returns_as_a_dead_letter() {
        let own = (0..crate::message::HEADERS_MAX).map(|number| (format!("h{number}"), String::new()));
        let new =
            NewMessage { headers: Headers::new(own.collect()), ..NewMessage::new(Topic::parse("a").unwrap(), "") };
        assert_eq!(new.check(), Ok(()));
        let message = Message::from_new(delayed(new, Duration::from_secs(1)), Offset(1), Timestamp(0));
        let shard = ShardId { handler: HandlerName::delay(), index: 0 };
        let letter = DeadLetter {
            shard,
            deaths: Deaths::first(message.offset, Timestamp(0)),
            message: Arc::new(message),
            key: None,
            attempts: 1,
            kind: "loop".into(),
            error: String::new(),
            digest: None,
            time: Timestamp(0),
            identity: None,
        };
        assert_eq!(returned(&letter, None).check(), Ok(()));
    }

    #[test]
    fn a_returned_dead_letter_is_the_message_it_was() {
        let new = NewMessage {
            id: Some("i".into()),
            headers: Headers::new(vec![("a".into(), "b".into())]),
            ..NewMessage::new(Topic::parse("events.made").unwrap(), "body")
        };
        let was = Message::from_new(new, Offset(3), Timestamp(5));
        let letter = DeadLetter {
            shard: ShardId { handler: HandlerName::parse("order").unwrap(), index: 0 },
            message: Arc::new(was.clone()),
            key: None,
            attempts: 8,
            kind: "retry".into(),
            error: "busy".into(),
            digest: None,
            time: Timestamp(6),
            identity: None,
            deaths: Deaths { count: 3, first_offset: Offset(1), first_time: Timestamp(2), returns: 1 },
        };
        let back = Message::from_new(returned(&letter, None), Offset(9), Timestamp(7));
        assert_eq!(deaths(&back), Some(Deaths { returns: 2, ..letter.deaths }));
        assert_eq!(back.topic.as_str(), "_retry.order");
        assert_eq!(original(&back), Some(Message { offset: Offset(9), time: Timestamp(7), ..was.clone() }));
        // To another handler it makes one hop more.
        let other = HandlerName::parse("other").unwrap();
        let sent = Message::from_new(returned(&letter, Some(&other)), Offset(9), Timestamp(7));
        assert_eq!(sent.topic.as_str(), "_retry.other");
        assert_eq!(original(&sent), Some(Message { offset: Offset(9), time: Timestamp(7), hops: 1, ..was }));
    }
}
