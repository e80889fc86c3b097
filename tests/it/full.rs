//! A log with a bound of bytes, in the real program: what may fill it, who keeps it full, and the way out.

use crate::harness::guests;
use crate::harness::process::{Place, Process};

/// One handler on a log of 64 MiB.
fn place(settings: &str) -> Place {
    let handler = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
"#;
    let place = Place::new(&format!("{handler}{settings}"), &[]);
    let text = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    let bounded = text.replace("path = \"data\"\n", "path = \"data\"\nretain = { max_bytes = \"64MiB\" }\n");
    place.put("sluicebox.toml", bounded);
    place.put("ledger.wasm", guests::ledger(1));
    place
}

fn large(word: &str) -> String {
    format!("{word} {}", "x".repeat(400 * 1024))
}

async fn outcome(host: &Process, name: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="first",outcome="{name}",topic="in"}}"#)).await
}

/// Publishes a message, coming back when it is told that the log is full.
async fn publish(host: &Process, body: &str) {
    host.until("there is room", async |host| host.publish("in", Some("a"), None, body).await).await;
}

#[tokio::test]
async fn dead_letters_take_no_more_than_their_share_of_the_log() {
    let place = place("");
    let host = place.start();
    for _ in 0..200 {
        publish(&host, &large("reject")).await;
    }
    host.until("all are dead", async |host| outcome(host, "dead").await == 200).await;
    let dropped = r#"dead_letters_dropped_total{handler="first"}"#;
    host.until("each is kept or counted", async |host| {
        let (kept, gone) = (host.metric(r#"dead_letters{handler="first"}"#).await, host.metric(dropped).await);
        // 64 MiB / 4 / 400 KiB is 40; that the rest is gone is seen a little later.
        kept > 0 && gone >= 150 && kept + gone == 200
    })
    .await;
    host.until("there is room", async |host| host.metric("retained_bytes").await < 60 << 20).await;
    assert_eq!(host.metric("retained_bytes_max").await, 64 << 20);
}

#[tokio::test]
async fn letters_that_went_for_their_bytes_are_counted_once_although_their_handler_leaves_and_comes_back() {
    let place = place("");
    let settings = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    let host = place.start_heard();
    let dead = async |host: &Process, count: u64| {
        for _ in 0..count {
            publish(host, &large("reject")).await;
        }
    };
    let (kept, gone) = (r#"dead_letters{handler="first"}"#, r#"dead_letters_dropped_total{handler="first"}"#);
    dead(&host, 60).await;
    host.until("all are dead", async |host| outcome(host, "dead").await == 60).await;
    // Perhaps before anybody heard of those that went last.
    place.put("sluicebox.toml", settings.split("[handlers.first]").next().unwrap());
    host.until("it left", async |_| place.heard().contains("the handler left")).await;
    place.put("sluicebox.toml", &settings);
    // It is there again when it handles something, and what went then is what the log says after that.
    dead(&host, 3).await;
    host.until("three more are dead", async |host| outcome(host, "dead").await == 63).await;
    host.until("each of 63 is kept or counted", async |host| {
        let counted: serde_json::Value = serde_json::from_str(&host.get("/v1/dead/count?handler=first").await).unwrap();
        let in_log = counted["letters"].as_u64().unwrap();
        in_log < 63 && host.metric(kept).await == in_log && host.metric(gone).await == 63 - in_log
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_stops_at_a_full_box_stops_when_its_letters_take_their_share() {
    let place = place("dead = { full = \"stop\" }\n");
    let host = place.start_heard();
    let mut published = 0;
    while outcome(&host, "dead").await < 38 && published < 38 {
        publish(&host, &large("reject")).await;
        published += 1;
    }
    for _ in 0..20 {
        publish(&host, &large("reject")).await;
    }
    host.until("it says so", async |_| place.heard().contains("its dead letters take their whole share")).await;
    let dead = outcome(&host, "dead").await;
    assert!(dead < 58, "it stands still, {dead} are dead");
    assert_eq!(host.metric(r#"dead_letters_dropped_total{handler="first"}"#).await, 0);
    let (code, output, said) = place.command(&["dead", "drop", "--all", "--yes", "--url", &host.url]);
    assert_eq!(code, 0, "{output}{said}");
    host.until("it goes on", async |host| outcome(host, "dead").await > dead).await;
}

#[tokio::test]
async fn a_full_log_says_everywhere_who_keeps_it_and_the_way_out_works() {
    let place = place("");
    let host = place.start_heard();
    let typed = |arguments: &[&str]| {
        let (code, output, said) = place.command(&[arguments, &["--url", &host.url]].concat());
        assert_eq!(code, 0, "{arguments:?}: {output}{said}");
        output
    };
    typed(&["handlers", "pause", "first"]);
    // Full is when nothing goes in, also after a while.
    host.until("it is full", async |host| {
        while host.publish("in", Some("a"), None, &large("ok")).await {}
        host.metric("log_full").await == 1
    })
    .await;
    let way_out = "`sluicebox handlers resume first`";
    host.until("it says who keeps it", async |host| host.get("/readyz").await.contains(way_out)).await;
    let ready = host.get("/readyz").await;
    assert!(ready.contains("first/") && ready.contains("is paused") && ready.contains("max_bytes"), "{ready}");
    let status = typed(&["status"]);
    assert!(
        status.contains("log is full") && status.contains(way_out) && status.contains("of at most 64 MiB"),
        "{status}"
    );
    assert_eq!(host.metric(r#"retention_holder{handler="first"}"#).await, 1);
    assert!(place.heard().contains("the log is full"), "{}", place.heard());
    typed(&["handlers", "resume", "first"]);
    host.until("it is ready", async |host| host.get("/readyz").await == "ready\n").await;
    host.until("nothing holds", async |host| host.metric("retention_held").await == 0).await;
    assert!(host.publish("in", Some("a"), None, &large("ok")).await);
}

#[tokio::test]
async fn a_handler_that_was_away_while_messages_went_says_how_many() {
    let place = place("");
    let settings = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    let host = place.start_heard();
    publish(&host, "ok 1").await;
    host.until("it is done", async |host| outcome(host, "done").await == 1).await;
    // It leaves, and the log has room for 64 MiB.
    place.put("sluicebox.toml", settings.split("[handlers.first]").next().unwrap());
    host.until("it left", async |_| place.heard().contains("the handler left")).await;
    for _ in 0..200 {
        publish(&host, &large("ok")).await;
    }
    host.until("some went", async |host| host.metric("trimmed_messages_total").await > 10).await;
    place.put("sluicebox.toml", settings);
    let missed = r#"missed_messages_total{handler="first"}"#;
    host.until("it says so", async |host| host.metric(missed).await > 10).await;
    assert!(host.metric(missed).await <= host.metric("trimmed_messages_total").await);
    assert!(place.heard().contains("the handler was away while messages were deleted"), "{}", place.heard());
}
