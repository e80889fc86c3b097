//! Messages that publishers delay, through the real program: they outlive it, can be found and cancelled, are bounded, and
//! come once, as they were published, no earlier than they should.

use crate::harness::process::{Place, Process};
use crate::harness::{PATIENCE, everything, guests};
use serde_json::{Value, json};
use sluicebox::log::embedded::EmbeddedLog;
use sluicebox::message::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a host says that does not know yet how much is delayed.
const COUNTS: &str = "still counts what was delayed";

/// Types a command; its exit code, and what it said.
fn typed(place: &Place, host: &Process, arguments: &[&str]) -> (i32, String) {
    let (code, output, said) = place.command(&[arguments, &["--url", &host.url]].concat());
    (code, output + &said)
}

/// Publishes through the program and demands that it works.
#[track_caller]
fn publish(place: &Place, host: &Process, arguments: &[&str]) -> Value {
    let began = Instant::now();
    loop {
        let (code, said) = typed(place, host, &[&["publish"], arguments, &["--json"]].concat());
        // A host that has just started counts what is delayed, for seconds on a machine that is busy; nothing was appended.
        if code != 0 && said.contains(COUNTS) && began.elapsed() < PATIENCE {
            continue;
        }
        assert_eq!(code, 0, "{arguments:?}: {said}");
        return serde_json::from_str(&said).unwrap();
    }
}

/// What the log has on this topic.
async fn on(place: &Place, topic: &str) -> Vec<Arc<Message>> {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    everything(&log).await.into_iter().filter(|message| message.topic.as_str() == topic).collect()
}

async fn until_on(place: &Place, host: &Process, topic: &str, count: usize) -> Vec<Arc<Message>> {
    host.until(&format!("{count} are on {topic}"), async |_| on(place, topic).await.len() >= count).await;
    on(place, topic).await
}

async fn page(host: &Process) -> Value {
    serde_json::from_str(&host.get("/v1/handlers/_delay/waiting").await).unwrap()
}

async fn until_delayed(host: &Process, count: usize) -> Vec<Value> {
    let delayed = |page: Value| page["delayed"].as_array().cloned().unwrap_or_default();
    host.until(&format!("{count} are delayed"), async |host| delayed(page(host).await).len() == count).await;
    delayed(page(host).await)
}

#[tokio::test]
async fn a_delayed_message_outlives_kill_9_and_comes_once_as_it_was_no_earlier_than_it_should() {
    let place = Place::new("", &[]);
    let host = place.start();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = host.client.post(format!("{}/v1/topics/late", host.url));
    let answer = answer.header("sluicebox-delay", "3s").header("sluicebox-key", "ada").header("sluicebox-id", "i");
    let answer = answer.header("sluicebox-header-tenant", "shop").header("traceparent", traceparent).body("first");
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    // Killed before anybody can have taken it up, perhaps.
    host.kill();
    let host = place.start();
    // Due before the first one, though it came after it.
    publish(&place, &host, &["late", "second", "--key", "ada", "--delay", "1s"]);
    host.kill();
    let host = place.start();
    until_on(&place, &host, "late", 2).await;
    host.kill();
    let host = place.start();
    publish(&place, &host, &["late", "third"]);
    let found = until_on(&place, &host, "late", 3).await;
    assert_eq!(found.len(), 3, "{found:?}");
    let came = |body: &str| found.iter().find(|message| message.body == body).unwrap();
    let (first, second) = (came("first"), came("second"));
    came("third");
    assert_eq!((first.key.as_ref().unwrap().as_str(), first.id.as_deref()), ("ada", Some("i")));
    let headers: Vec<_> = first.headers.iter().collect();
    assert_eq!(headers.len(), 2, "{headers:?}");
    assert_eq!((first.headers.get("tenant"), first.headers.get("traceparent")), (Some("shop"), Some(traceparent)));
    let taken = on(&place, "_delayed").await;
    assert!(second.time >= taken[1].time.after(Duration::from_secs(1)), "it came early");
    let taken = &taken[0];
    assert_eq!(
        answer,
        json!({ "offset": taken.offset.0, "due": taken.time.after(Duration::from_secs(3)).to_string() })
    );
    assert!(first.time >= taken.time.after(Duration::from_secs(3)), "it came early");
}

#[tokio::test]
async fn the_first_publishers_that_delay_something_are_all_served() {
    let place = Place::new("", &[]);
    let host = place.start();
    let publish = |number: usize| {
        let sent = host.client.post(format!("{}/v1/topics/late", host.url)).header("sluicebox-delay", "1h");
        sent.body(number.to_string()).send()
    };
    let answers = futures_util::future::join_all((0..16).map(publish)).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status().is_success()));
    until_delayed(&host, 16).await;
}

#[tokio::test]
async fn messages_of_one_key_with_one_delay_come_in_their_order() {
    let place = Place::new("", &[]);
    let host = place.start();
    let lines: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    place.put("lines", lines.join("\n"));
    let answer = publish(&place, &host, &["late", "--ndjson", "lines", "--key", "ada", "--delay", "50ms"]);
    assert_eq!((&answer["accepted"], &answer["delayed"]), (&json!(2000), &json!(2000)));
    let found = until_on(&place, &host, "late", 2000).await;
    assert!(found.iter().map(|message| &message.body[..]).eq(lines.iter().map(String::as_bytes)));
}

