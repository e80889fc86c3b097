//! What the embedded log promises beyond the contract: about its directory, its file and its limits.

use crate::harness::logs::{commit, key, message, read_all, shard};
use crate::harness::{again, everything};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{CommitError, Committed, Control, KeyWrites, Mark, ShardCommit};
use sluicebox::effects::StateWrite;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError, Trim};
use sluicebox::message::{IdHash, Offset};
use sluicebox::routing::reserved::control_topic;
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use std::path::Path;

fn open(directory: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(directory, Options::default())
}

/// Why it was refused.
#[track_caller]
fn refusal(opened: Result<EmbeddedLog, LogError>) -> String {
    match opened {
        Ok(_) => panic!("it was opened"),
        Err(LogError::Refused { reason }) => reason,
        Err(other) => panic!("failed instead of being refused: {other}"),
    }
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let id = shard("h", 0);
    let routing = Routing {
        handler: id.handler.clone(),
        key: KeyFrom::All,
        id: IdFrom::Message,
        shards: 1,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![Span { after: Offset::START, subscribe: vec![] }],
    };
    let (messages, record, status) = {
        let log = open(directory.path()).unwrap();
        log.append(vec![message("a.b", "1"), message("c", "2")]).await.unwrap();
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        let write = StateWrite { entry: "e".into(), value: Some("v".into()) };
        let full = ShardCommit {
            read: Offset(2),
            marks: vec![Mark { id: IdHash(1), time: Timestamp(1) }],
            state: vec![KeyWrites { key: key("k"), writes: vec![write] }],
            outputs: vec![message("a.b", "3")],
            ..commit(&id, claim.term, 1)
        };
        assert_eq!(log.commit(full).await, Ok(Committed::default()));
        log.put_routings(0, vec![routing.clone()]).await.unwrap();
        let record = log.claim(id.clone(), Offset::START).await.unwrap();
        (everything(&log).await, record, log.status().await.unwrap())
    };
    let log = open(directory.path()).unwrap();
    assert_eq!(everything(&log).await, messages);
    assert_eq!(log.end().await.unwrap(), messages[2].offset);
    assert_eq!(log.status().await.unwrap(), status);
    let again = log.claim(id.clone(), Offset::START).await.unwrap();
    assert_eq!((again.term > record.term, again.record), (true, record.record));
    let state = log.load(id.clone(), vec![key("k")]).await.unwrap();
    assert_eq!(state[0].get("e").unwrap(), "v");
    assert_eq!(log.routings().await.unwrap().routings, [routing]);
    let next = log.append(vec![message("a.b", "4")]).await.unwrap()[0];
    assert!(next > messages[2].offset);
}

#[tokio::test]
async fn times_do_not_fall_when_the_clock_does_not_even_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clocks: [fn() -> Timestamp; 3] = [|| Timestamp(2_000), || Timestamp(1_000), || Timestamp(3_000)];
    for clock in clocks {
        let log = EmbeddedLog::open(directory.path(), Options { clock, ..Options::default() }).unwrap();
        log.append(vec![message("a", "")]).await.unwrap();
    }
    let log = open(directory.path()).unwrap();
    let times: Vec<u64> = everything(&log).await.iter().map(|message| message.time.0).collect();
    assert_eq!(times, [2_000, 2_000, 3_000]);
}

#[tokio::test]
async fn a_directory_is_opened_once_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let reason = refusal(open(directory.path()));
    assert!(reason.contains(&format!("in use by process {}:", std::process::id())), "{reason}");
    first.append(vec![message("a", "")]).await.unwrap();
    drop(first);
    assert_eq!(everything(&open(directory.path()).unwrap()).await.len(), 1);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let database = rusqlite::Connection::open(directory.path().join("sluicebox.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    for opened in [open(directory.path()), EmbeddedLog::open_read_only(directory.path())] {
        let reason = refusal(opened);
        assert!(reason.contains("has format 99, this version reads formats 1 to 6"), "{reason}");
    }
    database.pragma_update(None, "user_version", 6).unwrap();
    drop(database);
    assert!(open(directory.path()).is_ok());
}

