//! What the digests must be, told from the whole history at once: an alarm's status is that of its newest change.
//!
//! Shares nothing with the handler: it keeps no state between messages, and reads times with another library.

use serde::Deserialize;
use serde_json::{Value, json};
use sluicebox::message::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An `AlarmStatusChanged`, or a `SendAlarmDigest`, which has only the user.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "UserID", alias = "UserId")]
    user: String,
    #[serde(rename = "AlarmID", alias = "AlarmId")]
    alarm: Option<String>,
    #[serde(rename = "Status")]
    status: Option<String>,
    #[serde(rename = "ChangedAt", default, deserialize_with = "timestamp")]
    changed_at: Option<jiff::Timestamp>,
}

fn timestamp<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[derive(Clone, Debug)]
struct Change {
    status: String,
    at: jiff::Timestamp,
}

/// The bodies of each user's digests, in order.
pub type Digests = BTreeMap<String, Vec<Value>>;

/// The digests that are in the log.
pub fn found(log: &[Arc<Message>]) -> Digests {
    let mut digests = Digests::new();
    for message in log.iter().filter(|message| message.topic.as_str() == "AlarmDigest") {
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        let user = body["UserID"].as_str().unwrap().to_owned();
        assert_eq!(message.key.as_ref().map(|key| key.as_str()), Some(&*user), "a digest is keyed by its user");
        digests.entry(user).or_default().push(body);
    }
    digests
}

/// The digests that the events in the log must give.
pub fn expected(log: &[Arc<Message>]) -> Digests {
    let mut users: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for message in log {
        if ["AlarmStatusChanged", "SendAlarmDigest"].contains(&message.topic.as_str()) {
            let event: Event = serde_json::from_slice(&message.body).unwrap();
            users.entry(event.user.clone()).or_default().push(event);
        }
    }
    users
        .into_iter()
        .map(|(user, events)| (user.clone(), of_user(&user, &events)))
        .filter(|(_, d)| !d.is_empty())
        .collect()
}

fn of_user(user: &str, events: &[Event]) -> Vec<Value> {
    let requests = events.iter().enumerate().filter(|(_, event)| event.alarm.is_none()).map(|(at, _)| at);
    let mut last = 0;
    let digest = requests.filter_map(|request| {
        let alarms = active_and_changed(events, last, request);
        last = request;
        (!alarms.is_empty()).then(|| json!({"UserID": user, "ActiveAlarms": alarms}))
    });
    digest.collect()
}

/// The active alarms after `events[..upto]` whose status is another one, or was meanwhile, than after `events[..since]`.
fn active_and_changed(events: &[Event], since: usize, upto: usize) -> Vec<Value> {
    let mut alarms: Vec<&str> = events[..upto].iter().filter_map(|event| event.alarm.as_deref()).collect();
    alarms.sort_unstable();
    alarms.dedup();
    let mut active = vec![];
    for alarm in alarms {
        let changes = |end: usize| -> Vec<Change> {
            let of_alarm = events[..end].iter().filter(|event| event.alarm.as_deref() == Some(alarm));
            of_alarm.map(|e| Change { status: e.status.clone().unwrap(), at: e.changed_at.unwrap() }).collect()
        };
        let all = changes(upto);
        let Some(now) = newest(&all).filter(|now| now.status != "CLEARED") else { continue };
        let status_after = |count: usize| newest(&all[..count]).map(|change| &*change.status);
        if (changes(since).len()..all.len()).any(|count| status_after(count) != status_after(count + 1)) {
            active.push((
                now.at,
                alarm,
                json!({"AlarmID": alarm, "Status": now.status, "LatestChangedAt": now.at.to_string()}),
            ));
        }
    }
    active.sort_by_key(|(at, alarm, _)| (*at, alarm.to_string()));
    active.into_iter().map(|(_, _, alarm)| alarm).collect()
}

/// Of several with the same time, the one that came last.
fn newest(changes: &[Change]) -> Option<&Change> {
    changes.iter().max_by_key(|change| change.at)
}
