//! The machine's clock is set, by a year and in either direction, while the program runs and across restarts: nothing is
//! lost, nothing runs twice inside its window, nothing is stuck. No real clock is set: the program is told to see another one.

use crate::harness::logs::{commit, message, shard};
use crate::harness::process::{Place, Process};
use crate::harness::{PATIENCE, everything, guests};
use sluicebox::clock;
use sluicebox::commit::{Committed, Head, HeadScope, ShardCommit};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{HeadFilter, HeadQuery, Log};
use sluicebox::message::Offset;
use std::time::Duration;

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// A folder whose hosts see the clock that `set` says.
struct Clocked {
    place: Place,
    file: String,
}

impl Clocked {
    fn new(shift_ms: i64) -> Self {
        let handler = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
shards = 2
retry = { attempts = 9, min = "15s", max = "15s" }
dedup = { window = "1h" }
"#;
        let place = Place::new(handler, &[]);
        place.put("ledger.wasm", guests::ledger(1));
        let file = place.path().join("shift").to_str().unwrap().to_owned();
        let clocked = Self { place, file };
        clocked.set(shift_ms);
        clocked
    }

    fn set(&self, shift_ms: i64) {
        self.place.put("shift", shift_ms.to_string());
    }

    fn start(&self, arguments: &[&str]) -> Process {
        self.place.start_by(arguments, &[("SLUICEBOX_CLOCK_SHIFT", &self.file)])
    }

    /// Starts, which is refused; then as an operator who was told what to do.
    #[track_caller]
    fn start_accepting(&self, way: &str) -> Process {
        let refused = self.start(&[]);
        assert_eq!(refused.url, "", "it must not start");
        assert!(!refused.ended().success());
        let heard = self.place.heard();
        assert!(heard.contains(way) && heard.contains("sluicebox run --accept-clock"), "{heard}");
        let host = self.start(&["--accept-clock"]);
        assert_ne!(host.url, "", "{}", self.place.heard());
        host
    }

    /// The inputs that were handled, and the time of the last message.
    async fn handled(&self) -> (usize, clock::Timestamp) {
        let log = EmbeddedLog::open_read_only(&self.place.data()).unwrap();
        let messages = everything(&log).await;
        let last = messages.last().map_or(clock::Timestamp(0), |message| message.time);
        (messages.iter().filter(|message| message.topic.as_str() == "out").count(), last)
    }

    async fn until_handled(&self, count: usize) {
        let asks = async {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            while self.handled().await.0 < count {
                pace.tick().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, asks).await.is_ok(), "waited in vain for {count}");
        assert_eq!(self.handled().await.0, count);
    }
}