#[test]
fn a_file_of_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sluicebox.db");
    std::fs::write(&file, "notes\n".repeat(1000)).unwrap();
    for opened in [open(directory.path()), EmbeddedLog::open_read_only(directory.path())] {
        let reason = refusal(opened);
        assert!(reason.contains("is not a log: it is no SQLite database"), "{reason}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "notes\n".repeat(1000));

    std::fs::remove_file(&file).unwrap();
    let foreign = rusqlite::Connection::open(&file).unwrap();
    foreign.execute_batch("CREATE TABLE notes (text)").unwrap();
    drop(foreign);
    let before = std::fs::read(&file).unwrap();
    for opened in [open(directory.path()), EmbeddedLog::open_read_only(directory.path())] {
        let reason = refusal(opened);
        assert!(reason.contains("it is the database of another application"), "{reason}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn an_empty_file_becomes_a_log() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("sluicebox.db"), "").unwrap();
    assert!(refusal(EmbeddedLog::open_read_only(directory.path())).contains("is empty"));
    assert!(open(directory.path()).is_ok());
}

#[tokio::test]
async fn one_may_look_while_another_works() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(refusal(EmbeddedLog::open_read_only(&missing)).contains("there is no log"));
    assert!(!missing.exists());

    let log = open(directory.path()).unwrap();
    log.append(vec![message("a", "1")]).await.unwrap();
    let view = EmbeddedLog::open_read_only(directory.path()).unwrap();
    assert_eq!(everything(&view).await.len(), 1);
    log.append(vec![message("a", "2")]).await.unwrap();
    assert_eq!(everything(&view).await, everything(&log).await);
    assert_eq!(view.end().await.unwrap(), log.end().await.unwrap());
    drop(log);
    let view = EmbeddedLog::open_read_only(directory.path()).unwrap();
    assert_eq!(everything(&view).await.len(), 2);
}

#[tokio::test]
async fn who_only_looks_cannot_write() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let view = EmbeddedLog::open_read_only(directory.path()).unwrap();
    assert!(matches!(view.append(vec![message("a", "")]).await, Err(LogError::Refused { .. })));
    assert!(matches!(view.claim(shard("h", 0), Offset::START).await, Err(LogError::Refused { .. })));
    assert!(matches!(view.put_routings(0, vec![]).await, Err(LogError::Refused { .. })));
    assert!(matches!(view.tail().await, Err(LogError::Refused { .. })));
    let answer = view.commit(commit(&shard("h", 0), Default::default(), 1)).await;
    assert!(matches!(answer, Err(CommitError::Unavailable { .. })));
}

#[tokio::test]
async fn a_full_log_refuses_appends_then_commits_and_keeps_serving() {
    let directory = tempfile::tempdir().unwrap();
    let limited = || Options { bytes_max: Some(2 * 1024 * 1024), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), limited()).unwrap();
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let body = || message("a", vec![7; 20_000]);
    let mut appended = 0;
    let error = loop {
        match log.append(vec![body()]).await {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert!((80..110).contains(&appended), "{appended} of 20 kB in 2 MiB");

    let mut committed = 0;
    let error = loop {
        let outputs = vec![body()];
        match log.commit(ShardCommit { outputs, ..commit(&id, term, committed + 1) }).await {
            Ok(_) => committed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Unavailable { .. }), "{error}");
    assert!((5..20).contains(&committed), "{committed} of 20 kB in a reserve of 256 KiB");

    // What was refused left nothing behind, and what fits is still taken.
    let all = everything(&log).await;
    assert_eq!(all.len() as u64, appended + committed);
    assert_eq!(
        log.commit(ShardCommit { read: Offset(1), ..commit(&id, term, committed + 1) }).await,
        Ok(Committed::default())
    );
    assert!(matches!(log.append(vec![body()]).await, Err(LogError::Full { .. })));
    drop(log);
    let log = EmbeddedLog::open(directory.path(), limited()).unwrap();
    assert_eq!(everything(&log).await, all);
}

/// Appends until the log refuses to, and returns why.
async fn fill(log: &EmbeddedLog) -> String {
    loop {
        match log.append(vec![message("a", vec![7; 20_000])]).await {
            Ok(_) => {}
            Err(LogError::Full { reason }) => return reason,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn commands_of_operators_are_taken_when_the_log_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: Some(2 * 1024 * 1024), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), options).unwrap();
    fill(&log).await;
    let command = || message("_control.h", "{}");
    let command_topic = control_topic(&shard("h", 0).handler);
    assert_eq!(command().topic, command_topic);
    for _ in 0..10 {
        log.append(vec![command()]).await.unwrap();
    }
    // Nothing gets in beside one.
    assert!(matches!(log.append(vec![command(), message("a", "")]).await, Err(LogError::Full { .. })));
    assert!(matches!(log.append(vec![message("a", "")]).await, Err(LogError::Full { .. })));
    let commands = everything(&log).await.iter().filter(|message| message.topic == command_topic).count();
    assert_eq!(commands, 10);
}

#[tokio::test]
async fn a_full_log_says_who_holds_it_and_how_to_free_it() {
    let directory = tempfile::tempdir().unwrap();
    let bytes_max = Some(2 * 1024 * 1024);
    let log = EmbeddedLog::open(directory.path(), Options { bytes_max, ..Options::default() }).unwrap();
    let id = shard("h", 3);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    fill(&log).await;
    let trim = Trim { older_than: None, bytes_max, holders: vec![id.handler.clone()], messages_max: 1000 };
    let trim = Trim { bytes_max: Some(1024 * 1024), ..trim };
    assert_eq!(log.trim(trim.clone()).await.unwrap().held_by(), Some(&id));
    let reason = fill(&log).await;
    for part in ["`max_bytes`", "h/3", "`sluicebox handlers show h`", "`sluicebox handlers forget h`"] {
        assert!(reason.contains(part), "{part} is not in: {reason}");
    }
    let paused = Control { paused: true, ..Control::default() };
    assert_eq!(
        log.commit(ShardCommit { control: Some(paused), ..commit(&id, term, 1) }).await,
        Ok(Committed::default())
    );
    log.trim(trim.clone()).await.unwrap();
    let reason = fill(&log).await;
    assert!(reason.contains("is paused") && reason.contains("`sluicebox handlers resume h`"), "{reason}");
    // It settles them, so it is not in the way any more.
    let read = log.end().await.unwrap();
    assert_eq!(log.commit(ShardCommit { read, ..commit(&id, term, 2) }).await, Ok(Committed::default()));
    while log.trim(trim.clone()).await.unwrap().more {}
    let reason = fill(&log).await;
    assert!(reason.contains("`max_bytes`") && !reason.contains("h/3"), "{reason}");
    assert!(reason.contains("`sluicebox dead drop`"), "{reason}");
}

#[test]
fn a_log_in_memory_of_the_machine_does_not_claim_to_outlive_the_loss_of_power() {
    // Where there is none, nothing can be shown.
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    let guarantees = open(directory.path()).unwrap().guarantees();
    assert!(!guarantees.survives_power_loss && guarantees.survives_process_death, "{guarantees:?}");
    assert!(guarantees.summary.contains("tmpfs"), "{}", guarantees.summary);
    assert!(!guarantees.summary.contains("and the loss of power"), "{}", guarantees.summary);
    let view = EmbeddedLog::open_read_only(directory.path()).unwrap();
    assert_eq!(view.guarantees(), guarantees);
}

/// Appends until the log stops, saying each offset that was acknowledged and then what became of the log.
fn append_until_it_stops(directory: &Path) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let log = open(directory).unwrap();
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let mut tail = log.tail().await.unwrap();
        loop {
            match log.append(vec![message("a", vec![7; 50_000])]).await {
                Ok(offsets) => again::say(offsets[0]),
                // The write that failed: nobody knows what of it the disk has.
                Err(error) => {
                    assert!(matches!(error, LogError::Unknown { .. }), "{error}");
                    break;
                }
            }
        }
        // From here on every call says so, and nothing is acknowledged.
        let error = log.append(vec![message("a", "small")]).await.unwrap_err();
        assert!(matches!(&error, LogError::Unavailable { reason } if reason.contains("it stopped")), "{error}");
        assert!(matches!(log.read(read_all(">")).await, Err(LogError::Unavailable { .. })));
        assert!(matches!(log.end().await, Err(LogError::Unavailable { .. })));
        assert!(log.tail().await.is_err());
        let answer = log.commit(commit(&id, term, 1)).await;
        assert!(matches!(answer, Err(CommitError::Unavailable { .. })), "{answer:?}");
        while let Some(next) = tail.next().await {
            next.unwrap();
        }
        again::say("stopped");
    });
}

#[tokio::test]
async fn after_a_failed_write_the_log_stops_and_loses_nothing_it_acknowledged() {
    let name = "conformance::embedded::after_a_failed_write_the_log_stops_and_loses_nothing_it_acknowledged";
    if let Some(directory) = again::directory_of_child() {
        return tokio::task::spawn_blocking(move || append_until_it_stops(&directory)).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    // No file may grow beyond 2,000 blocks of 512 bytes: a write fails as on a broken disk.
    let mut child = again::child_in_shell("trap '' XFSZ; ulimit -f 2000", name, directory.path()).spawn().unwrap();
    let mut said: Vec<String> = again::listen(&mut child).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(said.pop().unwrap(), "stopped");
    let acknowledged: Vec<u64> = said.iter().map(|offset| offset.parse().unwrap()).collect();
    assert!((5..40).contains(&acknowledged.len()), "{acknowledged:?}");
    let log = open(directory.path()).unwrap();
    let found: Vec<u64> = everything(&log).await.iter().map(|message| message.offset.0).collect();
    assert!(found.starts_with(&acknowledged), "{acknowledged:?} was acknowledged, {found:?} is there");
}
