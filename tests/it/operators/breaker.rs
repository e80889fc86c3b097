//! A handler that fails stands still for a while, loses nothing, and nobody else notices.

use super::{attempts, handled_keys, outcome, place, publish, typed, until, until_applied};
use crate::harness::guests;

const NEIGHBOUR: &str = r#"
[handlers.second]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["other"]
config = { output = "other" }
breaker = { trip = "consecutive", failures = 5, wait = "1h", max_wait = "1h" }
retry = { attempts = 1 }
"#;

/// Version 1 of the guest can do nothing for these.
const BROKEN: &str = "wait 2";

#[tokio::test]
async fn an_open_breaker_loses_no_message_and_no_attempt_and_the_neighbour_goes_on() {
    // Who fails waits for long, unless another module comes into force.
    let settings = "retry = { attempts = 8, min = \"1h\", max = \"1h\" }\n\
                    breaker = { trip = \"consecutive\", failures = 5, wait = \"1h\", max_wait = \"1h\" }\n";
    let place = place(&format!("{settings}{}", NEIGHBOUR.replace("attempts = 1", "attempts = 8")));
    let host = place.start();
    for number in 0..5 {
        publish(&host, &format!("broken{number}"), BROKEN).await;
    }
    let open = r#"breaker_state{handler="first"}"#;
    host.until("the breaker is open", async |host| host.metric(open).await == 2).await;
    for number in 0..500 {
        publish(&host, &format!("k{number}"), "ok").await;
    }
    // The neighbour met the same messages and tripped as well: by hand it goes on, which disturbs nobody else.
    typed(&place, &host, &["handlers", "breaker", "reset", "second"]);
    let neighbour = r#"messages_total{handler="second",outcome="done",topic="in"}"#;
    host.until("the neighbour is done", async |host| host.metric(neighbour).await == 500).await;
    let tried = attempts(&host).await;
    assert!(tried <= 5, "{tried} runs");
    assert_eq!((outcome(&host, "done").await, outcome(&host, "dead").await), (0, 0));
    assert!(typed(&place, &host, &["handlers", "show", "first"]).contains("open"));
    place.put("ledger.wasm", guests::ledger(2));
    host.until("the fix is in force", async |host| host.metric("reloads_total{result=\"ok\"}").await >= 1).await;
    typed(&place, &host, &["handlers", "breaker", "reset", "first"]);
    until(&host, "done", 505).await;
    assert_eq!((outcome(&host, "dead").await, attempts(&host).await), (0, tried + 505));
    for event in ["tripped", "reset"] {
        let metric = format!(r#"breaker_events_total{{event="{event}",handler="first"}}"#);
        assert_eq!(host.metric(&metric).await, 1, "{event}");
    }
    host.stop();
    assert_eq!(handled_keys(&place).await.len(), 505);
}

#[tokio::test]
async fn half_open_one_run_tries_and_the_rest_follows_when_it_succeeds() {
    let settings = "retry = { attempts = 8, min = \"1ms\", max = \"1ms\" }\n\
                    breaker = { trip = \"consecutive\", failures = 2, wait = \"200ms\", max_wait = \"200ms\" }\n";
    let place = place(settings);
    let host = place.start();
    publish(&host, "a", "fail 1").await;
    publish(&host, "b", "fail 1").await;
    host.until("it tripped", async |host| {
        host.metric(r#"breaker_events_total{event="tripped",handler="first"}"#).await == 1
    })
    .await;
    for number in 0..200 {
        publish(&host, &format!("k{number}"), "ok").await;
    }
    until(&host, "done", 202).await;
    for (event, count) in [("tripped", 1), ("ready", 1), ("reset", 1), ("fail", 2)] {
        let metric = format!(r#"breaker_events_total{{event="{event}",handler="first"}}"#);
        assert_eq!(host.metric(&metric).await, count, "{event}");
    }
    assert_eq!(attempts(&host).await, 204);
}

#[tokio::test]
async fn a_breaker_tripped_by_hand_stays_so_over_a_kill_until_it_is_reset() {
    let place = place("");
    let host = place.start();
    typed(&place, &host, &["handlers", "breaker", "trip", "first"]);
    until_applied(&host, 1).await;
    for number in 0..50 {
        publish(&host, &format!("k{number}"), "ok").await;
    }
    host.kill();
    let host = place.start();
    let state = r#"breaker_state{handler="first"}"#;
    host.until("it is tripped again", async |host| host.metric(state).await == 3).await;
    assert_eq!(attempts(&host).await, 0);
    typed(&place, &host, &["handlers", "breaker", "reset", "first"]);
    until(&host, "done", 50).await;
    assert_eq!(host.metric(state).await, 0);
}

#[tokio::test]
async fn rejects_trip_no_breaker() {
    let place = place("breaker = { trip = \"consecutive\", failures = 2 }\n");
    let host = place.start();
    for number in 0..20 {
        publish(&host, &format!("k{number}"), "reject").await;
    }
    until(&host, "dead", 20).await;
    assert_eq!(host.metric(r#"breaker_events_total{event="tripped",handler="first"}"#).await, 0);
}

#[tokio::test]
async fn keys_that_only_fail_stop_no_other_key() {
    // As a handler has them by default: twenty keys fail again and again, and each is given up after minutes.
    let place = place("");
    let host = place.start();
    for number in 0..20 {
        publish(&host, &format!("bad{number}"), "fail 99").await;
    }
    publish(&host, "good", "ok").await;
    until(&host, "done", 1).await;
    assert_eq!(outcome(&host, "dead").await, 0);
    host.until("each was tried", async |host| attempts(host).await > 20).await;
    // All that may be tried was tried: nobody is ahead of these.
    for number in 0..20 {
        publish(&host, &format!("good{number}"), "ok").await;
    }
    until(&host, "done", 21).await;
}

#[tokio::test]
async fn one_key_that_only_fails_trips_nothing() {
    let place = place("retry = { attempts = 30, min = \"1ms\", max = \"1ms\" }\nbreaker = { failures = 2 }\n");
    let host = place.start();
    publish(&host, "bad", "fail 99").await;
    until(&host, "dead", 1).await;
    publish(&host, "good", "ok").await;
    until(&host, "done", 1).await;
    assert_eq!(host.metric(r#"breaker_events_total{event="tripped",handler="first"}"#).await, 0);
}
