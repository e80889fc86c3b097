//! Trimming: old messages go, what a shard still needs stays.

use crate::harness::everything;
use crate::harness::logs::{commit, key, message, read_all, shard};
use sluicebox::clock::{self, Timestamp};
use sluicebox::commit::{Committed, Head, HeadScope, ShardCommit};
use sluicebox::handler::HandlerName;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, Trim, Trimmed};
use sluicebox::message::{NewMessage, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};

/// Everything is too old.
fn all(holders: &[&str]) -> Trim {
    let holders = holders.iter().map(|name| HandlerName::parse(name).unwrap()).collect();
    Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders, messages_max: 1000 }
}

async fn offsets(log: &dyn Log) -> Vec<Offset> {
    everything(log).await.iter().map(|message| message.offset).collect()
}

async fn append(log: &dyn Log, count: usize) -> Vec<Offset> {
    log.append(vec![message("a", ""); count]).await.unwrap()
}

/// Calls until there is nothing more to do.
async fn to_the_end(log: &dyn Log, trim: &Trim) -> Trimmed {
    loop {
        let trimmed = log.trim(trim.clone()).await.unwrap();
        if !trimmed.more {
            return trimmed;
        }
    }
}

fn head(offset: Offset) -> Head {
    Head {
        offset,
        key: Some(key("k")),
        attempt: 1,
        due: Timestamp(0),
        error: "".into(),
        digest: None,
        scope: HeadScope::Lane,
    }
}

