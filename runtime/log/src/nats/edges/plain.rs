//! What a plain client published, as a message of the log: the subject is the topic, `Nats-Msg-Id` the id, `Sluicebox-Key`
//! the key, and what else it has of headers goes along. Headers by which a client steers its server or a host end here.

use bytes::Bytes;
use sluicebox_core::message::{Headers, Key, NewMessage};
use sluicebox_core::topic::Topic;

/// Headers that begin so are the server's.
const SERVERS: &str = "nats-";
/// Headers that begin so are the host's.
const HOSTS: &str = "sluicebox-";
const MSG_ID: &str = "nats-msg-id";
/// The id that a message had in another log; that log's `Nats-Msg-Id` is the place in it.
const ID: &str = "sluicebox-id";
const KEY: &str = "sluicebox-key";

/// The message; the error says why it can be none.
pub(super) fn message(
    subject: &str,
    headers: impl IntoIterator<Item = (String, String)>,
    body: Bytes,
) -> Result<NewMessage, String> {
    let topic = Topic::parse_public(subject).map_err(|error| error.to_string())?;
    let (mut key, mut id, mut msg_id, mut rest) = (None, None, None, vec![]);
    for (name, value) in headers {
        match name.to_ascii_lowercase().as_str() {
            KEY => key = key.or(Key::parse(&value).map_err(|error| error.to_string())?),
            ID => id = id.or(Some(value)),
            MSG_ID => msg_id = msg_id.or(Some(value)),
            own if own.starts_with(SERVERS) || own.starts_with(HOSTS) => {}
            _ => rest.push((name, value)),
        }
    }
    let id = id.or(msg_id).filter(|id| !id.is_empty()).map(Into::into);
    let message = NewMessage { key, id, headers: Headers::new(rest), ..NewMessage::new(topic, body) };
    message.check().map_err(|error| error.to_string())?;
    Ok(message)
}

/// The headers in a block as it goes over the wire.
pub(super) fn headers(block: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(block).map_err(|_| "its headers are not UTF-8".to_owned())?;
    let mut headers: Vec<(String, String)> = vec![];
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        if line.starts_with(char::is_whitespace)
            && let Some((_, value)) = headers.last_mut()
        {
            value.push_str(line);
            continue;
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| "one of its headers has a name without a value".to_owned())?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn key_id_and_headers_of_a_plain_message_are_those_of_the_message() {
        let sent = [("Sluicebox-Key", "ada"), ("Nats-Msg-Id", "m-1"), ("Nats-Rollup", "all"), ("traceparent", "t")];
        let message = message("orders.new", pairs(&sent), "b".into()).unwrap();
        assert_eq!((message.topic.as_str(), message.key.unwrap().as_str()), ("orders.new", "ada"));
        assert_eq!(message.id.as_deref(), Some("m-1"));
        assert_eq!(message.headers.iter().collect::<Vec<_>>(), [("traceparent", "t")]);
    }

    #[test]
    fn the_id_that_another_log_gave_goes_before_the_place_in_it() {
        let sent = [("Nats-Msg-Id", "shop.17"), ("Sluicebox-Id", "o-1"), ("Sluicebox-Offset", "17")];
        let message = message("orders.new", pairs(&sent), Bytes::new()).unwrap();
        assert_eq!((message.id.as_deref(), message.headers.is_empty()), (Some("o-1"), true));
    }

    #[test]
    fn what_no_message_can_be_says_why() {
        let told = |subject: &str, sent: &[(&str, &str)], bytes: usize| {
            message(subject, pairs(sent), vec![0; bytes].into()).unwrap_err()
        };
        assert!(told("orders.ü", &[], 0).contains("a character other than"));
        assert!(told("_control.order", &[], 0).contains("belong to the host"));
        assert!(told("a", &[], 600_000).contains("the body has 600000 bytes"));
        assert!(told("a", &[("Sluicebox-Key", &"k".repeat(300))], 0).contains("the key has 300 bytes"));
        assert!(told("a", &[("x", &"v".repeat(20_000))], 0).contains("the headers have 20001 bytes"));
        assert!(told("a", &[("Nats-Msg-Id", &"i".repeat(300))], 0).contains("the id has 300 bytes"));
    }

    #[test]
    fn a_block_of_headers_is_read_or_refused() {
        let read = headers(b"NATS/1.0 503 whatever\r\nA: 1\r\nB:2\r\n more\r\n\r\n");
        assert_eq!(read, Ok(pairs(&[("A", "1"), ("B", "2 more")])));
        assert!(headers(b"NATS/1.0\r\nA: \xff\r\n\r\n").unwrap_err().contains("UTF-8"));
        assert!(headers(b"NATS/1.0\r\nnothing\r\n\r\n").is_err());
    }
}
