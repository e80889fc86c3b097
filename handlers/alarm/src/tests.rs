//! The handler from message to digest, without a host.

use super::*;
use crate::alarms::{ACTIVE_MAX, CLEARED_MAX};
use crate::event::ALARM_ID_BYTES_MAX;
use serde_json::{Value, json};
use sluicebox_sdk::testing::{TestMessage, TestRun, run};

/// Every line is what one user sends and gets; the integration tests send the same through a host.
const VECTORS: &str = include_str!("../vectors.txt");

/// The time `@number`, in a form that depends on where it is used, and the one form that goes out.
fn time(number: u32, elsewhere: bool) -> String {
    match elsewhere {
        true => format!("2026-01-01T02:00:00.{number:09}+02:00"),
        false => format!("2026-01-01T00:00:00.{number:09}Z"),
    }
}

/// `b:C@1` as alarm, status and time.
fn parse(step: &str) -> (&str, &'static str, u32) {
    let (alarm, change) = step.split_once(':').unwrap_or(("a", step));
    let (status, time) = change.split_once('@').unwrap();
    let status = match status {
        "C" => "CRITICAL",
        "W" => "WARNING",
        "X" => "CLEARED",
        other => panic!("{other}"),
    };
    (alarm, status, time.parse().unwrap())
}

fn change_event(alarm: &str, status: &str, changed_at: &str) -> TestMessage {
    let event = json!({"AlarmID": alarm, "UserID": "ada", "Status": status, "ChangedAt": changed_at});
    TestMessage::json("AlarmStatusChanged", &event).key("ada")
}

fn send() -> TestMessage {
    TestMessage::json("SendAlarmDigest", &json!({"UserID": "ada"})).key("ada")
}

/// A user to whom messages are sent one after the other.
struct User(TestRun);

impl User {
    fn new() -> Self {
        Self(run(super::alarm, send()))
    }

    /// Of a user of whom this is known.
    fn with(alarms: &Alarms) -> Self {
        Self(run(super::alarm, send().state("alarms", alarms)))
    }

    fn send(&mut self, message: TestMessage) -> &TestRun {
        self.0 = run(super::alarm, message.state_of(&self.0));
        &self.0
    }

    /// The digest that comes of asking for one; `None`: no message.
    fn digest(&mut self) -> Option<Value> {
        let run = self.send(send());
        assert_eq!(run.result, Ok(()));
        assert!(run.published.len() <= 1);
        run.published.first().map(|published| published.json().unwrap())
    }
}

#[track_caller]
fn check(line: &str) {
    let (steps, expected) = line.split_once("->").unwrap();
    let mut user = User::new();
    let mut digests = vec![];
    for (index, step) in steps.split_whitespace().enumerate() {
        if step == "S" {
            digests.extend(user.digest());
            continue;
        }
        let (alarm, status, at) = parse(step);
        assert_eq!(user.send(change_event(alarm, status, &time(at, index % 2 == 1))).result, Ok(()), "{line}");
    }
    let alarm = |step| {
        let (alarm, status, at) = parse(step);
        json!({"AlarmID": alarm, "Status": status, "LatestChangedAt": time(at, false)})
    };
    let expected: Vec<Value> = expected
        .split('|')
        .map(|digest| digest.split_whitespace().map(alarm).collect::<Vec<Value>>())
        .filter(|alarms| !alarms.is_empty())
        .map(|alarms| json!({"UserID": "ada", "ActiveAlarms": alarms}))
        .collect();
    assert_eq!(digests, expected, "{line}");
}

#[test]
fn every_vector_gives_its_digests() {
    let lines: Vec<&str> = VECTORS.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() >= 8);
    lines.into_iter().for_each(check);
}

