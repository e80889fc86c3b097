//! What the checker of the crash tests expects of a handler: `n` of the key goes up by one, and
//! `{"source": <offset>, "n": <n>}` is published under the key to the topic that the setting `output` names.
//!
//! The setting `wait_ms` makes every run wait so long. The body says how it goes: `ok …`, `fail <times> …` (retried so often), `reject …`, `trap …`, `spin …`.

use sluicebox_sdk::{Context, Failure, Text};

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
        Some("reject") => return Err(Failure::reject("never")),
        Some("trap") => panic!("as the message says"),
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
    let n: u64 = cx.state("n")?.unwrap_or(0) + 1;
    cx.set_state("n", &n)?;
    cx.count("ok", 1)?;
    let output = cx.config("output").unwrap_or_else(|| "out".into());
    let key = cx.key().map(str::to_owned);
    let fact = serde_json::json!({ "source": cx.message().offset, "n": n });
    let publish = cx.publish(output);
    match key {
        Some(key) => publish.key(key).json(&fact)?,
        None => publish.json(&fact)?,
    }
    Ok(())
}
