//! `check --sample` as a person types it: who would get a message is said before any is published.

use crate::harness::process::Place;
use serde_json::{Value, json};

const SETTINGS: &str = r#"
[handlers.order]
module = "m.wasm"
subscribe = ["events.new_order"]
key = ["/user", "/User"]
id = "/id"
shards = 8

[handlers.audit]
module = "m.wasm"
subscribe = ["events.>"]
key = false
dedup = false

[handlers.typo]
module = "m.wasm"
subscribe = ["events.new_order"]
key = "/usr"
"#;

fn place() -> Place {
    let place = Place::new(SETTINGS, &[]);
    // Modules are not looked at.
    place.put("m.wasm", "");
    place
}

#[test]
fn a_sample_shows_who_would_get_it_and_a_typo_in_the_key() {
    let place = place();
    place.put("order.json", "{\n  \"user\": \"ada\",\n  \"id\": \"o-1\"\n}\n");
    let typed = ["check", "--sample", "order.json", "--topic", "events.new_order", "--id", "m-1"];
    let (exit, text, said) = place.command(&typed);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["SAMPLE", "HANDLER", "KEY", "ID", "SHARD", "NOTE"], "{said}");
    assert_eq!(lines[1][..4], ["1", "audit", "-", "m-1"]);
    assert!(text.contains("stands alone: no order, no state; `dedup` leaves it out"), "{text}");
    assert_eq!(lines[2][..4], ["1", "order", "ada", "o-1"]);
    assert_eq!(lines[2][5..], ["of", "8"]);
    assert_eq!(lines[3][..5], ["1", "typo", "-", "-", "-"]);
    assert!(text.contains("unroutable, would be a dead letter: no key: none of `/usr` yields"), "{text}");
    assert_eq!(exit, 1, "one of them could not handle it");
    assert!(!place.data().exists(), "no log is made");
}

#[test]
fn each_line_is_a_sample_and_programs_read_json() {
    let place = place();
    place.put("orders.ndjson", "{\"User\":\"ben\"}\n\n{\"user\":7,\"id\":\"o-2\"}\n");
    let (_, text, _) =
        place.command(&["check", "--sample", "orders.ndjson", "--topic", "events.new_order", "--key", "k", "--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["samples"].as_array().unwrap().len(), 2);
    let second = &answer["samples"][1]["handlers"];
    assert_eq!((&second[1]["key"], &second[1]["id"], &second[1]["alone"]), (&json!("7"), &json!("o-2"), &json!(false)));
    assert_eq!(
        (&second[0]["key"], &second[0]["alone"], &second[0]["deduplicated"]),
        (&json!(null), &json!(true), &json!(false))
    );
    assert_eq!(second[2]["unroutable"]["kind"], "key");
    assert_eq!(answer["samples"][0]["handlers"][1]["id"], json!(null));
}

#[tokio::test]
async fn the_shard_of_a_sample_is_the_one_that_the_host_uses() {
    let place = Place::new(
        "[handlers.first]\nmodule = \"ledger.wasm\"\nsubscribe = [\"in\"]\nstart = \"earliest\"\nshards = 8\nkey = \"/user\"\n\
         retry = { attempts = 1 }\npublish = [\"elsewhere\"]\n",
        &[],
    );
    place.put("ledger.wasm", crate::harness::guests::ledger(1));
    let body = r#"{"user":"ada"}"#;
    place.put("sample.json", body);
    let (exit, text, said) = place.command(&["check", "--sample", "sample.json", "--topic", "in", "--json"]);
    assert_eq!(exit, 0, "{said}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    // It may not publish where it does, so the message becomes a dead letter of its shard.
    let host = place.start();
    assert!(host.publish("in", None, None, body).await);
    let dead = async |host: &crate::harness::process::Process| -> Value {
        serde_json::from_str::<Value>(&host.get("/v1/dead").await).unwrap()["letters"][0].clone()
    };
    host.until("it is dead", async |host| !dead(host).await.is_null()).await;
    assert_eq!(dead(&host).await["shard"], answer["samples"][0]["handlers"][0]["shard"]);
}

#[track_caller]
fn check(arguments: &[&str], exit: i32, expected: &str) {
    let place = place();
    place.put("bad.ndjson", "{}\n{\"a\":\n");
    place.put("empty.json", "\n");
    let (found, text, said) = place.command(&[&["check"], arguments].concat());
    assert_eq!(found, exit, "{text}{said}");
    assert!(format!("{text}{said}").contains(expected), "{text}{said}");
}

#[test]
fn what_cannot_be_a_sample_is_refused_with_what_to_do() {
    check(&["--sample", "gone.json", "--topic", "a"], 1, "failed to read the sample from `gone.json`");
    check(&["--sample", "bad.ndjson", "--topic", "a"], 1, "line 2 of `bad.ndjson` is not JSON (EOF while parsing");
    check(&["--sample", "empty.json", "--topic", "a"], 1, "`empty.json` is empty: give one JSON body");
    check(&["--sample", "bad.ndjson"], 2, "--topic <TOPIC>");
    check(&["--topic", "a"], 2, "--sample <FILE>");
    check(&["--sample", "bad.ndjson", "--topic", "a.*"], 2, "`a.*` is a pattern");
    check(&["--sample", "bad.ndjson", "--topic", "_retry.order"], 2, "belong to the host");
    check(&["--sample", "-", "--topic", "a"], 1, "standard input is empty");
}

#[test]
fn a_topic_that_nobody_subscribes_to_is_said_with_what_is_subscribed_to() {
    let place = place();
    place.put("order.json", "{}");
    let (exit, text, _) = place.command(&["check", "--sample", "order.json", "--topic", "event.new_order"]);
    assert_eq!(exit, 1);
    assert!(
        text.contains("none subscribes to `event.new_order` (audit to events.>; order to events.new_order"),
        "{text}"
    );
}
