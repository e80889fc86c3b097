//! Typed at the real program as a person types it.

use crate::harness::guests;
use crate::harness::process::{Place, Process};
use serde_json::{Value, json};

/// One handler with these further settings.
fn settings(further: &str) -> String {
    format!(
        "[handlers.first]\nmodule = \"ledger.wasm\"\nsubscribe = [\"in\"]\nstart = \"earliest\"\npublish = [\"out\"]\n\
         retry = {{ attempts = 3 }}\n{further}"
    )
}

fn place(further: &str) -> Place {
    let place = Place::new(&settings(further), &[]);
    place.put("ledger.wasm", guests::ledger(1));
    place
}

#[track_caller]
fn typed(place: &Place, arguments: &[&str], exit: i32) -> String {
    let (found, output, said) = place.command(arguments);
    assert_eq!(found, exit, "{arguments:?}: {output}{said}");
    format!("{output}{said}")
}

async fn outcome(host: &Process, name: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="first",outcome="{name}",topic="in"}}"#)).await
}

async fn until(host: &Process, name: &str, count: u64) {
    host.until(&format!("{count} are {name}"), async |host| outcome(host, name).await == count).await;
}

async fn show(host: &Process) -> Value {
    serde_json::from_str(&host.get("/v1/handlers/first").await).unwrap()
}

