//! One trace, from publishing through runs and commits to what came out of them.

use crate::harness::guests;
use crate::harness::process::Place;

const SETTINGS: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
publish = ["middle"]
config = { output = "middle" }

[handlers.speaks]
module = "hostile.wasm"
subscribe = ["in"]
publish = ["elsewhere"]

[handlers.second]
module = "ledger.wasm"
subscribe = ["middle"]
publish = ["out"]
config = { output = "out" }
"#;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn one_trace_goes_through_publish_run_commit_and_outputs() {
    let place = Place::new(SETTINGS, &[&guests::guest("ledger"), &guests::guest("hostile")]);
    let host = place.start_heard_at("sluicebox=debug,guest=info");
    let request = host.client.post(format!("{}/v1/topics/in", host.url)).header("sluicebox-key", "k");
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert!(request.body("say 7").send().await.unwrap().status().is_success());

    let traced = |said: &str, what: &[&str]| {
        said.lines().any(|line| line.contains(TRACE) && what.iter().all(|what| line.contains(what)))
    };
    let steps: [&[&str]; 4] = [
        &["published", "publish"],
        // What a guest says is inside the span of its run, which names the shard.
        &["run{", "speaks/", " 7 "],
        &["settled", "first/", "done"],
        &["settled", "second/", "done"],
    ];
    host.until("every step of the trace", async |_| steps.iter().all(|step| traced(&place.heard(), step))).await;
    // And the output of the last run bears it.
    let (code, tail, error) =
        place.command(&["tail", "out", "--from", "earliest", "-n", "1", "--json", "--url", &host.url]);
    assert_eq!(code, 0, "{error}");
    assert!(tail.contains(TRACE), "{tail}");
}

/// Nothing of it is made, or written, where nobody listens.
#[tokio::test]
async fn without_debug_diagnostics_nothing_is_said_of_traces() {
    let place = Place::new(SETTINGS, &[&guests::guest("ledger"), &guests::guest("hostile")]);
    let host = place.start_heard();
    let request = host.client.post(format!("{}/v1/topics/in", host.url)).header("sluicebox-key", "k");
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert!(request.body("say 7").send().await.unwrap().status().is_success());
    let done = r#"messages_total{handler="second",outcome="done",topic="middle"}"#;
    host.until("both are done", async |host| host.metric(done).await == 1).await;
    assert!(!place.heard().contains(TRACE), "{}", place.heard());
}
