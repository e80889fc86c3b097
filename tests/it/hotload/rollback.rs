//! An operator goes back to an earlier version, whatever the file holds.

use super::{ONE, handled, place, until_refused, until_taken};
use crate::harness::guests;
use crate::harness::process::{Place, Process};
use serde_json::{Value, json};
use sluicebox::handler::Digest;

async fn command(host: &Process, command: &str, body: Value) {
    command_answers(host, command, body, 202).await;
}

async fn command_answers(host: &Process, command: &str, body: Value, expected: u16) {
    let url = format!("{}/v1/handlers/first/{command}", host.url);
    let answer = host.client.post(url).json(&body).send().await.unwrap();
    let status = answer.status();
    assert_eq!(status, expected, "{}", answer.text().await.unwrap());
}

/// What the host says of the handler that runs.
async fn shown(host: &Process) -> Value {
    let mut view: Value = serde_json::from_str(&host.get("/v1/handlers/first").await).unwrap();
    view["running"].take()
}

fn digest(version: u64) -> String {
    Digest::of(&guests::ledger(version)).to_string()
}

/// A host that ran version 1 and runs version 2.
async fn second(place: &Place) -> Process {
    let host = place.start_heard();
    assert_eq!(handled(place, &host, "ok").await.version, 1);
    place.put("ledger.wasm", guests::ledger(2));
    until_taken(&host, 1).await;
    assert_eq!(handled(place, &host, "ok").await.version, 2);
    host
}

#[tokio::test]
async fn a_rollback_and_an_unpin_swap_without_a_restart() {
    let place = place(ONE);
    let host = second(&place).await;
    command(&host, "rollback", json!({})).await;
    until_taken(&host, 2).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 1);
    let view = shown(&host).await;
    assert_eq!(view["digest"], digest(1), "{view}");
    assert_eq!(view["file_digest"], digest(2), "{view}");
    let versions: Vec<&str> =
        view["versions"].as_array().unwrap().iter().map(|version| version["digest"].as_str().unwrap()).collect();
    assert_eq!(versions, [digest(1), digest(2)]);

    command(&host, "unpin", json!({})).await;
    until_taken(&host, 3).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 2);
}

#[tokio::test]
async fn a_rollback_holds_over_a_restart_and_until_the_file_changes() {
    let place = place(ONE);
    let host = second(&place).await;
    command(&host, "rollback", json!({ "digest": digest(1) })).await;
    until_taken(&host, 2).await;
    assert!(host.stop().success());

    let host = place.start_heard();
    assert_eq!(handled(&place, &host, "ok").await.version, 1, "also for the first message");
    place.put("ledger.wasm", guests::ledger(3));
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 3);
    host.kill();
    let host = place.start_heard();
    assert_eq!(handled(&place, &host, "ok").await.version, 3);
    assert_eq!(shown(&host).await["versions"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_settings_change_under_a_rollback_keeps_the_version() {
    let place = place(ONE);
    let host = second(&place).await;
    command(&host, "rollback", json!({})).await;
    until_taken(&host, 2).await;
    place.settings(&ONE.replace("mode = \"a\"", "mode = \"b\""));
    until_taken(&host, 3).await;
    let fact = handled(&place, &host, "ok").await;
    assert_eq!((fact.version, fact.mode.as_deref()), (1, Some("b")));
}

#[tokio::test]
async fn a_version_that_cannot_be_loaded_is_refused_and_the_one_in_the_file_stays() {
    let place = place(ONE);
    let host = second(&place).await;
    let kept = place.data().join("modules").join(format!("{}.wasm", digest(1)));
    assert_eq!(std::fs::read(&kept).unwrap(), guests::ledger(1));
    std::fs::write(&kept, "damaged").unwrap();
    command(&host, "rollback", json!({})).await;
    until_refused(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 2);
    let told = format!("cannot go back to version {} of handler `first`", digest(1));
    let problem = shown(&host).await["problem"].as_str().unwrap().to_owned();
    assert!(problem.starts_with(&told) && problem.contains("is damaged"), "{problem}");
    assert!(place.heard().contains(&told), "{}", place.heard());
    // Nor does it keep the host from starting.
    assert!(host.stop().success());
    assert_eq!(handled(&place, &place.start_heard(), "ok").await.version, 2);
}

#[tokio::test]
async fn forgetting_a_handler_deletes_its_versions_and_no_others() {
    const OTHER: &str = r#"
[handlers.other]
module = "other.wasm"
subscribe = ["in"]
publish = ["also"]
config = { output = "also" }
"#;
    let place = place(&format!("{ONE}{OTHER}"));
    place.put("other.wasm", guests::ledger(5));
    let host = second(&place).await;
    let kept = |version| place.data().join("modules").join(format!("{}.wasm", digest(version))).exists();
    assert!(kept(1) && kept(2) && kept(5));
    place.settings(OTHER);
    until_taken(&host, 2).await;
    assert!(kept(1) && kept(2), "it may come back");
    command_answers(&host, "forget", json!({ "confirm": "first" }), 200).await;
    assert!(!kept(1) && !kept(2) && kept(5));
}
