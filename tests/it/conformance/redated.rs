//! The host's time is set: all times in the embedded log move as [`Redate`] says, together, and nothing else does.

use crate::harness::logs::{commit, key, message, shard};
use crate::harness::{dead_letters, everything};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, DeadLetter, Deaths, Delayed, Head, HeadScope, Mark, Record, ShardCommit};
use sluicebox::log::embedded::{EmbeddedLog, HostBoot, Opening, Options};
use sluicebox::log::memory::MemoryCore;
use sluicebox::log::{Log, Routings};
use sluicebox::message::{IdHash, Message, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use sluicebox::skew::Redate;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The log as everyone sees it.
async fn look(directory: &Path) -> (Vec<Message>, Record, Vec<DeadLetter>, Routings) {
    let log = EmbeddedLog::open(directory, Options::default()).unwrap();
    let messages = everything(&log).await.iter().map(|message| (**message).clone()).collect();
    let mut record = log.claim(shard("h", 0), Offset::START).await.unwrap().record;
    record.open.sort_by_key(|head| head.offset);
    record.delayed.sort_by_key(|delayed| delayed.number);
    (messages, record, dead_letters(&log).await, log.routings().await.unwrap())
}

/// Handlers whose rules of identity hold since these times, as after a migration.
fn routings() -> Vec<Routing> {
    let routing = |(index, time)| Routing {
        handler: shard(&format!("h{index}"), 0).handler,
        key: KeyFrom::All,
        id: IdFrom::Message,
        shards: 1,
        recorded: Offset::START,
        identity: Since { after: Offset(1), time: Timestamp(time) },
        spans: vec![Span { after: Offset::START, subscribe: vec![] }],
    };
    [0, 1_000, 5_000, 9_000].into_iter().enumerate().map(routing).collect()
}

fn redate_routings(routings: &mut [Routing], redate: &Redate) {
    routings.iter_mut().for_each(|routing| routing.identity.time = redate.time(routing.identity.time));
}

async fn fill(directory: &Path) {
    let clocks: [fn() -> Timestamp; 3] = [|| Timestamp(1_000), || Timestamp(5_000), || Timestamp(9_000)];
    for (at, clock) in clocks.into_iter().enumerate() {
        let log = EmbeddedLog::open(directory, Options { clock, ..Options::default() }).unwrap();
        let offsets = log.append(vec![message("a", vec![7; 20_000]); 3]).await.unwrap();
        let claim = log.claim(shard("h", 0), Offset::START).await.unwrap();
        let head = |index: usize, due| Head {
            offset: offsets[index],
            key: Some(key(&format!("{at} {index}"))),
            attempt: 1,
            due: Timestamp(due),
            error: "".into(),
            digest: None,
            scope: HeadScope::Lane,
        };
        let now = clock().0;
        let letter = DeadLetter {
            shard: shard("h", 0),
            message: everything(&log).await[at].clone(),
            key: None,
            attempts: 1,
            kind: "reject".into(),
            error: "".into(),
            digest: None,
            time: Timestamp(now),
            identity: None,
            deaths: Deaths::first(offsets[at], Timestamp(now)),
        };
        let delayed = Delayed { number: at as u64 + 1, due: Timestamp(now + 700), message: message("b", "") };
        let marks = (0..3).map(|n| Mark { id: IdHash(u128::from(now + n)), time: Timestamp(now - n) });
        let full = ShardCommit {
            read: offsets[2],
            open_put: vec![head(0, 0), head(1, now + 500)],
            marks: marks.collect(),
            delayed_put: vec![delayed],
            dead: vec![letter],
            ..commit(&shard("h", 0), claim.term, claim.record.commit_number + 1)
        };
        assert_eq!(log.commit(full).await, Ok(Committed::default()));
        if at == 0 {
            log.put_routings(0, routings()).await.unwrap();
        }
    }
}

async fn check(redate: Redate) {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path()).await;
    let (mut messages, mut record, mut dead, mut routings) = look(directory.path()).await;
    let opening = Opening::begin(directory.path(), Options::default()).unwrap();
    assert_eq!(opening.last_time().unwrap(), Timestamp(9_000));
    let accepted = HostBoot { boot_id: "a boot".into(), boot: Timestamp(7) };
    assert_eq!(opening.accepted().unwrap(), None);
    opening.redate(&redate, &accepted).unwrap();
    assert_eq!(opening.last_time().unwrap(), redate.time(Timestamp(9_000)));
    drop(opening);
    let opening = Opening::begin(directory.path(), Options::default()).unwrap();
    assert_eq!(opening.accepted().unwrap(), Some(accepted), "until the host took note of it");
    opening.accepted_is_noted().unwrap();
    assert_eq!(opening.accepted().unwrap(), None);
    drop(opening);

    messages.iter_mut().for_each(|message| message.time = redate.time(message.time));
    record.open.iter_mut().for_each(|head| head.due = redate.due(head.due));
    record.delayed.iter_mut().for_each(|delayed| delayed.due = redate.due(delayed.due));
    record.marks.iter_mut().for_each(|mark| mark.time = redate.time(mark.time));
    for letter in &mut dead {
        letter.time = redate.time(letter.time);
        letter.deaths.first_time = redate.time(letter.deaths.first_time);
        letter.message = Arc::new(Message { time: redate.time(letter.message.time), ..(*letter.message).clone() });
    }
    redate_routings(&mut routings.routings, &redate);
    assert_eq!(look(directory.path()).await, (messages, record, dead, routings), "{redate:?}");

    let mut core = MemoryCore::default();
    core.put_routings(0, self::routings()).unwrap();
    let mut expected = core.routings();
    redate_routings(&mut expected.routings, &redate);
    core.redate(&redate);
    assert_eq!(core.routings(), expected, "{redate:?}");
}

#[tokio::test]
async fn every_time_moves_when_a_clock_that_was_ahead_is_taken_as_it_is() {
    for (now, by) in [(4_000, 5_000), (8_900, 100), (10_000, 1), (1, 9_000)] {
        check(Redate::Back { now: Timestamp(now), by: Duration::from_millis(by) }).await;
    }
}

#[tokio::test]
async fn every_time_moves_when_a_clock_that_was_behind_is_taken_as_it_is() {
    for (since, by) in [(0, 1_000_000), (5_000, 1_000_000), (9_500, 1_000)] {
        let (since, by) = (Timestamp(since), Duration::from_millis(by));
        check(Redate::Forward { now: Timestamp(9_000).after(by), since, by }).await;
    }
}