#[tokio::test]
async fn delayed_messages_are_listed_and_cancelled_and_the_handler_that_holds_them_shows_only_then() {
    let place = Place::new("", &[]);
    let host = place.start();
    let (code, said) = typed(&place, &host, &["handlers", "waiting", "_delay"]);
    assert!(code == 1 && said.contains("nothing was published with a delay yet"), "{said}");
    let due = ["a", "b"]
        .map(|id| publish(&place, &host, &["late.x", "1", "--id", id, "--key", "ada", "--delay", "1h"])["due"].clone());
    let delayed = until_delayed(&host, 2).await;
    // However late the host takes them up.
    assert_eq!([&delayed[0]["due"], &delayed[1]["due"]], [&due[0], &due[1]]);
    let facts: Vec<_> = delayed.iter().map(|one| [&one["topic"], &one["key"], &one["id"], &one["number"]]).collect();
    assert_eq!(json!(facts), json!([["late.x", "ada", "a", 1], ["late.x", "ada", "b", 2]]));
    assert!(typed(&place, &host, &["handlers", "list"]).1.contains("\n_delay "));
    let (code, said) = typed(&place, &host, &["handlers", "cancel", "_delay", "0/1"]);
    assert_eq!(code, 0, "{said}");
    until_delayed(&host, 1).await;
    host.kill();
    let (_, said, _) = place.command(&["handlers", "waiting", "_delay"]);
    assert!(said.contains("0/2") && !said.contains("0/1"), "{said}");
    // A mistyped name is no handler that has nothing, without a host too.
    for command in [["handlers", "waiting"], ["handlers", "show"], ["state", "list"]] {
        let (code, _, said) = place.command(&[&command[..], &["ordr"]].concat());
        assert!(code == 1 && said.contains("there is no handler `ordr`, nor any other"), "{command:?}: {said}");
    }
    let host = place.start();
    assert_eq!(until_delayed(&host, 1).await[0]["id"], "b");
    typed(&place, &host, &["handlers", "cancel", "_delay", "0/2"]);
    until_delayed(&host, 0).await;
    assert_eq!(typed(&place, &host, &["handlers", "list"]).1, "no handlers\n");
    assert!(typed(&place, &host, &["status"]).1.ends_with("no handlers\n"));
    // What is cancelled never comes, and may be published again.
    publish(&place, &host, &["late.x", "1", "--id", "a", "--key", "ada", "--delay", "10ms"]);
    assert_eq!(until_on(&place, &host, "late.x", 1).await.len(), 1);
}

#[tokio::test]
async fn the_hosts_own_handler_cannot_be_steered_nor_named_in_settings() {
    let place = Place::new("", &[]);
    let host = place.start();
    publish(&place, &host, &["late", "1", "--delay", "1h"]);
    for command in [
        &["handlers", "pause", "_delay"][..],
        &["handlers", "pause", "_delay", "--key", "ada"],
        &["handlers", "resume", "_delay"],
        &["handlers", "rollback", "_delay"],
        &["handlers", "unpin", "_delay"],
        &["handlers", "breaker", "trip", "_delay"],
        &["handlers", "breaker", "reset", "_delay"],
        &["handlers", "forget", "_delay", "--yes"],
    ] {
        let (code, said) = typed(&place, &host, command);
        assert!(code == 1 && said.contains("is the host's own and always runs"), "{command:?}: {said}");
    }
    let (code, said) = typed(&place, &host, &["dead", "retry", "--all", "--yes", "--to", "_delay"]);
    assert!(code == 1 && said.contains("is the host's own"), "{said}");
    let (code, _, said) = place.command(&["handlers", "reroute", "_delay", "--yes"]);
    assert!(code == 2 && said.contains("its routing is the same in every log"), "{said}");
    // Nor does a topic of it take what somebody publishes, or have a subscriber.
    assert!(typed(&place, &host, &["publish", "_delayed", "1"]).1.contains("belong to the host"));
    place.settings("[handlers._delay]\nmodule = \"m.wasm\"\nsubscribe = [\"a\"]\n");
    let (code, _, said) = place.command(&["check"]);
    assert!(code == 3 && said.contains("`_delay` is the host's own handler, which needs no settings"), "{said}");
}