#[test]
fn a_digest_is_written_as_documented_and_keyed_by_its_user() {
    let mut user = User::new();
    user.send(change_event("a-1", "WARNING", "2026-01-02T03:04:05.600+01:00"));
    let published = user.send(send()).published[0].clone();
    let body = r#"{"UserID":"ada","ActiveAlarms":[{"AlarmID":"a-1","Status":"WARNING","LatestChangedAt":"2026-01-02T02:04:05.6Z"}]}"#;
    assert_eq!(String::from_utf8(published.body).unwrap(), body);
    assert_eq!((published.topic.as_str(), published.key.as_deref()), ("AlarmDigest", Some("ada")));
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    /// Calls `seen` with every order of `steps`.
    fn each_order(steps: &mut Vec<&'static str>, done: usize, seen: &mut impl FnMut(&[&'static str])) {
        if done == steps.len() {
            return seen(steps);
        }
        for next in done..steps.len() {
            steps.swap(done, next);
            each_order(steps, done + 1, seen);
            steps.swap(done, next);
        }
    }
    let mut orders = 0;
    each_order(&mut vec!["a:C@1", "a:X@2", "a:W@3", "b:W@1", "b:X@2", "c:C@4"], 0, &mut |order| {
        check(&format!("{} S -> a:W@3 c:C@4", order.join(" ")));
        orders += 1;
    });
    assert_eq!(orders, 720);
}

#[test]
fn what_was_taken_late_sent_or_empty_is_counted() {
    let mut user = User::new();
    assert_eq!(user.0.counts["digest_empty"], 1);
    let later = "2026-01-02T03:04:05Z";
    assert_eq!(user.send(change_event("a", "CRITICAL", later)).counts["change_ok"], 1);
    assert_eq!(user.send(change_event("a", "CLEARED", "2026-01-02T03:04:04Z")).counts["change_late"], 1);
    assert_eq!(user.send(send()).counts["digest_ok"], 1);
}

#[track_caller]
fn rejected(message: TestMessage, expected: &str) {
    let run = run(super::alarm, message.key("ada"));
    let failure = run.result.unwrap_err();
    assert!(matches!(failure, Failure::Reject { .. }), "{failure:?}");
    assert!(failure.reason().contains(expected), "{failure}");
    assert!(run.state.is_empty() && run.published.is_empty());
}