async fn outcomes(host: &Process, name: &str, count: u64) {
    let metric = format!(r#"messages_total{{handler="first",outcome="{name}",topic="in"}}"#);
    host.until(&format!("{count} are {name}"), async |host| host.metric(&metric).await == count).await;
}

#[tokio::test]
async fn after_a_clock_that_was_a_year_ahead_nothing_is_stuck_and_no_id_runs_twice() {
    let clocked = Clocked::new(YEAR_MS);
    let host = clocked.start(&[]);
    // First, so that it is alone whenever it is looked for: the others may be done before the kill.
    assert!(host.publish("in", Some("d"), Some("id"), "ok").await);
    outcomes(&host, "done", 1).await;
    for key in ["a", "b", "c"] {
        assert!(host.publish("in", Some(key), None, "fail 1").await);
    }
    outcomes(&host, "retry", 3).await;
    host.kill();
    clocked.set(0);
    let host = clocked.start_accepting("365 days behind the host's time");
    // Their retries were due within fifteen seconds, in a year.
    clocked.until_handled(4).await;
    assert!(host.publish("in", Some("d"), Some("id"), "ok").await);
    outcomes(&host, "duplicate", 1).await;
    let (_, last) = clocked.handled().await;
    assert!(last < clock::now().after(Duration::from_secs(3600)), "new messages are dated {last}");
    host.stop();
    // Once accepted it is right.
    clocked.start(&[]).stop();
}

#[tokio::test]
async fn after_a_clock_that_was_a_year_behind_no_id_runs_twice() {
    let clocked = Clocked::new(-YEAR_MS);
    let host = clocked.start(&[]);
    assert!(host.publish("in", Some("a"), Some("id"), "ok").await);
    outcomes(&host, "done", 1).await;
    host.stop();
    clocked.set(0);
    let host = clocked.start_accepting("365 days ahead of the host's time");
    assert!(host.publish("in", Some("a"), Some("id"), "ok").await);
    outcomes(&host, "duplicate", 1).await;
    assert_eq!(clocked.handled().await.0, 1);
}

/// When the retry of the prepared log is due.
async fn due(clocked: &Clocked) -> clock::Timestamp {
    let log = EmbeddedLog::open_read_only(&clocked.place.data()).unwrap();
    let heads = log
        .heads(HeadQuery {
            handler: shard("away", 0).handler,
            filter: HeadFilter::default(),
            after: Offset::START,
            heads_max: 9,
        })
        .await;
    heads.unwrap()[0].head.due
}

#[tokio::test]
async fn a_clock_that_was_accepted_is_not_accepted_again_when_the_host_dies_before_it_took_note() {
    for shift_ms in [600_000, -600_000] {
        let clocked = Clocked::new(0);
        // The log's last message is older than the step: by the log alone nobody could tell that it was redated.
        let an_hour_ago = || clock::now().before(Duration::from_secs(3600));
        let options = Options { clock: an_hour_ago, ..Options::default() };
        let log = EmbeddedLog::open(&clocked.place.data(), options).unwrap();
        let offset = log.append(vec![message("in", "ok")]).await.unwrap()[0];
        let id = shard("away", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let head = Head {
            offset,
            key: None,
            attempt: 1,
            due: clock::now().after(Duration::from_secs(3600)),
            error: "".into(),
            digest: None,
            scope: HeadScope::Message,
        };
        let waits = ShardCommit { read: offset, open_put: vec![head], ..commit(&id, term, 1) };
        assert_eq!(log.commit(waits).await, Ok(Committed::default()));
        drop(log);
        clocked.start(&[]).stop();
        let before = due(&clocked).await;

        clocked.set(shift_ms);
        let crash = [("SLUICEBOX_CLOCK_SHIFT", clocked.file.as_str()), ("SLUICEBOX_CRASH_POINT", "after-redate")];
        let dies = clocked.place.start_by(&["--accept-clock"], &crash);
        assert_eq!(dies.url, "", "it must die");
        assert!(!dies.ended().success());
        let moved = due(&clocked).await;
        let by = i128::from(moved.0) - i128::from(before.0);
        assert!((by - i128::from(shift_ms)).abs() < 60_000, "{by} ms, not {shift_ms}");
        for arguments in [&["--accept-clock"][..], &[]] {
            let host = clocked.start(arguments);
            assert_ne!(host.url, "", "{}", clocked.place.heard());
            assert!(!host.get("/v1/status").await.contains("the host's time"), "the clock is the accepted one");
            host.stop();
            assert_eq!(due(&clocked).await, moved, "it was moved already");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_while_the_host_runs_changes_nothing_and_is_said() {
    let clocked = Clocked::new(0);
    let host = clocked.start(&[]);
    assert!(host.publish("in", Some("a"), Some("id"), "ok").await);
    outcomes(&host, "done", 1).await;
    for (step, (shift_ms, way)) in [(YEAR_MS, "ahead of"), (-YEAR_MS, "behind")].into_iter().enumerate() {
        clocked.set(shift_ms);
        host.until("it is said", async |host| host.get("/v1/status").await.contains(&format!("{way} the host's time")))
            .await;
        assert!(host.publish("in", Some("a"), Some("id"), "ok").await);
        outcomes(&host, "duplicate", step as u64 + 1).await;
        let (_, last) = clocked.handled().await;
        assert!(last.since(clock::now()) < Duration::from_secs(60) && clock::now().since(last) < PATIENCE, "{last}");
    }
    clocked.set(0);
    host.until("it is right again", async |host| !host.get("/v1/status").await.contains("the host's time")).await;
    host.stop();
}

#[tokio::test]
async fn how_long_something_waits_is_by_the_time_of_the_log_and_not_by_a_clock_that_was_set() {
    let clocked = Clocked::new(0);
    let host = clocked.start(&[]);
    assert!(host.publish("in", Some("a"), None, "wait 2").await);
    outcomes(&host, "retry", 1).await;
    let waits = r#"oldest_waiting_seconds{handler="first"}"#;
    for (shift_ms, way) in [(YEAR_MS, "ahead of"), (-YEAR_MS, "behind")] {
        clocked.set(shift_ms);
        host.until("it is said", async |host| host.get("/v1/status").await.contains(&format!("{way} the host's time")))
            .await;
        // Counted once a second: one count later than the clock was set.
        assert!(host.publish("in", Some("a"), None, "ok").await);
        let messages = 2 + u64::from(shift_ms < 0);
        let counted = r#"waiting_messages{handler="first"}"#;
        host.until("it is counted", async |host| host.metric(counted).await == messages).await;
        let seconds = host.metric(waits).await;
        assert!(seconds < 600, "it waits for {seconds} s when the clock is {way} the host's time");
    }
    host.stop();
}

#[tokio::test]
async fn a_clock_within_the_bound_is_only_said() {
    let clocked = Clocked::new(0);
    clocked.start(&[]).stop();
    for shift_ms in [60_000, -60_000] {
        clocked.set(shift_ms);
        let host = clocked.start(&[]);
        host.until("it is said", async |host| host.get("/v1/status").await.contains("60.0 s")).await;
        host.stop();
    }
}
