//! An operator's day, with the real program: dead letters retried and dropped, handlers paused, forgotten, looked at.

use crate::harness::guests::guest;
use crate::harness::process::{Place, Process};
use serde_json::Value;

/// The handler `first`, which gives a message up after so many tries.
fn settings(attempts: u32) -> String {
    format!(
        "[handlers.first]\nmodule = \"ledger.wasm\"\nsubscribe = [\"in\"]\npublish = [\"out\"]\nshards = 4\nbreaker = false\n\
         retry = {{ attempts = {attempts}, min = \"1ms\", max = \"2ms\" }}\n"
    )
}

/// Runs a command against the host; its output. It must end well.
#[track_caller]
fn operate(place: &Place, host: &Process, arguments: &[&str]) -> String {
    let (exit, text, errors) = place.command(&[arguments, &["--url", &host.url]].concat());
    assert_eq!(exit, 0, "{arguments:?}: {errors}");
    text
}

fn shown(place: &Place, host: &Process) -> Value {
    serde_json::from_str(&operate(place, host, &["handlers", "show", "first", "--json"])).unwrap()
}

/// The facts that the handler published: keys and offsets of their messages, in order.
fn facts(place: &Place, host: &Process) -> Vec<(String, u64)> {
    let text = operate(place, host, &["tail", "out", "--from", "earliest", "--no-follow", "--json"]);
    let fact = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap();
        let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        (message["key"].as_str().unwrap().to_owned(), body["source"].as_u64().unwrap())
    };
    text.lines().map(fact).collect()
}

async fn until_dead(place: &Place, host: &Process, letters: u64) {
    let counted = format!("{letters}\n");
    host.until("they are given up", async |host| operate(place, host, &["dead", "count"]).replace(',', "") == counted)
        .await;
}

#[tokio::test]
async fn dead_letters_are_retried_in_order_or_dropped_when_the_command_returns() {
    let place = Place::new(&settings(2), &[&guest("ledger")]);
    let host = place.start();
    for number in 0..200 {
        let key = format!("k{}", number % 5);
        assert!(host.publish("in", Some(&key), None, "fail 3").await);
        if number % 4 == 0 {
            assert!(host.publish("in", Some(&key), None, "reject").await);
        }
    }
    until_dead(&place, &host, 250).await;
    let (exit, _, errors) = place.command(&["dead", "drop", "--kind", "reject", "--url", &host.url]);
    assert_eq!(exit, 2, "{errors}");
    assert_eq!(errors, "error: to drop 50 dead letters: 50 of first without being asked on a terminal, add --yes\n");
    let dropped = operate(&place, &host, &["dead", "drop", "--kind", "reject", "--yes"]);
    assert_eq!(dropped, "dropped 50 dead letters: 50 of first\n");
    assert_eq!(operate(&place, &host, &["dead", "count"]), "200\n");
    // They fail again: each is a new dead letter, which this order is not about.
    let retried = operate(&place, &host, &["dead", "retry", "--key", "k0", "--yes"]);
    assert_eq!(retried, "retried 40 dead letters: 40 of first\n");
    until_dead(&place, &host, 200).await;
    assert!(host.stop().success());

    place.settings(&settings(8));
    let host = place.start();
    let retried = operate(&place, &host, &["dead", "retry", "--all", "--yes", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&retried).unwrap()["letters"], 200);
    assert_eq!(operate(&place, &host, &["dead", "count"]), "0\n");
    host.until("they are handled", async |host| facts(&place, host).len() == 200).await;
    let facts = facts(&place, &host);
    for key in ["k0", "k1", "k2", "k3", "k4"] {
        let sources: Vec<u64> = facts.iter().filter(|(of, _)| of == key).map(|(_, source)| *source).collect();
        assert_eq!(sources.len(), 40, "{key}");
        assert!(sources.is_sorted(), "{key}: {sources:?}");
    }
    let jobs = &shown(&place, &host)["control"]["jobs"];
    assert!(jobs.is_null(), "{jobs}");
}

#[tokio::test]
async fn a_paused_handler_waits_also_after_a_kill_and_goes_on_where_it_was() {
    let place = Place::new(&settings(8), &[&guest("ledger")]);
    let host = place.start();
    operate(&place, &host, &["handlers", "pause", "first", "--key", "slow"]);
    host.until("the key is paused", async |host| shown(&place, host)["control"]["paused_keys"][0] == "slow").await;
    for key in ["slow", "quick", "slow"] {
        assert!(host.publish("in", Some(key), None, "ok").await);
    }
    host.until("the other key is handled", async |host| facts(&place, host).len() == 1).await;
    assert_eq!(facts(&place, &host)[0].0, "quick");

    operate(&place, &host, &["handlers", "pause", "first"]);
    let all_paused = |handler: &Value| {
        let shards = handler["shards"].as_array().unwrap();
        shards.len() == 4 && shards.iter().all(|shard| shard["control"]["paused"] == true)
    };
    host.until("every shard is paused", async |host| all_paused(&shown(&place, host))).await;
    assert!(host.publish("in", Some("quick"), None, "ok").await);
    host.kill();
    let host = place.start();
    assert!(all_paused(&shown(&place, &host)));
    assert!(operate(&place, &host, &["status"]).contains("paused, 1 key paused"));
    assert_eq!(facts(&place, &host).len(), 1, "it ran although it is paused");

    operate(&place, &host, &["handlers", "resume", "first"]);
    host.until("the handler goes on", async |host| facts(&place, host).len() == 2).await;
    operate(&place, &host, &["handlers", "resume", "first", "--key", "slow"]);
    host.until("the key goes on", async |host| facts(&place, host).len() == 4).await;
    let keys: Vec<String> = facts(&place, &host).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["quick", "quick", "slow", "slow"]);
}

#[tokio::test]
async fn a_handler_is_forgotten_only_when_the_settings_no_longer_name_it() {
    let place = Place::new(&settings(1), &[&guest("ledger")]);
    let host = place.start();
    assert!(host.publish("in", Some("a"), None, "reject").await);
    until_dead(&place, &host, 1).await;
    let forget = ["handlers", "forget", "first", "--yes", "--url", &host.url];
    let (exit, _, errors) = place.command(&forget);
    assert_eq!(exit, 1);
    assert!(errors.contains("handler `first` is in the settings: take it out of the settings file"), "{errors}");

    let renamed = settings(1).replace("handlers.first", "handlers.second");
    place.settings(&renamed);
    host.until("the host runs another handler", async |host| shown(&place, host)["running"].is_null()).await;
    let (exit, _, errors) = place.command(&["dead", "retry", "--handler", "first", "--url", &host.url]);
    assert_eq!(exit, 1);
    assert!(errors.contains("no settings name handler `first`, so nothing would execute it"), "{errors}");
    assert_eq!(operate(&place, &host, &forget[..4]), "first is forgotten\n");
    assert_eq!(operate(&place, &host, &["dead", "count"]), "0\n");
    let handlers: Value = serde_json::from_str(&operate(&place, &host, &["handlers", "list", "--json"])).unwrap();
    let names: Vec<&str> = handlers["handlers"].as_array().unwrap().iter().filter_map(|h| h["name"].as_str()).collect();
    assert_eq!(names, ["second"]);
}
