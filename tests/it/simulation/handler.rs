//! The native stand-in for a handler.

use sluicebox::effects::{Effects, Outgoing, StateWrite};
use sluicebox::handler::HandlerName;
use sluicebox::invoke::{Call, Failure};
use sluicebox::message::Headers;
use sluicebox::topic::Topic;
use std::time::Duration;

pub fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

/// What it does follows from the body: `ok`, `fail <times>`, `reject`, `boom`
/// (its output cannot be committed), `later` (publishes a second, delayed message).
pub fn handle(handler: &HandlerName, call: &Call) -> Result<Effects, Failure> {
    let body = String::from_utf8(call.message.body.to_vec()).unwrap();
    let mut words = body.split(' ');
    let kind = words.next().unwrap();
    match kind {
        "fail" if call.attempt <= words.next().unwrap().parse().unwrap() => {
            return Err(Failure::Retry { reason: "not yet".into(), after: None });
        }
        "reject" => return Err(Failure::Reject { reason: "never".into() }),
        _ => {}
    }
    let n = call.state.get("n").map_or(0, |n| String::from_utf8(n.to_vec()).unwrap().parse::<u64>().unwrap()) + 1;
    let body = format!(r#"{{"source":{},"n":{n}}}"#, call.message.offset);
    let output = |topic_name: String, body: String, delay| Outgoing {
        topic: topic(&topic_name),
        key: call.key.clone(),
        id: None,
        headers: Headers::default(),
        body: body.into(),
        delay,
    };
    let mut outputs = vec![output(format!("out.{handler}"), body, None)];
    if kind == "boom" {
        outputs.push(output("boom".into(), "boom".into(), None));
    }
    if kind == "later" {
        outputs.push(output(format!("later.{handler}"), call.message.offset.to_string(), Some(Duration::from_secs(5))));
    }
    let writes = match call.key {
        Some(_) => vec![StateWrite { entry: "n".into(), value: Some(n.to_string().into()) }],
        None => vec![],
    };
    Ok(Effects { outputs, writes, counts: vec![("ok".into(), 1)] })
}