on_every_kind! {
    async fn messages_older_than_the_age_go_and_no_others(log) {
        append(&*log, 3).await;
        let old = everything(&*log).await[2].time;
        // The next ones come when the clock has moved on.
        while clock::now() <= old {}
        let young = append(&*log, 2).await;
        let older_than = Some(everything(&*log).await[3].time);
        let trimmed = log.trim(Trim { older_than, ..all(&[]) }).await.unwrap();
        assert_eq!((trimmed.deleted, trimmed.more, trimmed.held), (3, false, None));
        assert_eq!(offsets(&*log).await, young);
        let again = log.trim(Trim { older_than, ..all(&[]) }).await.unwrap();
        assert_eq!((again.deleted, again.more), (0, false));
        let never = Trim { older_than: None, ..all(&[]) };
        assert_eq!(log.trim(never).await.unwrap().deleted, 0);
    }

    async fn a_step_deletes_no_more_than_it_may_and_says_that_there_is_more(log) {
        let all_offsets = append(&*log, 10).await;
        let step = Trim { messages_max: 4, ..all(&[]) };
        let mut left = 10;
        for deleted in [4, 4, 2] {
            let trimmed = log.trim(step.clone()).await.unwrap();
            left -= deleted;
            assert_eq!((trimmed.deleted, trimmed.more), (deleted as u64, left > 0));
            assert_eq!(offsets(&*log).await, all_offsets[10 - left..]);
        }
    }

    async fn what_was_deleted_is_gone_and_its_offsets_are_not_used_again(log) {
        let gone = append(&*log, 5).await;
        let mut tail = log.tail().await.unwrap();
        assert_eq!(to_the_end(&*log, &all(&[])).await.held, None);
        assert_eq!(log.end().await.unwrap(), gone[4]);
        assert_eq!(log.fetch(gone.clone()).await.unwrap(), vec![None; 5]);
        let read = log.read(read_all(">")).await.unwrap();
        assert_eq!((read.messages.len(), read.upto), (0, gone[4]));
        assert_eq!(log.offset_before(Timestamp(u64::MAX)).await.unwrap(), Offset::START);
        let next = append(&*log, 1).await[0];
        assert!(next > gone[4]);
        assert_eq!(tail.next().await.unwrap().unwrap().upto, next);
        log.claim(shard("h", 0), Offset::START).await.unwrap();
        let behind = log.status().await.unwrap()[0].behind;
        assert!(behind == 1 || !log.guarantees().lag_is_exact, "what was deleted is behind nobody, not {behind}");
    }

    async fn what_went_after_an_offset_is_counted(log) {
        let messages = append(&*log, 6).await;
        assert_eq!(log.gone_after(Offset::START).await.unwrap(), 0);
        to_the_end(&*log, &all(&[])).await;
        append(&*log, 2).await;
        for (offset, gone) in [(Offset::START, 6), (messages[1], 4), (messages[5], 0), (Offset::END, 0)] {
            let counted = log.gone_after(offset).await.unwrap();
            assert!(counted == gone || (counted > gone && !log.guarantees().lag_is_exact), "{counted} after {offset}");
        }
    }

    async fn nothing_that_a_holder_has_not_taken_up_goes(log) {
        let messages = append(&*log, 6).await;
        let (slow, fast) = (shard("slow", 1), shard("slow", 0));
        for (id, read) in [(&slow, messages[2]), (&fast, messages[5])] {
            log.claim(id.clone(), read).await.unwrap();
        }
        let trimmed = to_the_end(&*log, &all(&["slow"])).await;
        assert_eq!(trimmed.held_by(), Some(&slow));
        assert_eq!(offsets(&*log).await, messages[3..]);
        // It holds nothing when nobody runs it any more.
        assert_eq!(to_the_end(&*log, &all(&["other"])).await.held, None);
        assert_eq!(offsets(&*log).await, []);
    }

    async fn nothing_from_the_oldest_open_head_on_goes(log) {
        let messages = append(&*log, 6).await;
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let open_put = vec![head(messages[4]), head(messages[1])];
        let read = messages[5];
        assert_eq!(log.commit(ShardCommit { read, open_put, ..commit(&id, term, 1) }).await, Ok(Committed::default()));
        assert_eq!(to_the_end(&*log, &all(&["h"])).await.held_by(), Some(&id));
        assert_eq!(offsets(&*log).await, messages[1..]);
        let open_drop = vec![messages[1]];
        assert_eq!(log.commit(ShardCommit { read, open_drop, ..commit(&id, term, 2) }).await, Ok(Committed::default()));
        assert_eq!(to_the_end(&*log, &all(&["h"])).await.held_by(), Some(&id));
        assert_eq!(offsets(&*log).await, messages[4..]);
        let open_drop = vec![messages[4]];
        assert_eq!(log.commit(ShardCommit { read, open_drop, ..commit(&id, term, 3) }).await, Ok(Committed::default()));
        let trimmed = to_the_end(&*log, &all(&["h"])).await;
        assert_eq!((trimmed.held_by(), offsets(&*log).await), (None, vec![]));
    }

    async fn no_command_goes_before_it_is_applied(log) {
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let messages = append(&*log, 4).await;
        let (read, controlled) = (messages[3], messages[0]);
        assert_eq!(log.commit(ShardCommit { read, controlled, ..commit(&id, term, 1) }).await, Ok(Committed::default()));
        assert_eq!(to_the_end(&*log, &all(&["h"])).await.held_by(), Some(&id));
        assert_eq!(offsets(&*log).await, messages[1..]);
    }

    async fn a_shard_that_was_never_claimed_holds_from_its_start(log) {
        let messages = append(&*log, 4).await;
        let routing = Routing {
            handler: shard("h", 0).handler,
            key: KeyFrom::All,
            id: IdFrom::Message,
            shards: 2,
            recorded: Offset::START,
            identity: Since::default(),
            spans: vec![Span { after: messages[1], subscribe: vec![] }],
        };
        log.put_routings(0, vec![routing]).await.unwrap();
        let trimmed = to_the_end(&*log, &all(&["h"])).await;
        assert_eq!((trimmed.held_by(), offsets(&*log).await), (Some(&shard("h", 0)), messages[2..].to_vec()));
        log.claim(shard("h", 0), messages[3]).await.unwrap();
        assert_eq!(to_the_end(&*log, &all(&["h"])).await.held_by(), Some(&shard("h", 1)));
        log.claim(shard("h", 1), messages[2]).await.unwrap();
        assert_eq!(to_the_end(&*log, &all(&["h"])).await.held_by(), Some(&shard("h", 1)));
        assert_eq!(offsets(&*log).await, messages[3..]);
    }

    async fn the_oldest_go_while_the_log_takes_too_many_bytes(log) {
        let body = |number: u32| NewMessage { key: Some(key("k")), ..message("a", vec![number as u8; 5_000]) };
        for chunk in 0..10 {
            log.append((0..50).map(|at| body(chunk * 50 + at)).collect()).await.unwrap();
        }
        let before = offsets(&*log).await;
        let unlimited = Trim { older_than: None, ..all(&[]) };
        let bytes = log.trim(unlimited.clone()).await.unwrap().bytes;
        if !log.guarantees().measures_bytes {
            assert_eq!(bytes, 0);
            return;
        }
        assert!(bytes >= 500 * 5_000, "{bytes}");
        let half = Trim { bytes_max: Some(bytes / 2), messages_max: 7, ..unlimited.clone() };
        let trimmed = to_the_end(&*log, &half).await;
        assert!(trimmed.bytes <= bytes / 2, "{} of {bytes}", trimmed.bytes);
        let left = offsets(&*log).await;
        assert!(before.ends_with(&left));
        assert!((200..=260).contains(&left.len()), "{} of 500 messages in half of the bytes", left.len());
        // A holder keeps them all the same.
        let id = shard("h", 0);
        log.claim(id.clone(), left[9]).await.unwrap();
        let held = Trim { bytes_max: Some(bytes / 4), ..all(&["h"]) };
        assert_eq!(to_the_end(&*log, &Trim { older_than: None, ..held }).await.held_by(), Some(&id));
        assert_eq!(offsets(&*log).await, left[10..]);
        // Less than what the log takes without any message: all go, and it ends.
        to_the_end(&*log, &Trim { bytes_max: Some(0), ..unlimited }).await;
        assert_eq!(offsets(&*log).await, []);
    }
}

