//! `sluicebox:handler/outbox`: publishing, staged.

use super::bindings::sluicebox::handler::outbox::{self, PublishError};
use super::host::Host;
use sluicebox_core::effects::{DELAY_MAX, Outgoing};
use sluicebox_core::message::{HEADERS_MAX, Headers, Key, MessageError, NewMessage};
use sluicebox_core::shard::DELAYED_FULL;
use sluicebox_core::topic::{Pattern, Topic};
use std::time::Duration;

impl outbox::Host for Host {
    fn publish(&mut self, message: outbox::Outgoing) -> Result<(), PublishError> {
        let outgoing = checked(message, &self.settings().publish)?;
        let run = self.run_mut().map_err(PublishError::Other)?;
        let left = match outgoing.delay {
            None => run.delayed_room,
            Some(_) => run.delayed_room.without(outgoing.bytes()).ok_or_else(|| {
                run.delay_refused = true;
                PublishError::Other(DELAYED_FULL.to_owned())
            })?,
        };
        run.staged.publish(outgoing).map_err(|refused| PublishError::TooMany(refused.to_string()))?;
        run.delayed_room = left;
        Ok(())
    }
}

/// The message, if the settings grant its topic and it keeps the limits of every message.
fn checked(message: outbox::Outgoing, grants: &[Pattern]) -> Result<Outgoing, PublishError> {
    let outbox::Outgoing { topic, key, id, headers, body, delay_ms } = message;
    let topic = Topic::parse_public(&topic).map_err(|error| PublishError::Invalid(error.to_string()))?;
    if !grants.iter().any(|pattern| pattern.matches(&topic)) {
        return Err(PublishError::NotGranted(format!(
            "topic `{topic}` is not granted: the handler's `publish` setting has {}",
            grants.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ")
        )));
    }
    let delay = delay_ms.filter(|&ms| ms > 0).map(Duration::from_millis);
    if delay.is_some_and(|delay| delay > DELAY_MAX) {
        let days = DELAY_MAX.as_secs() / 86_400;
        return Err(PublishError::Invalid(format!("a delay of more than {days} days")));
    }
    // Before they are copied.
    if headers.len() > HEADERS_MAX {
        return Err(too_large(MessageError::TooManyHeaders { headers: headers.len() }));
    }
    let key = key.map_or(Ok(None), |key| Key::parse(&key)).map_err(too_large)?;
    let id = id.filter(|id| !id.is_empty()).map(Into::into);
    let message = NewMessage { topic, key, id, headers: Headers::new(headers), body: body.into(), hops: 0 };
    message.check().map_err(too_large)?;
    let NewMessage { topic, key, id, headers, body, hops: _ } = message;
    Ok(Outgoing { topic, key, id, headers, body, delay })
}

fn too_large(error: MessageError) -> PublishError {
    PublishError::TooLarge(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str) -> outbox::Outgoing {
        outbox::Outgoing { topic: topic.into(), key: None, id: None, headers: vec![], body: vec![], delay_ms: None }
    }

    #[track_caller]
    fn check(message: outbox::Outgoing, expected: &str) {
        let grants = [Pattern::parse("out.*").unwrap()];
        let (PublishError::Invalid(reason)
        | PublishError::NotGranted(reason)
        | PublishError::TooLarge(reason)
        | PublishError::TooMany(reason)
        | PublishError::Other(reason)) = checked(message, &grants).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        check(message("out.*"), "is a pattern");
        check(message("_out"), "belong to the host");
        check(message("other"), "`other` is not granted: the handler's `publish` setting has `out.*`");
        check(outbox::Outgoing { body: vec![0; 512 * 1024 + 1], ..message("out.a") }, "body has 524289 bytes");
        check(outbox::Outgoing { key: Some("k".repeat(257)), ..message("out.a") }, "key has 257 bytes");
        check(outbox::Outgoing { id: Some("i".repeat(257)), ..message("out.a") }, "id has 257 bytes");
        let header = ("n".to_owned(), "v".repeat(16 * 1024));
        check(outbox::Outgoing { headers: vec![header], ..message("out.a") }, "headers have 16385 bytes");
        let empty = vec![(String::new(), String::new()); 257];
        check(outbox::Outgoing { headers: empty, ..message("out.a") }, "257 headers, at most 256");
        check(outbox::Outgoing { delay_ms: Some(u64::MAX), ..message("out.a") }, "more than 30 days");
    }

    #[test]
    fn empty_key_and_id_are_none_and_no_delay_is_no_delay() {
        let grants = [Pattern::parse(">").unwrap()];
        let empty = outbox::Outgoing {
            key: Some(String::new()),
            id: Some(String::new()),
            delay_ms: Some(0),
            ..message("out.a")
        };
        let outgoing = checked(empty, &grants).unwrap();
        assert_eq!((outgoing.key, outgoing.id, outgoing.delay), (None, None, None));
    }
}