#[tokio::test]
async fn a_delay_that_cannot_be_is_refused_and_one_of_nothing_is_none() {
    let place = Place::new("", &[]);
    let host = place.start();
    for (delay, told) in [
        ("5", "`5` has no unit: write `5s` or `5ms`"),
        ("31d", "is more than 30d, the longest delay"),
        ("3w", "`w` of `3w` is not a unit of time: write whole numbers with the units d, h, m, s, ms"),
        ("-1s", "is not a duration"),
    ] {
        let (code, said) = typed(&place, &host, &["publish", "late", "1", &format!("--delay={delay}")]);
        assert!(code == 2 && said.contains(told), "{said}");
        let sent = host.client.post(format!("{}/v1/topics/late", host.url)).header("Sluicebox-Delay", delay).body("1");
        let answer = sent.send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let said = answer.text().await.unwrap();
        assert!(said.contains("`Sluicebox-Delay`: ") && said.contains(told), "{said}");
    }
    place.put("lines", "{\"body\":1,\"delay\":5}\n{\"body\":2,\"delay\":\"soon\"}\n{\"body\":3,\"delay\":\"0s\"}\n");
    let (code, said) = typed(&place, &host, &["publish", "late", "--ndjson", "lines", "--messages"]);
    assert_eq!(code, 1);
    assert!(said.contains("line 1: `delay` is 5: write a text with a unit, such as \"30s\""), "{said}");
    assert!(said.contains("line 2: `delay`: `soon` is not a duration"), "{said}");
    assert!(publish(&place, &host, &["late", "4", "--delay", "0s"]).get("due").is_none());
    // The third line and this one are there at once, and nothing is held by anybody.
    assert_eq!(on(&place, "late").await.len(), 2);
    assert!(host.get("/v1/handlers/_delay").await.contains("nothing was published with a delay yet"));
}

#[tokio::test]
async fn a_line_says_its_own_delay_and_the_flag_that_of_the_others() {
    let place = Place::new("", &[]);
    let host = place.start();
    place.put("lines", "{\"body\":1,\"delay\":\"2h\"}\n{\"body\":2,\"delay\":\"0s\"}\n{\"body\":3,\"key\":\"ada\"}\n");
    let answer = publish(&place, &host, &["late", "--ndjson", "lines", "--messages", "--delay", "1h"]);
    assert_eq!((&answer["accepted"], &answer["delayed"]), (&json!(3), &json!(2)));
    let delayed = until_delayed(&host, 2).await;
    // The next one due comes first.
    assert_eq!((&delayed[0]["key"], &delayed[1]["key"]), (&json!("ada"), &Value::Null));
    assert_eq!(&on(&place, "late").await[0].body[..], b"2");
}

#[tokio::test]
async fn publishers_beyond_the_bound_are_refused_with_what_to_do_also_after_a_kill() {
    let place = Place::new("[host]\ndelayed = { max = 3 }\n", &[]);
    let host = place.start();
    publish(&place, &host, &["late", "1", "--delay", "1h"]);
    place.put("lines", "1\n2\n3\n4\n");
    let (code, said) = typed(&place, &host, &["publish", "late", "--ndjson", "lines", "--delay", "1h"]);
    assert_eq!(code, 1);
    assert!(said.contains("acknowledged up to line 2: go on with --from-line 3"), "{said}");
    assert!(said.contains("3 messages with ") && said.contains("`delayed` in [host] allows 3 and "), "{said}");
    let refused = async |host: &Process| {
        let mut found = None;
        // While it counts it says 503.
        host.until("it has counted", async |host| {
            let sent =
                host.client.post(format!("{}/v1/topics/late", host.url)).header("sluicebox-delay", "1h").body("1");
            let answer = sent.send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
            let counts = status == 503 && answer.text().await.unwrap().contains(COUNTS);
            found = Some((status, headers)).filter(|_| !counts);
            !counts
        })
        .await;
        found.unwrap()
    };
    assert_eq!(refused(&host).await, (429, true));
    host.kill();
    let host = place.start();
    assert_eq!(refused(&host).await, (429, true));
    // Everything else goes on.
    publish(&place, &host, &["late", "now"]);
    assert_eq!(typed(&place, &host, &["handlers", "cancel", "_delay", "0/1"]).0, 0);
    until_delayed(&host, 2).await;
    publish(&place, &host, &["late", "1", "--delay", "1h"]);
    assert_eq!(refused(&host).await, (429, true));
}

#[tokio::test]
async fn handlers_get_a_delayed_message_once_per_id_whatever_changes_meanwhile() {
    let settings =
        "[handlers.first]\nmodule = \"ledger.wasm\"\nsubscribe = [\"in\"]\nstart = \"earliest\"\npublish = [\"out\"]\n";
    let place = Place::new(settings, &[]);
    place.put("ledger.wasm", guests::ledger(1));
    let host = place.start();
    for delay in ["1s", "2s", "0s"] {
        publish(&place, &host, &["in", "ok", "--key", "ada", "--id", "i", "--delay", delay]);
    }
    let second = settings.replace("handlers.first", "handlers.second");
    place.settings(&format!("{settings}{second}"));
    for (handler, outcome, count) in
        [("first", "done", 1), ("first", "duplicate", 2), ("second", "done", 1), ("second", "duplicate", 2)]
    {
        let metric = format!(r#"messages_total{{handler="{handler}",outcome="{outcome}",topic="in"}}"#);
        host.until(&format!("{metric} is {count}"), async |host| host.metric(&metric).await == count).await;
    }
    publish(&place, &host, &["in", "ok", "--key", "ada", "--id", "i", "--delay", "1h"]);
    until_delayed(&host, 1).await;
}
