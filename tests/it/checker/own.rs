//! The checker's own idea of whose a message is, which messages are one, and which belong together: written from what is
//! promised, so that it shares no mistake with the program.

use sluicebox::message::{Key, Message};
use sluicebox::routing::{IdFrom, KeyFrom, Routing};

/// Messages with the same one are one message: the key and the id.
pub type Identity = (Option<String>, String);

/// Whether the handler is to get the message, by the subscription that held where the message is.
pub fn subscribes(routing: &Routing, message: &Message) -> bool {
    let Some(span) = routing.spans.iter().filter(|span| span.after < message.offset).max_by_key(|span| span.after)
    else {
        return false;
    };
    let topic = message.topic.as_str();
    if topic.starts_with('_') {
        // Of the host's own topics only its returned dead letters, and none that an earlier handler of its name had.
        let returns = topic == format!("_retry.{}", routing.handler);
        return returns && !span.subscribe.is_empty() && message.offset > routing.recorded;
    }
    span.subscribe.iter().any(|pattern| matches(pattern.as_str(), topic))
}

/// `*` is one token, `>` is one or more at the end.
fn matches(pattern: &str, topic: &str) -> bool {
    let (mut pattern, mut topic) = (pattern.split('.'), topic.split('.'));
    loop {
        match (pattern.next(), topic.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

/// The key that the message is handled under.
pub fn key<'m>(routing: &Routing, message: &'m Message) -> Option<&'m str> {
    match routing.key {
        KeyFrom::Message => message.key.as_ref().map(Key::as_str),
        KeyFrom::All => Some("*"),
        KeyFrom::None => None,
        KeyFrom::Fields(_) => panic!("no handler that is checked takes its key from the body"),
    }
}

/// What tells the message from others; `None`: it is like no other.
pub fn identity(routing: &Routing, message: &Message) -> Option<Identity> {
    assert!(routing.id == IdFrom::Message, "no handler that is checked takes its id from the body");
    let id = message.id.as_ref()?;
    Some((key(routing, message).map(str::to_owned), id.to_string()))
}

/// Messages with the same one are handled by one shard: those of a key, and without a key the copies of one message.
pub fn lane(routing: &Routing, message: &Message) -> Option<Identity> {
    match key(routing, message) {
        Some(key) => Some((Some(key.to_owned()), String::new())),
        None => identity(routing, message),
    }
}

#[test]
fn patterns_match_token_by_token() {
    for (pattern, topic, expected) in [
        ("a.b", "a.b", true),
        ("a.b", "a", false),
        ("a", "a.b", false),
        ("a.*", "a.b", true),
        ("a.*", "a.b.c", false),
        ("a.>", "a.b.c", true),
        ("a.>", "a", false),
        (">", "a", true),
    ] {
        assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
    }
}
