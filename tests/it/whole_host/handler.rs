//! The native stand-in for a module: what it does follows from the body, how long it takes from its seed.

use super::pass;
use crate::harness::native::{Native, count};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::effects::{Effects, Outgoing};
use sluicebox::invoke::{Call, Failure, Invoke};
use sluicebox::topic::Topic;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// `ok`, `fail <times>`, `bad` (never done), `reject`, `boom` (its output cannot be committed), `wait` (a while), `later`
/// (publishes a second, delayed message, whose id says of what it is).
fn handle(handler: &str, call: &Call) -> Result<Effects, Failure> {
    let body = String::from_utf8(call.message.body.to_vec()).unwrap();
    let mut words = body.split(' ');
    match words.next().unwrap() {
        "fail" if call.attempt <= words.next().unwrap().parse().unwrap() => {
            Err(Failure::Retry { reason: "not yet".into(), after: None })
        }
        "bad" => Err(Failure::Retry { reason: "as always".into(), after: None }),
        "reject" => Err(Failure::Reject { reason: "never".into() }),
        kind => {
            let mut effects = count(call, &format!("out.{handler}"));
            if kind == "boom" {
                let boom = Outgoing { topic: Topic::parse("boom").unwrap(), ..effects.outputs[0].clone() };
                effects.outputs.push(boom);
            }
            if kind == "later" {
                let source = call.message.offset.to_string();
                effects.outputs.push(Outgoing {
                    topic: Topic::parse(&format!("later.{handler}")).unwrap(),
                    id: Some(source.as_str().into()),
                    body: source.into(),
                    delay: Some(Duration::from_secs(2)),
                    ..effects.outputs[0].clone()
                });
            }
            Ok(effects)
        }
    }
}

/// Another one each time: that is what a swap is told by.
pub fn module(handler: &'static str, seed: u64) -> Arc<dyn Invoke> {
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    Native::new(move |call| {
        let waits = call.message.body.starts_with(b"wait") || random.lock().unwrap().random_bool(0.1);
        let millis = random.lock().unwrap().random_range(0..300);
        async move {
            if waits {
                pass(Duration::from_millis(millis)).await;
            }
            handle(handler, &call)
        }
    })
}
