//! Changes that are taken up without a restart.

use super::{ONE, handled, messages, place, until_taken};
use crate::harness::guests;
use crate::harness::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// A second handler on the same topic.
const SECOND: &str = r#"
[handlers.second]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["also"]
config = { output = "also" }
"#;

async fn done(host: &Process, handler: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="{handler}",outcome="done",topic="in"}}"#)).await
}

#[tokio::test]
async fn a_changed_module_takes_effect_without_a_restart() {
    let place = place(ONE);
    let host = place.start();
    assert_eq!(handled(&place, &host, "ok").await.version, 1);
    place.put("ledger.wasm", guests::ledger(2));
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 2);
    // Written in place instead of replaced, as `cp` does.
    std::fs::write(place.path().join("ledger.wasm"), guests::ledger(3)).unwrap();
    until_taken(&host, 2).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 3);
    assert_eq!(handled(&place, &host, "ok").await.source, messages(&place, "in").await[3].offset.0);
}

#[tokio::test]
async fn a_changed_setting_takes_effect_without_a_restart() {
    let place = place(ONE);
    let host = place.start();
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("a"));
    place.settings(&ONE.replace("mode = \"a\"", "mode = \"b\""));
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("b"));
    // One of the shards' settings instead of the guest's.
    place.settings(&ONE.replace("shards = 2", "shards = 2\nlimit = { body = \"4B\" }"));
    until_taken(&host, 2).await;
    assert!(host.publish("in", Some("ada"), None, "ok, but long").await);
    host.until("the long one is dead", async |host| {
        host.metric(r#"messages_total{handler="first",outcome="dead",topic="in"}"#).await == 1
    })
    .await;
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_changed_subscription_holds_from_then_on() {
    let place = place(ONE);
    let host = place.start();
    assert!(host.publish("in.more", Some("ada"), None, "ok").await);
    handled(&place, &host, "ok").await;
    place.settings(&ONE.replace("subscribe = [\"in\"]", "subscribe = [\"in\", \"in.more\"]"));
    until_taken(&host, 1).await;
    assert!(host.publish("in.more", Some("ada"), None, "ok").await);
    host.until("the later one is done", async |host| {
        host.metric(r#"messages_total{handler="first",outcome="done",topic="in.more"}"#).await == 1
    })
    .await;
    let (more, out) = (messages(&place, "in.more").await, messages(&place, "out").await);
    assert_eq!(out.len(), 2);
    assert_eq!(super::fact(&out[1]).source, more[1].offset.0, "the earlier one was not subscribed to");
}

#[tokio::test]
async fn a_secret_in_a_file_takes_effect_when_it_changes() {
    let place = place(&ONE.replace("mode = \"a\"", "mode = { file = \"secret\" }"));
    place.put("secret", "one");
    let host = place.start_heard();
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("one"));
    place.put("secret", "second-secret\n");
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("second-secret"));
    assert!(!place.heard().contains("second-secret"), "{}", place.heard());
}

#[tokio::test]
async fn a_new_handler_starts_and_a_removed_one_leaves_and_comes_back_where_it_was() {
    let place = place(ONE);
    let host = place.start();
    for _ in 0..3 {
        handled(&place, &host, "ok").await;
    }
    place.settings(&format!("{ONE}{SECOND}"));
    until_taken(&host, 1).await;
    host.until("the new one caught up", async |host| done(host, "second").await == 3).await;

    place.settings(ONE);
    until_taken(&host, 2).await;
    let metrics = host.get("/metrics").await;
    let modules: Vec<&str> = metrics.lines().filter(|line| line.starts_with("sluicebox_module_info{")).collect();
    assert!(modules.len() == 1 && modules[0].contains("first"), "{modules:?}");
    for _ in 0..2 {
        handled(&place, &host, "ok").await;
    }
    assert_eq!(done(&host, "second").await, 3, "it does not run");

    place.settings(&format!("{ONE}{SECOND}"));
    until_taken(&host, 3).await;
    host.until("it goes on where it was", async |host| done(host, "second").await == 5).await;
    assert_eq!(messages(&place, "also").await.len(), 5);
    assert!(host.stop().success());
}

#[tokio::test]
async fn what_cannot_change_while_running_is_named_and_the_rest_is_in_force() {
    let place = place(ONE);
    let host = place.start_heard();
    handled(&place, &host, "ok").await;
    let text = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    let text = text.replace("namespace = \"test\"", "namespace = \"other\"").replace("mode = \"a\"", "mode = \"b\"");
    place.put("sluicebox.toml", text.replace("path = \"data\"", "path = \"elsewhere\""));
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("b"));
    let told = "`namespace` and [log] cannot change while running: restart the host; the rest is in force";
    host.until("it is told", async |_| place.heard().contains(told)).await;
    assert!(!place.path().join("elsewhere").exists());
}

#[tokio::test]
async fn waiting_messages_are_done_right_after_the_fix_is_there() {
    let place = place(ONE);
    let host = place.start();
    // It would wait ten minutes, and the later one of its key with it.
    for body in ["wait 2", "ok"] {
        assert!(host.publish("in", Some("ada"), None, body).await);
    }
    host.until("it waits", async |host| host.metric(r#"open_heads{handler="first"}"#).await == 1).await;
    place.put("ledger.wasm", guests::ledger(2));
    host.until("both are done", async |host| done(host, "first").await == 2).await;
    let out: Vec<u64> = messages(&place, "out").await.iter().map(|message| super::fact(message).source).collect();
    let into: Vec<u64> = messages(&place, "in").await.iter().map(|message| message.offset.0).collect();
    assert_eq!(out, into, "in order");
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_change_stops_and_the_next_start_goes_on() {
    let place = place(ONE);
    for round in 0..6 {
        let host = place.start();
        handled(&place, &host, "ok").await;
        place.put("ledger.wasm", guests::ledger(2 + round));
        // Before the change is seen, while it is seen, while it is prepared, while it is made.
        let _ = tokio::time::timeout(Duration::from_millis(60 * round), std::future::pending::<()>()).await;
        assert!(host.stop().success());
    }
    let host = place.start();
    assert_eq!(handled(&place, &host, "ok").await.version, 7);
    assert_eq!(messages(&place, "out").await.len(), 7);
}

#[tokio::test]
async fn a_hangup_looks_at_once_and_a_service_outlives_it() {
    let place = place(ONE);
    let host = place.start_heard();
    let pid = Pid::from_raw(host.pid() as i32).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    host.until("it says so", async |_| place.heard().contains("looking at the settings and the modules, as asked"))
        .await;
    assert_eq!(handled(&place, &host, "ok").await.version, 1);
    assert!(host.stop().success());
}

#[tokio::test]
async fn settings_and_modules_behind_links_are_taken_up_as_in_a_config_map() {
    let place = place(ONE);
    let at = |name: &str| place.path().join(name);
    let text = std::fs::read_to_string(at("sluicebox.toml")).unwrap();
    for (folder, mode) in [("..1", "mode = \"a\""), ("..2", "mode = \"b\"")] {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("sluicebox.toml"), text.replace("mode = \"a\"", mode)).unwrap();
    }
    std::fs::remove_file(at("sluicebox.toml")).unwrap();
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/sluicebox.toml", at("sluicebox.toml")).unwrap();
    let host = place.start();
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("a"));
    std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.mode.as_deref(), Some("b"));
}
