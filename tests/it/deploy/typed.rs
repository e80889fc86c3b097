//! What an operator types: deploy, look, go back, and go back to the file.

use super::{command, digest, handled, place, shown, typed};
use crate::harness::guests;

#[tokio::test]
async fn a_deployed_version_is_in_force_when_the_command_returns_and_over_any_file() {
    let place = place();
    let host = place.start_heard();
    assert_eq!(handled(&place, &host).await, 1);
    let output = typed(&place, &host, &["deploy", "first", "v2.wasm"]);
    let expected = format!("first: version {} is in the log at offset ", digest(2));
    assert!(output.starts_with(&expected) && output.ends_with(&format!("in force at {}\n", host.url)), "{output}");
    assert_eq!(handled(&place, &host).await, 2);
    let view = shown(&host).await;
    let running = &view["running"];
    assert_eq!((&running["digest"], &running["deployed"]), (&digest(2).into(), &true.into()), "{view}");
    assert_eq!((&running["file_digest"], &running["problem"]), (&digest(1).into(), &serde_json::Value::Null));
    let pin = serde_json::json!({ "digest": digest(2) });
    host.until("it is recorded", async |host| shown(host).await["control"]["pin"] == pin).await;

    // A file that changes now is not what runs, and that is said.
    place.put("ledger.wasm", guests::ledger(4));
    host.until("the file was looked at", async |host| shown(host).await["running"]["file_digest"] == digest(4)).await;
    assert_eq!(handled(&place, &host).await, 2);
    let told = format!("the module file holds version {}, which does not run before", digest(4));
    host.until("it is said", async |_| place.heard().contains(&told)).await;
    let text = typed(&place, &host, &["handlers", "show", "first"]);
    assert!(text.starts_with("first: deployed\n"), "{text}");
    assert!(
        text.contains(&format!("version {} from the log, whatever is in the file, until unpin", digest(2))),
        "{text}"
    );

    typed(&place, &host, &["handlers", "unpin", "first"]);
    host.until("the file runs", async |host| shown(host).await["running"]["digest"] == digest(4)).await;
    assert_eq!(handled(&place, &host).await, 4);
}

#[tokio::test]
async fn a_host_that_starts_runs_the_deployed_version_from_the_first_message_on_whatever_it_has_itself() {
    let place = place();
    let host = place.start_heard();
    typed(&place, &host, &["deploy", "first", "v2.wasm"]);
    // A run has it recorded that the version is in force.
    assert_eq!(handled(&place, &host).await, 2);
    assert!(host.stop().success());
    // As a host has it that never ran it.
    std::fs::remove_dir_all(place.data().join("modules")).unwrap();
    place.put("ledger.wasm", "no module at all");
    let host = place.start_heard();
    assert_eq!(handled(&place, &host).await, 2);
    let running = shown(&host).await["running"].take();
    assert_eq!((&running["digest"], &running["problem"]), (&digest(2).into(), &serde_json::Value::Null));
    assert!(place.data().join("modules").join(format!("{}.wasm", digest(2))).exists(), "it has it now");

    // A file that goes while the host runs is nothing to it.
    std::fs::remove_file(place.path().join("ledger.wasm")).unwrap();
    host.until("it is seen", async |host| shown(host).await["running"]["file_digest"] == serde_json::Value::Null).await;
    assert_eq!(handled(&place, &host).await, 2);
}

#[tokio::test]
async fn a_rollback_goes_to_the_version_deployed_before_and_a_redeploy_returns() {
    let place = place();
    let host = place.start_heard();
    for version in ["v2.wasm", "v3.wasm"] {
        typed(&place, &host, &["deploy", "first", version]);
    }
    assert_eq!(handled(&place, &host).await, 3);
    typed(&place, &host, &["handlers", "rollback", "first"]);
    host.until("version 2 runs", async |host| shown(host).await["running"]["digest"] == digest(2)).await;
    assert_eq!(handled(&place, &host).await, 2);
    let view = shown(&host).await;
    let versions: Vec<(&str, bool)> = view["running"]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| (version["digest"].as_str().unwrap(), version["deployed"] == true))
        .collect();
    assert_eq!(versions, [(&*digest(1), false), (&*digest(2), true), (&*digest(3), true)]);
    // Before it there is only what is in the file.
    let (code, _, said) = command(&place, &host, &["handlers", "rollback", "first"]);
    assert!(code == 1 && said.contains("is the one in the file: use unpin"), "{said}");
    typed(&place, &host, &["deploy", "first", "v3.wasm"]);
    assert_eq!(handled(&place, &host).await, 3);
}

#[tokio::test]
async fn a_settings_change_keeps_the_deployed_version() {
    let place = place();
    let host = place.start_heard();
    typed(&place, &host, &["deploy", "first", "v2.wasm"]);
    place.settings(&super::ONE.replace("output = \"out\"", "output = \"out\", mode = \"b\""));
    host.until("the change is in force", async |host| host.metric(r#"reloads_total{result="ok"}"#).await >= 2).await;
    assert_eq!(handled(&place, &host).await, 2);
}
