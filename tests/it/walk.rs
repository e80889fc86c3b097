//! The walk of the README against the real program and the handlers of this repository: consume, be away and come back,
//! deduplicate, restart and still deduplicate (BEHAVIOUR A).

use crate::harness::guests::handler;
use crate::harness::process::{Place, Process};

const BOTH: &str = r#"
[handlers.order]
module = "order.wasm"
subscribe = ["events.*"]
start = "earliest"
publish = ["orders.*"]
key = ["/args/user"]
id = "/id"
dedup = { topics = ["events.new_order"] }

[handlers.notify]
module = "notify.wasm"
subscribe = ["events.*", "orders.accepted"]
start = "earliest"
publish = ["notifications.*"]
key = ["/args/user", "/user"]
id = "/id"
dedup = { topics = ["events.new_order"] }
"#;

fn place(settings: &str) -> Place {
    Place::new(settings, &[&handler("order"), &handler("notify")])
}

fn new_order(id: &str) -> String {
    format!(r#"{{"type":"new_order","id":"{id}","args":{{"user":"ada","amount_cents":1250}}}}"#)
}

async fn publish(host: &Process, kind: &str, body: &str) {
    assert!(host.publish(&format!("events.{kind}"), None, None, body).await, "{body}");
}

async fn outcome(host: &Process, handler: &str, kind: &str, outcome: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="{handler}",outcome="{outcome}",topic="events.{kind}"}}"#)).await
}

async fn until_settled(host: &Process, handler: &str, kind: &str, name: &str, count: u64) {
    let what = format!("{handler} has {count} {kind} {name}");
    host.until(&what, async |host| outcome(host, handler, kind, name).await == count).await;
}

/// What a handler counted.
async fn counted(host: &Process, handler: &str, name: &str) -> u64 {
    host.metric(&format!(r#"guest_count_total{{handler="{handler}",name="{name}"}}"#)).await
}

#[tokio::test]
async fn an_order_is_taken_once_however_often_it_is_sent_and_a_ban_each_time() {
    let place = place(BOTH);
    let host = place.start();
    for _ in 0..3 {
        publish(&host, "new_order", &new_order("o-1")).await;
        publish(&host, "ban_user", r#"{"type":"ban_user","id":"b-1","args":{"user":"bob"}}"#).await;
    }
    for name in ["order", "notify"] {
        until_settled(&host, name, "new_order", "duplicate", 2).await;
        until_settled(&host, name, "ban_user", "done", 3).await;
        assert_eq!(outcome(&host, name, "new_order", "done").await, 1);
        assert_eq!(counted(&host, name, "new_order_ok").await, 1);
        assert_eq!(counted(&host, name, "ban_user_ok").await, 3);
    }
    host.until("one notification went out", async |host| counted(host, "notify", "notification_ok").await == 1).await;
    assert!(host.metric("commit_duration_seconds_count").await > 0);
    // Six events for each of two handlers, and what `order` accepted for `notify`.
    host.until("all 13 are in commits", async |host| host.metric("commit_messages_sum").await == 13).await;
    assert!(host.stop().success());
}

#[tokio::test]
async fn a_handler_that_was_away_catches_up_and_the_other_is_not_disturbed() {
    let place = place(BOTH);
    let host = place.start();
    publish(&host, "new_order", &new_order("o-1")).await;
    until_settled(&host, "notify", "new_order", "done", 1).await;
    until_settled(&host, "order", "new_order", "done", 1).await;
    host.stop();

    let only_order = BOTH.split("[handlers.notify]").next().unwrap();
    place.settings(only_order);
    let host = place.start();
    for number in 2..12 {
        publish(&host, "new_order", &new_order(&format!("o-{number}"))).await;
    }
    until_settled(&host, "order", "new_order", "done", 10).await;
    host.stop();

    place.settings(BOTH);
    let host = place.start();
    until_settled(&host, "notify", "new_order", "done", 10).await;
    host.until("ten notifications went out", async |host| counted(host, "notify", "notification_ok").await == 10).await;
    assert_eq!(outcome(&host, "order", "new_order", "done").await, 0);
    assert_eq!(outcome(&host, "order", "new_order", "duplicate").await, 0);
}

#[tokio::test]
async fn duplicates_are_skipped_from_the_first_message_after_a_restart_and_after_a_kill() {
    let place = place(BOTH);
    let host = place.start();
    publish(&host, "new_order", &new_order("o-1")).await;
    until_settled(&host, "order", "new_order", "done", 1).await;
    host.stop();
    for restart in 0..2 {
        let host = place.start();
        publish(&host, "new_order", &new_order("o-1")).await;
        until_settled(&host, "order", "new_order", "duplicate", 1).await;
        assert_eq!(outcome(&host, "order", "new_order", "done").await, 0);
        match restart {
            0 => host.kill(),
            _ => drop(host.stop()),
        }
    }
}

#[tokio::test]
async fn without_dedup_the_same_order_is_taken_twice() {
    let place = place(&BOTH.replace(r#"dedup = { topics = ["events.new_order"] }"#, "dedup = false"));
    let host = place.start();
    for _ in 0..2 {
        publish(&host, "new_order", &new_order("o-1")).await;
    }
    until_settled(&host, "order", "new_order", "done", 2).await;
    assert_eq!(counted(&host, "order", "new_order_ok").await, 2);
}

#[tokio::test]
async fn bad_events_become_dead_letters_with_the_reason_and_the_service_goes_on() {
    let place = place(BOTH);
    let host = place.start();
    publish(&host, "new_order", "not json").await;
    publish(&host, "new_order", r#"{"type":"new_order","id":"","args":{"user":"ada"}}"#).await;
    publish(&host, "surprise", r#"{"type":"surprise","id":"s-1","args":{"user":"ada"}}"#).await;
    publish(&host, "new_order", &new_order("o-1")).await;
    until_settled(&host, "order", "new_order", "done", 1).await;
    until_settled(&host, "order", "surprise", "dead", 1).await;
    until_settled(&host, "order", "new_order", "dead", 2).await;
    let (exit, shown, _) = place.command(&["dead", "list", "--url", &host.url, "--handler", "order"]);
    assert_eq!(exit, 0);
    for reason in ["the body is not JSON", "missing field `amount_cents`", "unknown variant `surprise`"] {
        assert!(shown.contains(reason), "{reason} in {shown}");
    }
}

#[tokio::test]
async fn an_empty_id_is_no_id() {
    let place = place(BOTH);
    let host = place.start();
    for _ in 0..2 {
        publish(&host, "new_order", &new_order("")).await;
    }
    until_settled(&host, "order", "new_order", "done", 2).await;
}

#[tokio::test]
async fn status_of_handlers_with_nothing_to_do_says_that_they_are_not_behind() {
    let place = place(BOTH);
    let host = place.start();
    for _ in 0..3 {
        publish(&host, "new_order", &new_order("o-1")).await;
    }
    until_settled(&host, "notify", "new_order", "duplicate", 2).await;
    until_settled(&host, "order", "new_order", "duplicate", 2).await;
    host.until("nobody is behind", async |host| {
        let status: serde_json::Value = serde_json::from_str(&host.get("/v1/status").await).unwrap();
        status["handlers"].as_array().unwrap().iter().all(|handler| handler["behind"] == 0)
    })
    .await;
}