#[tokio::test]
async fn changed_shards_are_refused_with_the_way_out_and_nothing_is_done_twice_after_it() {
    let place = place("shards = 2\n");
    let host = place.start();
    for number in 0..20 {
        assert!(host.publish("in", Some(&format!("k{number}")), Some("a"), "ok").await);
    }
    until(&host, "done", 20).await;
    place.settings(&settings("shards = 5\n"));
    let said = typed(&place, &["handlers", "reroute", "first", "--yes"], 1);
    assert!(said.contains("while no host runs: stop it with Ctrl-C"), "{said}");
    host.kill();

    assert!(place.start_by(&[], &[]).url.is_empty());
    assert!(place.heard().contains("`sluicebox handlers reroute first`"), "{}", place.heard());
    let said = typed(&place, &["handlers", "reroute", "first", "--dry-run"], 0);
    assert!(said.contains("first: shards from 2 to 5; open messages 0, delayed 0, dead letters 0"), "{said}");
    assert!(said.contains("remembered ids 20: nothing was done"), "{said}");
    let said = typed(&place, &["handlers", "reroute", "first"], 2);
    assert!(said.contains("add --yes"), "{said}");
    let said = typed(&place, &["handlers", "reroute", "first", "--yes", "--json"], 0);
    let answer: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&answer["rerouted"], &answer["ids"]), (&json!(true), &json!(20)));
    assert_eq!(answer["changes"], json!([{ "field": "shards", "from": "2", "to": "5" }]));
    let said = typed(&place, &["handlers", "reroute", "first", "--yes"], 0);
    assert!(said.contains("the log has its key, id and shards as the settings say"), "{said}");

    let host = place.start();
    for number in 0..20 {
        assert!(host.publish("in", Some(&format!("k{number}")), Some("a"), "ok").await);
    }
    assert!(host.publish("in", Some("k1"), Some("b"), "ok").await);
    until(&host, "duplicate", 20).await;
    until(&host, "done", 1).await;
    assert_eq!(show(&host).await["shards"].as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn a_typo_in_the_key_is_mended_and_what_died_by_it_is_handled() {
    let place = place("key = \"/usr\"\n");
    let host = place.start();
    assert!(host.publish("in", None, Some("a"), r#"{"user":"ada"}"#).await);
    until(&host, "dead", 1).await;
    host.stop();
    place.settings(&settings("key = \"/user\"\n"));
    typed(&place, &["handlers", "reroute", "first", "--yes"], 0);
    let host = place.start();
    typed(&place, &["dead", "retry", "--handler", "first", "--all", "--yes", "--url", &host.url], 0);
    until(&host, "done", 1).await;
    let state = typed(&place, &["state", "list", "first", "--url", &host.url], 0);
    assert!(state.contains("ada"), "{state}");
}

#[tokio::test]
async fn a_changed_key_is_refused_while_messages_are_open_and_leaves_state_only_when_asked() {
    let place = place("key = \"/a\"\n");
    let host = place.start();
    assert!(host.publish("in", None, None, r#"{"a":"x","b":"y"}"#).await);
    until(&host, "done", 1).await;
    host.stop();
    place.settings(&settings("key = \"/b\"\n"));
    let said = typed(&place, &["handlers", "reroute", "first", "--yes"], 1);
    assert!(said.contains("has state (of 1 key)") && said.contains("--keep-state"), "{said}");
    // It goes on as it was.
    place.settings(&settings("key = \"/a\"\n"));
    let host = place.start();
    typed(&place, &["handlers", "pause", "first", "--key", "x", "--url", &host.url], 0);
    assert!(host.publish("in", None, None, r#"{"a":"x","b":"y"}"#).await);
    host.until("it waits", async |host| show(host).await["waiting"]["messages"] == 1).await;
    host.stop();
    place.settings(&settings("key = \"/b\"\n"));
    let said = typed(&place, &["handlers", "reroute", "first", "--yes", "--keep-state"], 1);
    assert!(said.contains("messages of handler `first` are open or not taken up by every shard (1)"), "{said}");

    place.settings(&settings("key = \"/a\"\n"));
    let host = place.start();
    typed(&place, &["handlers", "resume", "first", "--key", "x", "--url", &host.url], 0);
    until(&host, "done", 1).await;
    host.stop();
    place.settings(&settings("key = \"/b\"\n"));
    let said = typed(&place, &["handlers", "reroute", "first", "--yes", "--keep-state"], 0);
    assert!(said.contains("the state of 1 key stays behind"), "{said}");
    let host = place.start();
    assert!(host.publish("in", None, None, r#"{"a":"x","b":"y"}"#).await);
    until(&host, "done", 1).await;
    let state = typed(&place, &["state", "get", "first", "y", "n", "--url", &host.url], 0);
    assert!(state.contains('1'), "{state}");
}

#[tokio::test]
async fn a_changed_id_is_also_that_of_what_was_done_before() {
    let place = place("id = \"/wrong\"\n");
    let host = place.start();
    // The wrong one is remembered too, once: the other three are duplicates by it.
    for right in ["a", "b", "c", "d"] {
        assert!(host.publish("in", Some("k"), None, &format!(r#"{{"wrong":"order","right":"{right}"}}"#)).await);
    }
    until(&host, "done", 1).await;
    until(&host, "duplicate", 3).await;
    host.stop();
    place.settings(&settings("id = \"/right\"\n"));
    typed(&place, &["handlers", "reroute", "first", "--yes"], 0);
    let host = place.start();
    for right in ["a", "b", "c", "d"] {
        assert!(host.publish("in", Some("k"), None, &format!(r#"{{"wrong":"order","right":"{right}"}}"#)).await);
    }
    until(&host, "done", 3).await;
    until(&host, "duplicate", 1).await;
}

#[tokio::test]
async fn what_waits_and_what_operators_asked_for_goes_along_to_fewer_shards() {
    let place = place("shards = 4\n");
    let host = place.start();
    for number in 0..8 {
        let key = format!("k{number}");
        assert!(host.publish("in", Some(&key), None, "wait 9").await);
        assert!(host.publish("in", Some(&format!("d{number}")), None, "later 600").await);
        assert!(host.publish("in", Some(&format!("x{number}")), None, "reject").await);
        typed(&place, &["handlers", "pause", "first", "--key", &format!("p{number}"), "--url", &host.url], 0);
    }
    until(&host, "dead", 8).await;
    until(&host, "done", 8).await;
    host.until("all waits", async |host| show(host).await["open"] == 8).await;
    host.stop();
    place.settings(&settings("shards = 1\n"));
    let said = typed(&place, &["handlers", "reroute", "first", "--yes"], 0);
    assert!(said.contains("shards from 4 to 1; open messages 8, delayed 8, dead letters 8"), "{said}");

    let host = place.start();
    let shown = show(&host).await;
    assert_eq!((&shown["open"], &shown["delayed"], &shown["dead"]), (&json!(8), &json!(8), &json!(8)));
    let waiting: Value = serde_json::from_str(&host.get("/v1/handlers/first/waiting").await).unwrap();
    assert!(waiting.to_string().contains("a later version can do it"), "{waiting}");
    // A key that was paused still is.
    assert!(host.publish("in", Some("p3"), None, "ok").await);
    host.until("it waits", async |host| show(host).await["waiting"]["messages"] == 9).await;
    typed(&place, &["handlers", "resume", "first", "--key", "p3", "--url", &host.url], 0);
    until(&host, "done", 1).await;
    // The letters are found by their shard, and retried with what operators asked for.
    typed(&place, &["dead", "retry", "--handler", "first", "--all", "--yes", "--url", &host.url], 0);
    until(&host, "dead", 8).await;
}

#[test]
fn what_cannot_be_rerouted_says_why() {
    let place = place("");
    let said = typed(&place, &["handlers", "reroute", "first", "--yes"], 1);
    assert!(said.contains("there is no log in `") && said.contains("nothing to reroute"), "{said}");
    assert!(!place.data().exists());
    let said = typed(&place, &["handlers", "reroute", "second", "--yes"], 1);
    assert!(said.contains("has no handler `second`"), "{said}");
    place.start().stop();
    place.settings(&format!("{}\n{}", settings(""), settings("").replace("first", "second")));
    let said = typed(&place, &["handlers", "reroute", "second", "--yes"], 1);
    assert!(said.contains("the log does not know handler `second`"), "{said}");
}
