//! What a plain client sent, as a message of the log. An entry of the stream has the fields `topic` and `body`, and may have
//! `key`, `id` and `header:NAME`; any other is refused, so that a name that was mistyped is heard of. A message on a channel
//! is a body, and the channel is the topic.

use bytes::Bytes;
use sluicebox_core::message::{Headers, Key, NewMessage};
use sluicebox_core::topic::{Pattern, Topic};

/// Headers that begin so are the host's.
const HOSTS: &str = "sluicebox-";
const HEADER: &str = "header:";

/// A field of an entry, and its value.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// The message of an entry; the error says why it can be none.
pub(super) fn entry(fields: Vec<Field>, topics: &[Pattern]) -> Result<NewMessage, String> {
    let (mut topic, mut body, mut key, mut id, mut headers) = (None, None, None, None, vec![]);
    for (name, value) in fields {
        let name = String::from_utf8(name).map_err(|_| "the name of a field is not UTF-8".to_owned())?;
        let text = |value: Vec<u8>| String::from_utf8(value).map_err(|_| format!("its field `{name}` is not UTF-8"));
        let is_first = match name.as_str() {
            "body" => body.replace(value).is_none(),
            "topic" => topic.replace(text(value)?).is_none(),
            "key" => key.replace(text(value)?).is_none(),
            "id" => id.replace(text(value)?).is_none(),
            _ => {
                let header = name.strip_prefix(HEADER).ok_or_else(|| {
                    format!("it has a field `{}`: there are topic, body, key, id and header:NAME", shortened(&name))
                })?;
                headers.push((header.to_owned(), text(value)?));
                true
            }
        };
        if !is_first {
            return Err(format!("it has its field `{name}` twice"));
        }
    }
    let missing = |name: &str| format!("it has no field `{name}`");
    let topic = topic.ok_or_else(|| missing("topic"))?;
    let body = body.ok_or_else(|| missing("body"))?;
    let topic = public(&topic)?;
    if !topics.iter().any(|pattern| pattern.matches(&topic)) {
        return Err(format!("its topic `{topic}` is none of `ingress`"));
    }
    headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with(HOSTS));
    let key = match key {
        Some(key) => Key::parse(&key).map_err(|error| error.to_string())?,
        None => None,
    };
    let id = id.filter(|id| !id.is_empty()).map(Into::into);
    checked(NewMessage { key, id, headers: Headers::new(headers), ..NewMessage::new(topic, Bytes::from(body)) })
}

/// What was published to a channel; `None` where the channel is not one of these.
pub(super) fn published(channel: &str, body: Bytes, of: &Pattern) -> Option<Result<NewMessage, String>> {
    match public(channel) {
        Ok(topic) => of.matches(&topic).then(|| checked(NewMessage::new(topic, body))),
        Err(reason) => Some(Err(reason)),
    }
}

fn public(topic: &str) -> Result<Topic, String> {
    Topic::parse_public(topic).map_err(|error| error.to_string())
}

fn checked(message: NewMessage) -> Result<NewMessage, String> {
    message.check().map_err(|error| error.to_string())?;
    Ok(message)
}

/// As much of a foreign text as people want to see.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<NewMessage, String> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        entry(fields, &[Pattern::parse("orders.>").unwrap()])
    }

    #[test]
    fn key_id_and_headers_of_an_entry_are_those_of_the_message() {
        let sent = [
            ("id", "o-1"),
            ("topic", "orders.new"),
            ("header:traceparent", "t"),
            ("header:Sluicebox-Key", "eve"),
            ("key", "ada"),
            ("body", "b"),
        ];
        let message = read(&sent).unwrap();
        assert_eq!((message.topic.as_str(), message.key.unwrap().as_str()), ("orders.new", "ada"));
        assert_eq!((message.id.as_deref(), &message.body[..]), (Some("o-1"), &b"b"[..]));
        assert_eq!(message.headers.iter().collect::<Vec<_>>(), [("traceparent", "t")]);
        let plain = read(&[("topic", "orders.new"), ("body", ""), ("id", ""), ("key", "")]).unwrap();
        assert_eq!((plain.id, plain.key, plain.body.len()), (None, None, 0));
    }

    #[test]
    fn what_no_message_can_be_says_why() {
        let told = |fields: &[(&str, &str)]| read(fields).unwrap_err();
        assert_eq!(told(&[("topic", "orders.new")]), "it has no field `body`");
        assert_eq!(told(&[("body", "b")]), "it has no field `topic`");
        assert!(told(&[("topic", "orders.new"), ("bdy", "b")]).contains("a field `bdy`: there are topic, body"));
        assert!(told(&[("topic", "orders.a"), ("topic", "orders.b")]).contains("`topic` twice"));
        assert!(told(&[("topic", "other"), ("body", "")]).contains("`other` is none of `ingress`"));
        assert!(told(&[("topic", "_control.order"), ("body", "")]).contains("belong to the host"));
        let long = "k".repeat(300);
        assert!(told(&[("topic", "orders.a"), ("body", ""), ("key", &long)]).contains("the key has 300 bytes"));
        assert!(told(&[("topic", "orders.a"), ("body", ""), ("id", &long)]).contains("the id has 300 bytes"));
        let bytes = |name: &[u8], value: &[u8]| entry(vec![(name.to_vec(), value.to_vec())], &[]).unwrap_err();
        assert!(bytes(b"topic", b"\xff").contains("`topic` is not UTF-8"));
        assert!(bytes(b"\xff", b"").contains("name of a field is not UTF-8"));
    }

    #[test]
    fn a_channel_that_only_the_servers_pattern_matches_is_passed_over() {
        let of = Pattern::parse("orders.*").unwrap();
        assert_eq!(published("orders.a.b", Bytes::new(), &of), None);
        assert_eq!(published("orders.a", "b".into(), &of).unwrap().unwrap().topic.as_str(), "orders.a");
        assert!(published("orders.ü", Bytes::new(), &of).unwrap().unwrap_err().contains("a character other than"));
        assert!(published("orders.a", vec![0; 600_000].into(), &of).unwrap().unwrap_err().contains("600000 bytes"));
    }
}
