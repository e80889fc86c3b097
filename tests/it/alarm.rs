//! The alarm handler of this repository, as it is compiled and set up, in the real program (BEHAVIOUR B).

mod load;
mod model;

use crate::harness::guests::handler;
use crate::harness::process::{Place, Process};
use crate::harness::{dead_letters, everything};
use serde_json::{Value, json};
use sluicebox::log::embedded::EmbeddedLog;
use std::collections::BTreeMap;

/// What comes in and which digests go out, a line for each user; the handler's own tests read the same.
const VECTORS: &str = include_str!("../../handlers/alarm/vectors.txt");

/// With the settings of the repository's example.
fn place() -> Place {
    let example = include_str!("../../handlers/sluicebox.toml");
    let (_, settings) = example.split_once("[handlers.alarm]").unwrap();
    let settings = settings.split("\n[").next().unwrap();
    Place::new(&format!("[handlers.alarm]{settings}"), &[&handler("alarm")])
}

async fn publish(host: &Process, topic: &str, event: &Value) {
    assert!(host.publish(topic, None, None, &event.to_string()).await, "{event}");
}

async fn settled(host: &Process, topic: &str, outcome: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="alarm",outcome="{outcome}",topic="{topic}"}}"#)).await
}

async fn until_settled(host: &Process, topic: &str, outcome: &str, count: u64) {
    let what = format!("{count} {topic} are {outcome}");
    host.until(&what, async |host| settled(host, topic, outcome).await == count).await;
}

/// The digests in the log of a host that has ended.
async fn digests(place: &Place) -> model::Digests {
    model::found(&everything(&EmbeddedLog::open_read_only(&place.data()).unwrap()).await)
}

/// `b:C@1` as alarm, status and nanosecond.
fn parse(step: &str) -> (&str, &'static str, u32) {
    let (alarm, change) = step.split_once(':').unwrap_or(("a", step));
    let (status, at) = change.split_once('@').unwrap();
    let status = match status {
        "C" => "CRITICAL",
        "W" => "WARNING",
        "X" => "CLEARED",
        other => panic!("{other} is no status"),
    };
    (alarm, status, at.parse().unwrap())
}

/// The digests that a vector promises to a user.
fn promised(user: &str, digests: &str) -> Vec<Value> {
    let alarm = |step| {
        let (alarm, status, at) = parse(step);
        json!({"AlarmID": alarm, "Status": status, "LatestChangedAt": format!("2026-01-01T00:00:00.{at:09}Z")})
    };
    let digests = digests.split('|').map(|digest| digest.split_whitespace().map(alarm).collect::<Vec<Value>>());
    let sent = digests.filter(|alarms| !alarms.is_empty());
    sent.map(|alarms| json!({"UserID": user, "ActiveAlarms": alarms})).collect()
}

#[tokio::test]
async fn every_vector_gives_its_digests_through_the_real_component() {
    let place = place();
    let host = place.start();
    let mut expected = BTreeMap::new();
    let mut counts = BTreeMap::from([("AlarmStatusChanged", 0), ("SendAlarmDigest", 0)]);
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let (steps, digests) = line.split_once("->").unwrap();
        let promised = promised(line, digests);
        if !promised.is_empty() {
            expected.insert(line.to_owned(), promised);
        }
        for step in steps.split_whitespace() {
            let (topic, event) = match step {
                "S" => ("SendAlarmDigest", json!({ "UserID": line })),
                step => {
                    let (alarm, status, at) = parse(step);
                    let changed_at = format!("2026-01-01T02:00:00.{at:09}+02:00");
                    let event = json!({"UserID": line, "AlarmID": alarm, "Status": status, "ChangedAt": changed_at});
                    ("AlarmStatusChanged", event)
                }
            };
            publish(&host, topic, &event).await;
            *counts.get_mut(topic).unwrap() += 1;
        }
    }
    for (topic, count) in counts {
        until_settled(&host, topic, "done", count).await;
    }
    host.stop();
    assert!(expected.len() >= 8);
    assert_eq!(digests(&place).await, expected);
}