#[test]
fn a_bad_event_is_rejected_with_its_fault() {
    for topic in ["AlarmStatusChanged", "SendAlarmDigest"] {
        rejected(TestMessage::new(topic, "not json"), "bad JSON payload: expected ident at line 1 column 2");
        rejected(TestMessage::new(topic, r#"["ada"]"#), "expected a map");
    }
    rejected(TestMessage::json("SendAlarmDigest", &json!({})), "`UserID` is missing");
    rejected(TestMessage::json("SendAlarmDigest", &json!({"UserID": ""})), "`UserID` is empty");
    rejected(change_event("", "CRITICAL", "2026-01-02T03:04:05Z"), "`AlarmID` is empty");
    rejected(change_event("a", "BROKEN", "2026-01-02T03:04:05Z"), "`Status` is `BROKEN`");
    rejected(
        change_event("a", "WARNING", "0001-01-01T00:00:00Z"),
        "`ChangedAt` `0001-01-01T00:00:00Z` is the zero time",
    );
    rejected(TestMessage::json("AlarmCleared", &json!({"UserID": "ada"})), "topic `AlarmCleared`");
}

#[test]
fn the_state_of_one_user_is_never_used_for_another() {
    let message = TestMessage::json("SendAlarmDigest", &json!({"UserID": "bob"})).key("ada");
    let failure = run(super::alarm, message).result.unwrap_err();
    assert!(matches!(failure, Failure::Retry { .. }), "the settings are at fault, not the message");
    assert!(failure.reason().contains(r#"set `key = ["/UserID", "/UserId"]`"#), "{failure}");
}

/// An id as long as it may be.
fn long_id(number: usize) -> String {
    format!("{number:0>width$}", width = ALARM_ID_BYTES_MAX)
}

/// A user with as much as is kept of one: `@2` for everything active, `@3` and later for what is cleared.
fn full() -> Alarms {
    let mut alarms = Alarms::default();
    let mut take = |number: usize, status: &str, at: u32| {
        let event =
            json!({"AlarmID": long_id(number), "UserID": "ada", "Status": status, "ChangedAt": time(at, false)});
        alarms.take(&event::change(event.as_object().unwrap()).unwrap())
    };
    for number in 0..CLEARED_MAX {
        assert_eq!(take(ACTIVE_MAX + number, "CLEARED", 3 + number as u32), Ok(Taken::Yes));
    }
    for number in 0..ACTIVE_MAX {
        assert_eq!(take(number, "CRITICAL", 2), Ok(Taken::Yes));
    }
    alarms
}

#[test]
fn a_user_with_all_that_is_kept_gets_it_in_one_digest() {
    let mut user =
        User(run(super::alarm, change_event(&long_id(0), "WARNING", &time(9, true)).state("alarms", &full())));
    assert_eq!(user.0.result, Ok(()));
    let digest = user.digest().unwrap();
    assert_eq!(digest["ActiveAlarms"].as_array().unwrap().len(), ACTIVE_MAX);
    assert_eq!(user.digest(), None);
}

#[test]
fn an_active_alarm_too_many_is_rejected_aloud_and_the_others_go_on() {
    let mut user = User::with(&full());
    let refused = user.send(change_event("new", "WARNING", &time(9, false))).clone();
    let failure = refused.result.unwrap_err();
    assert!(matches!(failure, Failure::Reject { .. }));
    assert!(failure.reason().contains("at most 1000 are kept: clear some and send it again"), "{failure}");
    // What is known may change, what is cleared makes room, and a new one that is over needs none.
    assert_eq!(user.send(change_event("over", "CLEARED", &time(900, false))).result, Ok(()));
    assert_eq!(user.send(change_event(&long_id(1), "WARNING", &time(9, false))).result, Ok(()));
    assert!(user.send(change_event("new", "WARNING", &time(9, false))).result.is_err());
    assert_eq!(user.send(change_event(&long_id(1), "CLEARED", &time(901, false))).result, Ok(()));
    assert_eq!(user.send(change_event("new", "WARNING", &time(9, false))).result, Ok(()));
    assert!(user.send(change_event(&long_id(1), "WARNING", &time(902, false))).result.is_err());
}

#[test]
fn the_newest_cleared_alarms_are_remembered_and_state_does_not_grow() {
    let mut user = User::new();
    let mut state_bytes = 0;
    for number in 0..3 * CLEARED_MAX as u32 {
        let id = format!("a{number:09}");
        assert_eq!(user.send(change_event(&id, "CRITICAL", &time(10 * number + 1, false))).result, Ok(()));
        assert_eq!(user.send(change_event(&id, "CLEARED", &time(10 * number + 5, false))).result, Ok(()));
        if number == CLEARED_MAX as u32 + 1 {
            state_bytes = user.0.state["alarms"].len();
        }
    }
    let grown_bytes = user.0.state["alarms"].len();
    assert!(grown_bytes <= state_bytes, "state grew from {state_bytes} to {grown_bytes} bytes");

    let oldest = 2 * CLEARED_MAX as u32;
    let late = |number: u32| change_event(&format!("a{number:09}"), "CRITICAL", &time(10 * number + 2, false));
    assert_eq!(user.send(late(oldest)).counts["change_late"], 1, "the oldest of the remembered");
    assert_eq!(user.digest(), None);
}

#[test]
fn an_older_change_of_an_unknown_alarm_is_neither_raised_nor_lost_once_some_were_forgotten() {
    let mut user = User::new();
    for number in 0..=CLEARED_MAX as u32 {
        assert_eq!(user.send(change_event(&number.to_string(), "CLEARED", &time(100 + number, false))).result, Ok(()));
    }
    // `0` is forgotten, cleared at `@100`.
    let failure = user.send(change_event("0", "CRITICAL", &time(99, false))).result.clone().unwrap_err();
    assert!(matches!(failure, Failure::Reject { .. }));
    assert!(failure.reason().contains("`ChangedAt` is before 2026-01-01T00:00:00.0000001Z and `AlarmID` is not known"));
    assert!(failure.reason().contains("send the alarm's present status"), "{failure}");
    assert_eq!(user.send(change_event("0", "CLEARED", &time(99, false))).counts["change_late"], 1);
    assert_eq!(user.digest(), None);
    // Of the same time or newer it is taken, as if the alarm were remembered.
    assert_eq!(user.send(change_event("0", "CRITICAL", &time(100, false))).counts["change_ok"], 1);
    assert_eq!(user.digest().unwrap()["ActiveAlarms"][0]["AlarmID"], "0");
}
