//! What the checker of the crash tests expects of a handler: `n` of the key goes up by one, and
//! `{"source": <offset>, "n": <n>}` is published under the key to the topic that the setting `output` names.
//!
//! The fact also says which `version` of the module made it, and in which `mode` the setting of that name put it.
//!
//! The setting `wait_ms` makes every run wait so long. The body says how it goes: `ok …`, `fail <times> …` (retried so often),
//! `wait <version> …` (retried after ten minutes by any version below), `reject …`, `trap …`, `spin …`,
//! `later <seconds> …` (its fact is published so much later; with the setting `later`, which names a topic, its fact comes at
//! once, and the offset on that topic so much later). Without a key nothing is counted: state belongs to a key.

use sluicebox_sdk::{Context, Failure, Text};
use std::time::Duration;

/// Tests of swaps replace the digits in the built module: that is another version, and takes no build.
static VERSION: &str = "version=00000000";

fn version() -> u64 {
    // Otherwise the compiler computes with the digits above.
    std::hint::black_box(VERSION).trim_start_matches("version=").parse().unwrap_or(0)
}

#[sluicebox_sdk::handler]
fn ledger(body: Text, cx: &mut Context) -> Result<(), Failure> {
    if let Some(wait_ms) = cx.config("wait_ms").and_then(|wait_ms| wait_ms.parse().ok()) {
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
    }
    let mut words = body.split(' ');
    match words.next() {
        Some("fail") => {
            let times: u32 = words.next().and_then(|times| times.parse().ok()).unwrap_or(0);
            if cx.attempt() <= times {
                return Err(Failure::retry("not yet"));
            }
        }
        Some("wait") => {
            let fixed: u64 = words.next().and_then(|fixed| fixed.parse().ok()).unwrap_or(0);
            if version() < fixed {
                return Err(Failure::retry_after("a later version can do it", Duration::from_secs(600)));
            }
        }
        Some("reject") => return Err(Failure::reject("never")),
        Some("trap") => panic!("as the message says"),
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
    let key = cx.key().map(str::to_owned);
    let mut n: u64 = 1;
    if key.is_some() {
        n += cx.state("n")?.unwrap_or(0);
        cx.set_state("n", &n)?;
    }
    cx.count("ok", 1)?;
    let output = cx.config("output").unwrap_or_else(|| "out".into());
    let mode = cx.config("mode");
    let fact = serde_json::json!({ "source": cx.message().offset, "n": n, "version": version(), "mode": mode });
    let delay = body.split_once(' ').filter(|(what, _)| *what == "later").map(|(_, seconds)| {
        let seconds = seconds.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        Duration::from_secs(seconds)
    });
    let publish = match (delay, cx.config("later")) {
        (Some(delay), Some(topic)) => {
            let offset = cx.message().offset.unwrap_or(0);
            cx.publish(topic).delay(delay).text(offset.to_string())?;
            cx.publish(output)
        }
        (Some(delay), None) => cx.publish(output).delay(delay),
        (None, _) => cx.publish(output),
    };
    match key {
        Some(key) => publish.key(key).json(&fact)?,
        None => publish.json(&fact)?,
    }
    Ok(())
}