#[tokio::test]
async fn a_message_that_is_sent_again_with_its_id_changes_nothing() {
    let place = place();
    let host = place.start();
    let change = |status: &str| {
        json!({"UserID": "ada", "AlarmID": "a", "Status": status, "ChangedAt": "2026-01-02T03:04:05Z"}).to_string()
    };
    let request = json!({"UserID": "ada"}).to_string();
    // Of two changes of the same time the later one holds, also when the earlier one comes again.
    for (id, status) in [("m-1", "WARNING"), ("m-2", "CRITICAL"), ("m-1", "WARNING")] {
        assert!(host.publish("AlarmStatusChanged", None, Some(id), &change(status)).await);
    }
    for _ in 0..2 {
        assert!(host.publish("SendAlarmDigest", None, Some("s-1"), &request).await);
    }
    until_settled(&host, "SendAlarmDigest", "duplicate", 1).await;
    assert_eq!(settled(&host, "AlarmStatusChanged", "duplicate").await, 1);
    host.stop();
    let alarm = json!({"AlarmID": "a", "Status": "CRITICAL", "LatestChangedAt": "2026-01-02T03:04:05Z"});
    let expected = vec![json!({"UserID": "ada", "ActiveAlarms": [alarm]})];
    assert_eq!(digests(&place).await, BTreeMap::from([("ada".to_owned(), expected)]));
}