#[tokio::test]
async fn the_embedded_log_gives_the_space_of_what_was_deleted_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    for _ in 0..10 {
        log.append(vec![message("a", vec![7; 60_000]); 80]).await.unwrap();
    }
    let full = log.trim(Trim { older_than: None, ..all(&[]) }).await.unwrap().bytes;
    let kept = append(&log, 1).await;
    let trimmed = to_the_end(&log, &Trim { bytes_max: Some(1_000_000), older_than: None, ..all(&[]) }).await;
    assert!(full > 45_000_000 && trimmed.bytes < 1_000_000, "{full} and then {}", trimmed.bytes);
    assert!(offsets(&log).await.ends_with(&kept));
    drop(log);
    let file_bytes = std::fs::metadata(directory.path().join("sluicebox.db")).unwrap().len();
    assert!(file_bytes < 20_000_000, "the file still has {file_bytes} bytes");
    let log = EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    assert!(offsets(&log).await.ends_with(&kept));
}

#[tokio::test]
async fn with_trimming_a_log_of_bounded_size_takes_appends_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let bytes_max = 4 * 1024 * 1024;
    let options = Options { bytes_max: Some(bytes_max), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), options).unwrap();
    let trim = Trim { older_than: None, bytes_max: Some(bytes_max / 10 * 9), ..all(&["h"]) };
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    for number in 1..=100 {
        // 200 kB, five times as much as there is room for in all.
        let read = *log.append(vec![message("a", vec![7; 20_000]); 10]).await.unwrap().last().unwrap();
        let outputs = vec![message("out", vec![7; 1_000])];
        let handled = ShardCommit { read, outputs, ..commit(&id, term, number) };
        assert_eq!(log.commit(handled).await, Ok(Committed::default()));
        let trimmed = to_the_end(&log, &trim).await;
        assert!(trimmed.bytes <= bytes_max / 10 * 9 && trimmed.held_by().is_none(), "{trimmed:?}");
    }
    drop(log);
    let file_bytes = std::fs::metadata(directory.path().join("sluicebox.db")).unwrap().len();
    assert!(file_bytes <= bytes_max, "{file_bytes} bytes");
}

#[tokio::test]
async fn trimming_and_copies_keep_the_write_ahead_log_within_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let (data, copies) = (directory.path().join("data"), directory.path().join("copies"));
    let log = EmbeddedLog::open(&data, Options::default()).unwrap();
    let trim = Trim { older_than: None, bytes_max: Some(20_000_000), ..all(&[]) };
    let mut most = 0;
    for round in 0..24 {
        // 20 MB each: the write-ahead log starts over several times.
        for _ in 0..5 {
            log.append(vec![message("a", vec![7; 100_000]); 40]).await.unwrap();
            to_the_end(&log, &trim).await;
            most = most.max(std::fs::metadata(data.join("sluicebox.db-wal")).unwrap().len());
        }
        if round % 6 == 5 {
            let to = copies.join(round.to_string());
            EmbeddedLog::backup(&data, &data.join("modules"), &to, |_, _| ()).unwrap();
            std::fs::remove_dir_all(to).unwrap();
        }
    }
    assert!(most < 512 << 20, "{most} bytes");
    let file_bytes = std::fs::metadata(data.join("sluicebox.db")).unwrap().len();
    assert!(file_bytes < 60_000_000, "{file_bytes} bytes");
}
