//! The handlers of the story, as native functions.

use super::model::Rule;
use crate::harness::native::Native;
use serde_json::Value;
use sluicebox::config::Start;
use sluicebox::effects::{Effects, Outgoing};
use sluicebox::handler::{HandlerName, Policy, Retry};
use sluicebox::host::Handler;
use sluicebox::invoke::Failure;
use sluicebox::message::{Headers, Message};
use sluicebox::routing::{Field, IdFrom, KeyFrom};
use sluicebox::topic::{Pattern, Topic};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The handlers: what they subscribe to, by which rule, over how many shards.
pub const HANDLERS: [(&str, &str, Rule, u16); 5] = [
    ("own", "in", Rule::Own, 8),
    ("fields", "in", Rule::Fields, 3),
    ("unordered", "in", Rule::Unordered, 8),
    ("every", "in", Rule::Every, 4),
    // Each output of `every` is another message, and the same one again when that was forgotten and did it again.
    ("chained", "out.every", Rule::Every, 4),
];

/// While it is so, `own` cannot be done with messages that say that they are stubborn.
#[derive(Default)]
pub struct Stubborn {
    pub is: AtomicBool,
    pub tries: AtomicUsize,
}

pub fn handler(name: &'static str, subscribe: &str, rule: Rule, shards: u16, stubborn: Arc<Stubborn>) -> Handler {
    let handle = move |message: &Message| {
        let mut body: Value = serde_json::from_slice(&message.body).unwrap();
        if name == "own" && body["bad"] == true {
            return Err(Failure::Reject { reason: "bad".into() });
        }
        if name == "own" && body["stubborn"] == true && stubborn.is.load(Ordering::Relaxed) {
            stubborn.tries.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::Retry { reason: "not now".into(), after: None });
        }
        // Only the first of a chain saw it.
        if let Some(pad) = body["pad"].as_str() {
            body["pad"] = pad.len().into();
        }
        Ok(body)
    };
    let invoke = Native::new(move |call| {
        let handled = handle(&call.message);
        async move {
            let body = handled?;
            let (key, id) = (call.message.key.clone(), None);
            let topic = Topic::parse(&format!("out.{name}")).unwrap();
            let body = body.to_string().into();
            let output = Outgoing { topic, key, id, headers: Headers::default(), body, delay: None };
            Ok(Effects { outputs: vec![output], ..Effects::default() })
        }
    });
    let pointer = |text: &str| vec![Field::Pointer(text.into())];
    let mut policy = Policy::default();
    if name == "every" {
        policy.dedup = None;
    }
    // As often as it takes.
    policy.retry = Retry { attempts: 1_000_000, min: Duration::from_millis(1), max: Duration::from_millis(20) };
    Handler {
        name: HandlerName::parse(name).unwrap(),
        subscribe: vec![Pattern::parse(subscribe).unwrap()],
        key: match rule {
            Rule::Own | Rule::Every => KeyFrom::Message,
            Rule::Fields => KeyFrom::Fields(pointer("/user")),
            Rule::Unordered => KeyFrom::None,
        },
        id: match rule {
            Rule::Own | Rule::Every => IdFrom::Message,
            Rule::Fields | Rule::Unordered => IdFrom::Fields(pointer("/id")),
        },
        shards,
        start: Start::Earliest,
        policy,
        invoke,
    }
}
