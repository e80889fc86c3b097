//! Running a handler under `cargo test`: give it a message, look at what it would have done.
//!
//! The stand-in for the host keeps the real one's limits, so what fails there fails here.

use crate::Context;
use crate::diagnostics::Level;
use crate::failure::Failure;
use crate::host::{Host, Recorded, take_diagnostics};
use crate::message::{FromMessage, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A message to handle, and the world it is handled in.
#[derive(Clone, Debug)]
pub struct TestMessage {
    message: Message,
    state: BTreeMap<String, Vec<u8>>,
    config: BTreeMap<String, String>,
    grants: Option<Vec<String>>,
}

impl TestMessage {
    /// A first try of a message without id, key and headers.
    pub fn new(topic: &str, body: impl Into<Vec<u8>>) -> Self {
        let message =
            Message { topic: topic.to_owned(), body: body.into(), attempt: 1, offset: Some(1), ..Message::default() };
        Self { message, state: BTreeMap::new(), config: BTreeMap::new(), grants: None }
    }

    /// A message with a JSON payload.
    pub fn json<T: Serialize + ?Sized>(topic: &str, payload: &T) -> Self {
        Self::new(topic, serde_json::to_vec(payload).expect("a test's payload can be written as JSON"))
    }

    /// Handled under this key, so that it has state.
    pub fn key(mut self, key: &str) -> Self {
        self.message.key = Some(key.to_owned());
        self
    }

    pub fn id(mut self, id: &str) -> Self {
        self.message.id = Some(id.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.message.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn time_ms(mut self, time_ms: u64) -> Self {
        self.message.time_ms = time_ms;
        self
    }

    pub fn attempt(mut self, attempt: u32) -> Self {
        self.message.attempt = attempt;
        self
    }

    /// An entry that is there before the run, as JSON.
    pub fn state<T: Serialize + ?Sized>(mut self, entry: &str, value: &T) -> Self {
        let value = serde_json::to_vec(value).expect("a test's state can be written as JSON");
        self.state.insert(entry.to_owned(), value);
        self
    }

    /// Every entry that is there before the run: what an earlier run left.
    pub fn state_of(mut self, run: &TestRun) -> Self {
        self.state = run.state.clone();
        self
    }

    /// A setting of the handler.
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Only these patterns may be published to. Without this call every topic may.
    pub fn grant(mut self, patterns: &[&str]) -> Self {
        self.grants = Some(patterns.iter().map(|&pattern| pattern.to_owned()).collect());
        self
    }
}

/// A message the run published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub topic: String,
    pub key: Option<String>,
    pub id: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub delay_ms: Option<u64>,
}

impl Published {
    /// The payload read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// What became of a run. After a failure there is nothing published and counted, and the state is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    pub result: Result<(), Failure>,
    /// In call order.
    pub published: Vec<Published>,
    /// Every entry of the key after the run, as stored.
    pub state: BTreeMap<String, Vec<u8>>,
    pub counts: BTreeMap<String, u64>,
    /// Lines written by `info!` and its like, kept after a failure too.
    pub diagnostics: Vec<(Level, String)>,
}

impl TestRun {
    /// A state entry read as JSON; `None` when there is none.
    pub fn state<T: DeserializeOwned>(&self, entry: &str) -> Result<Option<T>, serde_json::Error> {
        self.state.get(entry).map(|value| serde_json::from_slice(value)).transpose()
    }
}

/// Runs a handler on one message.
pub fn run<A: FromMessage, E: Into<Failure>>(
    handler: fn(A, &mut Context) -> Result<(), E>,
    test: TestMessage,
) -> TestRun {
    let TestMessage { message, state, config, grants } = test;
    take_diagnostics();
    let recorded =
        Recorded { grants, has_key: message.key.is_some(), config, entries: state.clone(), ..Recorded::default() };
    let mut cx = Context::new(message, Host(recorded.into()));
    let result = A::from_message(cx.message()).and_then(|argument| handler(argument, &mut cx).map_err(Into::into));
    let diagnostics = take_diagnostics();
    if result.is_err() {
        return TestRun { result, published: Vec::new(), state, counts: BTreeMap::new(), diagnostics };
    }
    let Recorded { published, entries, counts, .. } = cx.host.0.into_inner();
    let published = published
        .into_iter()
        .map(|out| Published {
            topic: out.topic,
            key: out.key,
            id: out.id,
            headers: out.headers,
            body: out.body,
            delay_ms: out.delay_ms,
        })
        .collect();
    TestRun { result, published, state: entries, counts, diagnostics }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::*;
    use crate::{Json, PublishError, StateError, Text};

    #[derive(serde::Deserialize)]
    struct Event {
        user: String,
    }

    fn counting(event: Json<Event>, cx: &mut Context) -> Result<(), Failure> {
        let seen: u64 = cx.state("seen")?.unwrap_or_default();
        cx.set_state("seen", &(seen + 1))?;
        cx.count("seen", 1)?;
        crate::info!("saw {}", event.user);
        cx.publish("seen.user").key(&event.user).header("n", seen.to_string()).text("hello")?;
        if event.user == "eve" {
            return Err(Failure::reject("eve"));
        }
        Ok(())
    }

    #[test]
    fn a_run_shows_what_it_would_have_done() {
        let first = run(counting, TestMessage::json("in", &serde_json::json!({"user": "ada"})).key("ada"));
        assert_eq!(first.result, Ok(()));
        assert_eq!(first.published[0].headers, [("n".to_owned(), "0".to_owned())]);
        assert_eq!(first.counts["seen"], 1);
        assert_eq!(first.diagnostics, [(Level::Info, "saw ada".to_owned())]);
        let message = TestMessage::json("in", &serde_json::json!({"user": "ada"})).key("ada").state_of(&first);
        assert_eq!(run(counting, message).state::<u64>("seen").unwrap(), Some(2));
    }

    #[test]
    fn a_failed_run_leaves_nothing_but_diagnostics() {
        let message = TestMessage::json("in", &serde_json::json!({"user": "eve"})).key("eve").state("seen", &7);
        let failed = run(counting, message);
        assert_eq!(failed.result, Err(Failure::reject("eve")));
        assert!(failed.published.is_empty() && failed.counts.is_empty());
        assert_eq!(failed.state::<u64>("seen").unwrap(), Some(7));
        assert_eq!(failed.diagnostics.len(), 1);
    }

    #[test]
    fn state_without_a_key_is_refused() {
        let failed = run(counting, TestMessage::json("in", &serde_json::json!({"user": "ada"})));
        assert!(failed.result.unwrap_err().reason().contains("without a key"));
    }

    #[track_caller]
    fn check_publish(topic: &str, body_bytes: usize, expected: fn(&PublishError) -> bool) {
        let host = Host(Recorded { grants: Some(vec!["out.*".into()]), ..Recorded::default() }.into());
        let outgoing = crate::host::Outgoing { topic: topic.into(), body: vec![0; body_bytes], ..Default::default() };
        let error = host.publish(outgoing).unwrap_err();
        assert!(expected(&error), "{error}");
    }

    #[test]
    fn what_the_host_refuses_is_refused_here() {
        check_publish("other", 0, |e| matches!(e, PublishError::NotGranted(_)));
        check_publish("out.>", 0, |e| matches!(e, PublishError::Invalid(_)));
        check_publish("_sys", 0, |e| matches!(e, PublishError::Invalid(_)));
        check_publish("out.a", BODY_BYTES_MAX + 1, |e| matches!(e, PublishError::TooLarge(_)));
    }

    #[test]
    fn the_effects_of_a_run_are_bounded() {
        fn flood(count: Text, cx: &mut Context) -> Result<(), Failure> {
            for _ in 0..count.parse::<usize>().unwrap() {
                cx.publish("out").text("x")?;
            }
            Ok(())
        }
        assert_eq!(run(flood, TestMessage::new("in", EFFECTS_MAX.to_string())).published.len(), EFFECTS_MAX);
        let refused = run(flood, TestMessage::new("in", (EFFECTS_MAX + 1).to_string()));
        assert!(refused.result.unwrap_err().reason().contains("at most 256 effects"));
    }

    #[test]
    fn writing_one_entry_again_is_one_effect() {
        let host = Host(Recorded { has_key: true, ..Recorded::default() }.into());
        for n in 0..EFFECTS_MAX * 2 {
            host.set("n", n.to_string().as_bytes()).unwrap();
        }
        assert_eq!(host.0.borrow().written.len(), 1);
        assert!(matches!(host.set("n", &vec![0; VALUE_BYTES_MAX + 1]), Err(StateError::Refused(_))));
    }
}