/// Topic, body, and what the dead letter says.
const BAD: &[(&str, &str, &str)] = &[
    ("AlarmStatusChanged", "not json", "the body is not JSON: expected ident at line 1 column 2"),
    ("SendAlarmDigest", "", "the body is not JSON: EOF"),
    ("SendAlarmDigest", "\"ada\"", "none of `/UserID`, `/UserId` yields"),
    ("SendAlarmDigest", "{}", "none of `/UserID`, `/UserId` yields"),
    ("SendAlarmDigest", r#"{"UserID":""}"#, "none of `/UserID`, `/UserId` yields"),
    ("SendAlarmDigest", r#"{"UserID":null,"UserId":""}"#, "none of `/UserID`, `/UserId` yields"),
    ("SendAlarmDigest", r#"{"UserID":7}"#, "`UserID` is a number, expected a text"),
    ("AlarmStatusChanged", r#"{"AlarmID":"a","Status":"WARNING","ChangedAt":"2026-01-02T03:04:05Z"}"#, "`/UserID`"),
    ("AlarmStatusChanged", r#"{"UserID":"ada"}"#, "`AlarmID` is missing"),
    ("AlarmStatusChanged", r#"{"UserID":"ada","AlarmID":""}"#, "`AlarmID` is empty"),
    ("AlarmStatusChanged", r#"{"UserID":"ada","AlarmID":["a"]}"#, "`AlarmID` is a list, expected a text"),
    ("AlarmStatusChanged", r#"{"UserID":"ada","AlarmID":"a"}"#, "`Status` is missing"),
    (
        "AlarmStatusChanged",
        r#"{"UserID":"ada","AlarmID":"a","Status":"warning","ChangedAt":"2026-01-02T03:04:05Z"}"#,
        "`Status` is `warning`, expected CLEARED, WARNING or CRITICAL",
    ),
    ("AlarmStatusChanged", r#"{"UserID":"ada","AlarmID":"a","Status":"WARNING"}"#, "`ChangedAt` is missing"),
    (
        "AlarmStatusChanged",
        r#"{"UserID":"ada","AlarmID":"a","Status":"WARNING","ChangedAt":"yesterday"}"#,
        "`ChangedAt` `yesterday` is not a time in RFC 3339",
    ),
    (
        "AlarmStatusChanged",
        r#"{"UserID":"ada","AlarmID":"a","Status":"WARNING","ChangedAt":1767323045}"#,
        "`ChangedAt` is a number, expected a text",
    ),
    (
        "AlarmStatusChanged",
        r#"{"UserID":"ada","AlarmID":"a","Status":"WARNING","ChangedAt":"0001-01-01T00:00:00Z"}"#,
        "`ChangedAt` `0001-01-01T00:00:00Z` is the zero time",
    ),
];

#[tokio::test]
async fn bad_events_become_dead_letters_that_name_the_field_and_the_service_goes_on() {
    let place = place();
    let host = place.start();
    for (topic, body, _) in BAD {
        assert!(host.publish(topic, None, None, body).await, "{body}");
    }
    // The other spelling of the names, and the user whose messages were bad.
    let good = json!({"UserId": "ada", "AlarmId": "a", "Status": "WARNING", "ChangedAt": "2026-01-02T03:04:05Z"});
    publish(&host, "AlarmStatusChanged", &good).await;
    publish(&host, "SendAlarmDigest", &json!({"UserId": "ada"})).await;
    until_settled(&host, "SendAlarmDigest", "done", 1).await;
    for topic in ["AlarmStatusChanged", "SendAlarmDigest"] {
        until_settled(&host, topic, "dead", BAD.iter().filter(|(of, ..)| *of == topic).count() as u64).await;
    }
    assert!(host.stop().success());

    let letters = dead_letters(&EmbeddedLog::open_read_only(&place.data()).unwrap()).await;
    assert_eq!(letters.len(), BAD.len());
    for (topic, body, reason) in BAD {
        let is_it = |m: &sluicebox::message::Message| m.topic.as_str() == *topic && m.body == body.as_bytes();
        let letter = letters.iter().find(|letter| is_it(&letter.message)).unwrap();
        assert!(letter.error.contains(reason), "{topic} {body}: {}", letter.error);
    }
    let alarm = json!({"AlarmID": "a", "Status": "WARNING", "LatestChangedAt": "2026-01-02T03:04:05Z"});
    let expected = vec![json!({"UserID": "ada", "ActiveAlarms": [alarm]})];
    assert_eq!(digests(&place).await, BTreeMap::from([("ada".to_owned(), expected)]));
}

#[tokio::test]
async fn a_user_with_more_active_alarms_than_are_kept_loses_none_silently() {
    let place = place();
    let host = place.start();
    // Ids as long as a UUID. The handler's own tests have ids as long as they may be.
    let change = |number: u32| {
        let changed_at = format!("2026-01-02T03:04:05.{number:09}Z");
        json!({"UserID": "ada", "AlarmID": format!("{number:0>36}"), "Status": "CRITICAL", "ChangedAt": changed_at})
    };
    let lines: String = (1..=1001).map(|number| format!("{}\n", change(number))).collect();
    let request = host.client.post(format!("{}/v1/topics/AlarmStatusChanged", host.url));
    let answer = request.header("content-type", "application/x-ndjson").body(lines).send().await.unwrap();
    assert!(answer.status().is_success());
    publish(&host, "SendAlarmDigest", &json!({"UserID": "ada"})).await;
    until_settled(&host, "SendAlarmDigest", "done", 1).await;
    assert!(host.stop().success());

    let letters = dead_letters(&EmbeddedLog::open_read_only(&place.data()).unwrap()).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message.body, change(1001).to_string().as_bytes());
    assert!(letters[0].error.contains("at most 1000 are kept: clear some and send it again"), "{}", letters[0].error);
    let digest = &digests(&place).await["ada"];
    let sent: Vec<Value> =
        digest[0]["ActiveAlarms"].as_array().unwrap().iter().map(|alarm| alarm["AlarmID"].clone()).collect();
    let kept: Vec<Value> = (1..=1000).map(|number| change(number)["AlarmID"].clone()).collect();
    assert_eq!(digest.len(), 1);
    assert_eq!(sent, kept);
}
