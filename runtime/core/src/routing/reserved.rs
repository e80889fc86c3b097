//! The host's own topics: commands for a handler, and dead letters that return to it.

use crate::clock::Timestamp;
use crate::commit::{DeadLetter, Deaths};
use crate::handler::HandlerName;
use crate::message::{Headers, Message, NewMessage, Offset};
use crate::topic::Topic;

/// First token of the topics of commands.
pub const CONTROL_TOKEN: &str = "_control";
/// First token of the topics on which dead letters return to their handler.
pub const RETRY_TOKEN: &str = "_retry";
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
