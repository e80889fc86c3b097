//! What a sandbox keeps its guest from, and what it lets through. The guest is `tests/guests/hostile`, which does what its
//! message says.

mod components;
mod deadlines;
mod effects;
mod fairness;
mod isolation;
mod limits;
mod modules;

use crate::harness::guests;
use bytes::Bytes;
use sluicebox::clock::Timestamp;
use sluicebox::effects::{Effects, Entries};
use sluicebox::handler::HandlerName;
use sluicebox::invoke::{Call, DelayedRoom, Failure, Invoke};
use sluicebox::message::{Headers, Key, Message, NewMessage, Offset};
use sluicebox::sandbox::{Handler, Mode, Module, Pool, Sandboxes, Settings, Sink};
use sluicebox::topic::{Pattern, Topic};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// One pool for all tests: they must not disturb each other, which is a promise too.
static SANDBOXES: LazyLock<Sandboxes> =
    LazyLock::new(|| Sandboxes::new(&Pool { running: 64, idle: 32, cache: None }, LINES.sink()).unwrap());
static HOSTILE: LazyLock<Module> = LazyLock::new(|| SANDBOXES.load(&guests::bytes("hostile")).unwrap());
static LINES: Lines = Lines(Mutex::new(Vec::new()));

/// Diagnostics of all tests, told apart by the handler's name.
struct Lines(Mutex<Vec<(String, String)>>);

impl Lines {
    fn sink(&'static self) -> Sink {
        Arc::new(|line| self.0.lock().unwrap().push((line.handler.to_string(), line.text.to_owned())))
    }

    fn of(&self, handler: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(of, _)| of == handler).map(|(_, text)| text.clone()).collect()
    }
}

/// Settings that grant `out.>`, with time to spare on a busy machine.
fn settings(handler: &str) -> Settings {
    Settings {
        publish: vec![Pattern::parse("out.>").unwrap()],
        timeout: Duration::from_secs(20),
        ..Settings::new(HandlerName::parse(handler).unwrap())
    }
}

fn hostile(settings: Settings) -> Handler {
    SANDBOXES.handler(&HOSTILE, settings).unwrap()
}

fn fresh(handler: &str) -> Handler {
    hostile(settings(handler))
}

fn warm(handler: &str) -> Handler {
    hostile(Settings { mode: Mode::Warm, ..settings(handler) })
}

/// A message for the hostile guest under the key `ada`.
fn call(order: &str) -> Call {
    let mut new = NewMessage::new(Topic::parse("in.order").unwrap(), order.to_owned());
    new.headers = Headers::new(vec![("trace".into(), "1".into())]);
    new.id = Some("id-1".into());
    let message = Arc::new(Message::from_new(new, Offset(7), Timestamp(1_700_000_000_000)));
    Call {
        message,
        key: Key::parse("ada").unwrap(),
        attempt: 1,
        state: Entries::default(),
        delayed_room: DelayedRoom::ANY,
    }
}

fn state(entries: &[(&str, &'static str)]) -> Entries {
    entries.iter().map(|(name, value)| (Arc::from(*name), Bytes::from_static(value.as_bytes()))).collect()
}

async fn run(handler: &Handler, order: &str) -> Result<Effects, Failure> {
    handler.call(call(order)).await
}

/// The payload of the only message a run published.
async fn answer(handler: &Handler, order: &str) -> String {
    let effects = run(handler, order).await.unwrap();
    assert_eq!(effects.outputs.len(), 1, "{order}");
    String::from_utf8(effects.outputs[0].body.to_vec()).unwrap()
}

/// The reason of a run that traps.
async fn trap(handler: &Handler, order: &str) -> String {
    match run(handler, order).await {
        Err(Failure::Trap { reason }) => reason,
        other => panic!("`{order}` should trap, but is {other:?}"),
    }
}

/// The reason of a run that is rejected by the guest itself.
async fn reject(handler: &Handler, order: &str) -> String {
    match run(handler, order).await {
        Err(Failure::Reject { reason }) => reason,
        other => panic!("`{order}` should be rejected, but is {other:?}"),
    }
}

/// The reason of a run in which the host refused an effect, which the guest turns into a wish for a retry.
async fn refusal(handler: &Handler, order: &str) -> String {
    match run(handler, order).await {
        Err(Failure::Retry { reason, .. }) => reason,
        other => panic!("`{order}` should be refused, but is {other:?}"),
    }
}
