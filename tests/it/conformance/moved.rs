//! A log that is exported from any kind and imported into any kind is the same log: nothing of it is missing, everything keeps its
//! place and its name, and what comes after it comes after it.

use super::dead::letter;
use super::record::{any_commit, any_message};
use crate::harness::logs::{commit, key, message, shard};
use crate::harness::nats::fresh_namespace;
use crate::harness::servers::runtime;
use crate::harness::{everything, nats, redis};
use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Committed, DeadFilter, DeadOrder, DeadQuery, LogId, NumberedDeadLetter, Record, ShardCommit};
use sluicebox::effects::Entries;
use sluicebox::handler::{Digest, HandlerName, ShardId};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::memory::{MemoryCore, MemoryLog, MemoryRestore};
use sluicebox::log::nats::NatsLog;
use sluicebox::log::portable::file::{FileError, Reader, Writer};
use sluicebox::log::portable::{ExportError, Piece, Restore, export};
use sluicebox::log::redis::RedisLog;
use sluicebox::log::{Log, LogError, Modules, StateQuery, Trim};
use sluicebox::message::{IdHash, Key, Message, NewMessage, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use sluicebox::topic::Pattern;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A place for a log that may be opened again.
enum Place {
    Memory(Arc<OnceLock<MemoryCore>>),
    Embedded(tempfile::TempDir),
    Nats(String),
    Redis(String),
}

const KINDS: [&str; 4] = ["memory", "embedded", "nats", "redis"];

impl Place {
    fn of(kind: &str) -> Self {
        match kind {
            "memory" => Self::Memory(Arc::default()),
            "embedded" => Self::Embedded(tempfile::tempdir().unwrap()),
            "nats" => Self::Nats(fresh_namespace()),
            _ => Self::Redis(fresh_namespace()),
        }
    }

    /// As a host opens it, with little of state and records in memory.
    fn open(&self) -> Result<Arc<dyn Log>, LogError> {
        match self {
            Self::Memory(core) => {
                Ok(Arc::new(MemoryLog::with(core.get().cloned().unwrap_or_default(), || Timestamp(9))))
            }
            Self::Embedded(directory) => Ok(Arc::new(EmbeddedLog::open(directory.path(), Options::default())?)),
            Self::Nats(namespace) => nats::open_with(nats_options(namespace)),
            Self::Redis(namespace) => redis::open_with(redis_options(namespace)),
        }
    }

    fn restore(&mut self) -> Result<Box<dyn Restore>, LogError> {
        match self {
            Self::Memory(done) => {
                let restore = MemoryRestore::default();
                *done = restore.done();
                Ok(Box::new(restore))
            }
            Self::Embedded(directory) => EmbeddedLog::restore(directory.path()),
            Self::Nats(namespace) => beside(NatsLog::restore(nats_options(namespace))),
            Self::Redis(namespace) => beside(RedisLog::restore(redis_options(namespace))),
        }
    }
}

fn nats_options(namespace: &str) -> nats::Options {
    nats::Options { flush_bytes: 256, snapshot_bytes: 4096, ..nats::options(namespace) }
}

fn redis_options(namespace: &str) -> redis::Options {
    redis::Options { flush_bytes: 256, snapshot_bytes: 4096, ..redis::options(namespace) }
}

/// Runs where the tasks of logs run.
fn beside<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| runtime().block_on(work)).join().unwrap())
}

/// Everything that the contract shows of a log, but its identity and terms.
#[derive(Debug, PartialEq)]
struct Whole {
    end: Offset,
    gone: u64,
    messages: Vec<Arc<Message>>,
    routings: Vec<Routing>,
    records: BTreeMap<ShardId, Record>,
    state: BTreeMap<(HandlerName, Key), Entries>,
    letters: Vec<NumberedDeadLetter>,
    modules: Modules,
}

async fn whole(log: &dyn Log) -> Whole {
    let (mut records, mut state) = (BTreeMap::new(), BTreeMap::new());
    for status in log.status().await.unwrap() {
        let mut record = log.claim(status.shard.clone(), Offset::START).await.unwrap().record;
        record.delayed.sort_by_key(|delayed| delayed.number);
        record.commit_number = 0;
        records.insert(status.shard.clone(), record);
        let (handler, prefix, keys_max) = (status.shard.handler.clone(), String::new(), 1000);
        let query = StateQuery { handler: handler.clone(), prefix, after: None, keys_max };
        for key in log.state_keys(query).await.unwrap() {
            let entries = log.load(status.shard.clone(), vec![key.key.clone()]).await.unwrap().remove(0);
            state.insert((handler.clone(), key.key), entries);
        }
    }
    let query = DeadQuery { order: DeadOrder::Oldest { above: 0 }, ..DeadQuery::newest(DeadFilter::default(), 1000) };
    Whole {
        end: log.end().await.unwrap(),
        gone: log.gone_after(Offset::START).await.unwrap(),
        messages: everything(log).await,
        routings: log.routings().await.unwrap().routings,
        records,
        state,
        letters: log.dead(query).await.unwrap(),
        modules: log.modules().await.unwrap(),
    }
}

async fn exported(log: &dyn Log, from: Offset) -> Vec<u8> {
    let mut file = Writer::begin(vec![]).unwrap();
    let end = export(log, from, &|_, _| None, &mut |piece| file.write(&piece)).await.unwrap();
    file.finish(end).unwrap().0
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// As the command does it; with `pieces_max` it ends before that piece, as if it had been killed.
fn import(place: &mut Place, file: &[u8], pieces_max: usize) -> Result<bool, Failed> {
    let mut reader = Reader::begin(file)?;
    let mut restore = place.restore()?;
    for _ in 0..pieces_max {
        match reader.read()?.expect("an end comes before the end") {
            Piece::End(end) => {
                beside(restore.finish(end))?;
                return Ok(true);
            }
            piece => beside(restore.take(piece))?,
        }
    }
    Ok(false)
}

fn routing(handler: &str, shards: u16, after: Offset) -> Routing {
    let spans = [(Offset::START, "a.>"), (after, "b.*")];
    let span = |(after, pattern)| Span { after, subscribe: vec![Pattern::parse(pattern).unwrap()] };
    Routing {
        handler: HandlerName::parse(handler).unwrap(),
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards,
        recorded: after,
        identity: Since { after, time: Timestamp(5) },
        spans: spans.into_iter().map(span).collect(),
    }
}

/// Messages, commits with all that they may hold, letters, modules; some of the oldest messages are gone.
async fn fill(log: &dyn Log, messages: Vec<Vec<NewMessage>>, commits: Vec<(u16, ShardCommit)>) {
    for batch in messages {
        log.append(batch).await.unwrap();
    }
    for (at, (index, mut next)) in commits.into_iter().enumerate() {
        let id = shard(["h", "other"][at % 2], index);
        let claim = log.claim(id.clone(), Offset::START).await.unwrap();
        next.read = next.read.max(claim.record.read);
        next.controlled = next.controlled.max(claim.record.controlled);
        next.dead = if at % 3 == 0 { vec![letter(&id, "one"), letter(&id, "two")] } else { vec![] };
        next.dead.iter_mut().for_each(|letter| letter.identity = Some(IdHash(at as u128)));
        let next = ShardCommit { shard: id, term: claim.term, number: claim.record.commit_number + 1, ..next };
        log.commit(next).await.unwrap();
    }
    let version = log.routings().await.unwrap().version;
    let end = log.end().await.unwrap();
    log.put_routings(version, vec![routing("h", 4, end), routing("unclaimed", 2, end)]).await.unwrap();
    for text in ["first", "second"] {
        log.put_module(HandlerName::parse("h").unwrap(), text.into(), vec![]).await.unwrap();
    }
    let trim = Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders: vec![], messages_max: 2 };
    log.trim(trim).await.unwrap();
}

/// What comes after an import is after everything that was brought along, and is found again with it.
async fn goes_on(log: &dyn Log, expected: &Whole) {
    let offset = log.append(vec![message("a", "next")]).await.unwrap()[0];
    assert!(offset > expected.end, "{offset} after {}", expected.end);
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let next = ShardCommit {
        read: offset,
        dead: vec![letter(&id, "next")],
        outputs: vec![message("out", "x")],
        ..commit(&id, claim.term, claim.record.commit_number + 1)
    };
    assert_eq!(log.commit(next).await, Ok(Committed::default()));
    let newest = log.dead(DeadQuery::newest(DeadFilter::default(), 1)).await.unwrap().remove(0);
    let named = expected.records.values().flat_map(|record| &record.control.jobs).filter_map(|job| job.filter.upto);
    let before = named.chain(expected.letters.iter().map(|dead| dead.number)).max().unwrap_or(0);
    assert!(newest.number > before, "no command of before means it");
    assert_eq!(newest.letter.error, "next");
    let messages = everything(log).await;
    assert_eq!(messages[..expected.messages.len()], expected.messages);
    assert_eq!(messages.len(), expected.messages.len() + 2);
    let offsets: Vec<Offset> = messages.iter().map(|message| message.offset).collect();
    assert!(offsets.is_sorted());
    let fetched = log.fetch(offsets).await.unwrap();
    assert_eq!(fetched.into_iter().flatten().collect::<Vec<_>>(), messages);
    for message in &messages {
        // What is not newer than a message that was brought along was brought along before it.
        let before = log.offset_before(message.time).await.unwrap();
        assert!(before < message.offset, "{before} is before the time of {}", message.offset);
    }
    assert_eq!(log.gone_after(Offset::START).await.unwrap(), expected.gone);
}

fn check_pairs(from: &str) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for to in KINDS {
        for _ in 0..2 {
            let messages = vec(vec(any_message(), 1..5), 1..6);
            let commits = vec((0..3u16, any_commit()), 0..12);
            let (messages, commits) = (messages, commits).new_tree(&mut runner).unwrap().current();
            let source = Place::of(from).open().unwrap();
            let (expected, identity, file) = beside(async {
                fill(&*source, messages, commits).await;
                let identity = source.claim(shard("h", 0), Offset::START).await.unwrap().log;
                (whole(&*source).await, identity, exported(&*source, Offset::START).await)
            });
            let mut place = Place::of(to);
            assert!(import(&mut place, &file, usize::MAX).unwrap());
            let log = place.open().unwrap();
            let (found, own) =
                beside(async { (whole(&*log).await, log.claim(shard("h", 0), Offset::START).await.unwrap().log) });
            assert_eq!(found, expected, "from {from} to {to}");
            assert!(own != identity || own == LogId::default(), "ids that are derived from now on are its own");
            beside(goes_on(&*log, &expected));
            if to != "memory" {
                let all = beside(whole(&*log));
                drop(log);
                let log = place.open().unwrap();
                assert_eq!(beside(whole(&*log)), all, "opened again, from {from} to {to}");
            }
        }
    }
}

#[test]
fn a_log_in_memory_is_the_same_in_every_other_kind() {
    check_pairs("memory");
}

#[test]
fn an_embedded_log_is_the_same_in_every_other_kind() {
    check_pairs("embedded");
}

#[test]
fn a_log_on_nats_is_the_same_in_every_other_kind() {
    check_pairs("nats");
}

#[test]
fn a_log_on_redis_is_the_same_in_every_other_kind() {
    check_pairs("redis");
}

/// A log with something of everything.
fn sample() -> (Whole, Vec<u8>) {
    let source = Place::of("memory").open().unwrap();
    beside(async {
        let id = shard("h", 0);
        let offsets = source.append((0..3000).map(|n| message("a", format!("{n}"))).collect()).await.unwrap();
        let term = source.claim(id.clone(), Offset::START).await.unwrap().term;
        let state = (0..300).map(|n| sluicebox::commit::KeyWrites {
            key: key(&format!("k{n}")),
            writes: vec![sluicebox::effects::StateWrite { entry: "n".into(), value: Some(format!("{n}").into()) }],
        });
        let full = ShardCommit {
            read: offsets[1500],
            marks: (0..40_000).map(|n| sluicebox::commit::Mark { id: IdHash(n), time: Timestamp(5) }).collect(),
            state: state.collect(),
            dead: (0..300).map(|n| letter(&id, &format!("{n}"))).collect(),
            ..commit(&id, term, 1)
        };
        source.commit(full).await.unwrap();
        source.put_module(HandlerName::parse("h").unwrap(), "module".into(), vec![]).await.unwrap();
        (whole(&*source).await, exported(&*source, Offset::START).await)
    })
}

#[test]
fn an_import_that_is_cut_short_leaves_no_log_and_can_begin_again() {
    let (expected, file) = sample();
    let mut pieces = 0;
    let mut reader = Reader::begin(&*file).unwrap();
    while reader.read().unwrap().is_some() {
        pieces += 1;
    }
    assert!(pieces > 12, "{pieces}");
    for kind in ["embedded", "nats", "redis"] {
        let mut place = Place::of(kind);
        for pieces_max in [0, 1, 3, pieces / 2, pieces - 1] {
            assert!(!import(&mut place, &file, pieces_max).unwrap());
            match (&place, place.open()) {
                // What it left is no log: a host would begin a new one, which this takes away again.
                (Place::Embedded(directory), Ok(log)) => {
                    assert_eq!(beside(whole(&*log)).messages, []);
                    drop(log);
                    std::fs::remove_file(directory.path().join("sluicebox.db")).unwrap();
                }
                // Before its first piece nothing was begun.
                (_, Ok(log)) => assert!(pieces_max == 0 && beside(whole(&*log)).messages.is_empty(), "{kind}"),
                (_, Err(error)) => {
                    assert!(pieces_max > 0 && error.to_string().contains("begin it again"), "{kind}: {error}");
                }
            }
        }
        assert!(import(&mut place, &file, usize::MAX).unwrap());
        let log = place.open().unwrap();
        assert_eq!(beside(whole(&*log)), expected, "{kind}");
        beside(goes_on(&*log, &expected));
        drop(log);
        let refused = import(&mut place, &file, usize::MAX).unwrap_err().to_string();
        assert!(refused.contains("not empty") || refused.contains("there is a log"), "{refused}");
    }
}

#[test]
fn two_imports_at_once_do_not_mix() {
    let (expected, file) = sample();
    for kind in ["nats", "redis"] {
        let mut place = Place::of(kind);
        let mut first = place.restore().unwrap();
        let mut reader = Reader::begin(&*file).unwrap();
        for _ in 0..3 {
            beside(first.take(reader.read().unwrap().unwrap())).unwrap();
        }
        assert!(import(&mut place, &file, usize::MAX).unwrap());
        let piece = std::iter::from_fn(|| reader.read().unwrap()).find(|piece| matches!(piece, Piece::Messages(_)));
        let refused = beside(first.take(piece.unwrap())).unwrap_err().to_string();
        assert!(refused.contains("another import"), "{refused}");
        assert_eq!(beside(whole(&*place.open().unwrap())), expected);
    }
}

#[test]
fn messages_before_an_offset_are_left_out_unless_a_shard_needs_them() {
    let source = Place::of("embedded").open().unwrap();
    let file = |from| beside(exported(&*source, Offset(from)));
    let id = shard("h", 0);
    let read_to = |number: u64, read: u64| {
        beside(async {
            let term = source.claim(id.clone(), Offset::START).await.unwrap().term;
            source.commit(ShardCommit { read: Offset(read), ..commit(&id, term, number) }).await.unwrap();
        });
    };
    beside(source.append((0..2500).map(|n| message("a", format!("{n}"))).collect())).unwrap();
    for (number, read, from, first) in [(1, 700, 2000, 701), (2, 2500, 2000, 2000), (3, 2500, 9999, 2501)] {
        read_to(number, read);
        let file = file(from);
        for to in KINDS {
            let mut place = Place::of(to);
            assert!(import(&mut place, &file, usize::MAX).unwrap());
            let log = place.open().unwrap();
            let found = beside(whole(&*log));
            assert_eq!((found.end, found.gone), (Offset(2500), first - 1), "{to}");
            let offsets: Vec<u64> = found.messages.iter().map(|message| message.offset.0).collect();
            assert_eq!(offsets, (first..=2500).collect::<Vec<_>>(), "{to}");
            if log.guarantees().lag_is_exact {
                assert_eq!(beside(log.status()).unwrap()[0].behind, 2500 - read, "{to}");
            }
        }
    }
}

#[test]
fn every_file_that_is_cut_or_changed_is_refused_and_leaves_nothing() {
    let source = Place::of("memory").open().unwrap();
    let file = beside(async {
        fill(&*source, vec![vec![message("a", "1"), message("b", "2"), message("c", "3")]], vec![]).await;
        exported(&*source, Offset::START).await
    });
    let read_all = |file: &[u8]| -> Result<usize, FileError> {
        let mut reader = Reader::begin(file)?;
        let mut pieces = 0;
        while reader.read()?.is_some() {
            pieces += 1;
        }
        Ok(pieces)
    };
    read_all(&file).unwrap();
    for end in 0..file.len() {
        let error = read_all(&file[..end]).unwrap_err();
        let is_short = matches!(error, FileError::Truncated { at } if at == end as u64);
        assert!(is_short || (end == 0 && matches!(error, FileError::NotAnExport)), "cut at {end}: {error}");
    }
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let error = read_all(&changed).unwrap_err();
            if at >= 12 {
                let place = match error {
                    FileError::Damaged { at, .. } | FileError::Truncated { at } => at,
                    other => panic!("byte {at}: {other}"),
                };
                // Where the record begins that is damaged, or where the file ends that a length goes beyond.
                assert!(place <= at as u64 || place == file.len() as u64, "byte {at}: {place}");
            }
        }
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(read_all(&longer).unwrap_err().to_string().contains("behind its end"));
    // Of a place that a damaged file was imported into nothing is there.
    let mut changed = file;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let mut place = Place::of("embedded");
    assert!(matches!(import(&mut place, &changed, usize::MAX), Err(Failed::File(_))));
    assert_eq!(beside(whole(&*place.open().unwrap())).messages, []);
}

#[test]
fn a_file_of_a_later_version_asks_for_a_newer_program() {
    let mut file = Writer::begin(vec![]).unwrap().finish(Default::default()).unwrap().0;
    file[8] = 2;
    let error = Reader::begin(&*file).err().unwrap().to_string();
    assert!(error.contains("use a newer sluicebox"), "{error}");
    let error = Reader::begin(&b"no export"[..]).err().unwrap().to_string();
    assert!(error.contains("no export of a log"), "{error}");
}

#[test]
fn a_pinned_module_that_only_the_host_has_goes_along() {
    use sluicebox::commit::{Control, Over, Pin};
    let source = Place::of("memory").open().unwrap();
    let (id, bytes) = (shard("h", 0), &b"of an earlier day"[..]);
    let digest = Digest::of(bytes);
    let file = beside(async {
        let term = source.claim(id.clone(), Offset::START).await.unwrap().term;
        let pin = Some(Pin { digest, over: Over::File(Digest::of(b"in the file")) });
        let control = Some(Control { pin, ..Control::default() });
        source.commit(ShardCommit { control, ..commit(&id, term, 1) }).await.unwrap();
        let mut file = Writer::begin(vec![]).unwrap();
        let version_of = |_: &HandlerName, wanted: Digest| (wanted == digest).then(|| bytes.into());
        let end = export(&*source, Offset::START, &version_of, &mut |piece| file.write(&piece)).await.unwrap();
        file.finish(end).unwrap().0
    });
    let mut place = Place::of("embedded");
    assert!(import(&mut place, &file, usize::MAX).unwrap());
    let log = place.open().unwrap();
    assert_eq!(beside(log.module(id.handler.clone(), digest)).unwrap().as_deref(), Some(bytes));
}

#[test]
fn what_was_brought_along_leaves_an_engine_like_the_rest_and_letters_stay() {
    for kind in ["nats", "redis"] {
        let (expected, file) = sample();
        let mut place = Place::of(kind);
        assert!(import(&mut place, &file, usize::MAX).unwrap());
        let log = place.open().unwrap();
        let last = beside(async {
            // An entry each.
            for number in 0..600 {
                log.append(vec![message("a", format!("{number}"))]).await.unwrap();
            }
            let trim =
                Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders: vec![], messages_max: 700 };
            // First into the middle of what was brought along, and then all.
            let mut deleted = 0;
            while deleted == 0 {
                // The first step may do no more than learn what others decided last, and then it says that there is more.
                let trimmed = log.trim(trim.clone()).await.unwrap();
                assert!(trimmed.more, "{kind}");
                deleted = trimmed.deleted;
            }
            assert_eq!(deleted, 700, "{kind}");
            let left = everything(&*log).await;
            assert_eq!(left[..2300], expected.messages[700..]);
            while log.trim(trim.clone()).await.unwrap().more {}
            assert_eq!(everything(&*log).await, []);
            assert_eq!(log.gone_after(Offset::START).await.unwrap(), 3600);
            log.append(vec![message("a", "last")]).await.unwrap()[0]
        });
        drop(log);
        let log = place.open().unwrap();
        let found = beside(whole(&*log));
        assert_eq!((found.letters, found.end), (expected.letters, last), "{kind}");
        assert_eq!((found.records, found.state), (expected.records, expected.state), "{kind}");
        assert_eq!(found.messages.len(), 1, "{kind}");
    }
}

/// In memory it takes no time.
fn at_once<T, E: std::fmt::Debug>(work: impl Future<Output = Result<T, E>>) -> T {
    work.now_or_never().unwrap().unwrap()
}

#[test]
fn a_log_that_a_host_worked_on_meanwhile_is_not_exported() {
    type Meddle = fn(&dyn Log, &ShardId);
    type When = fn(&Piece) -> bool;
    let claims: Meddle = |log, id| drop(at_once(log.claim(id.clone(), Offset::START)));
    let commits: Meddle = |log, id| {
        let claim = at_once(log.claim(id.clone(), Offset::START));
        at_once(log.commit(commit(id, claim.term, claim.record.commit_number + 1)));
    };
    let appends: Meddle = |log, _| drop(at_once(log.append(vec![message("a", "late")])));
    let routes: Meddle = |log, _| {
        let version = at_once(log.routings()).version;
        at_once(log.put_routings(version, vec![routing("h", 4, Offset::START)]));
    };
    let joins: Meddle = |log, _| drop(at_once(log.claim(shard("h", 1), Offset::START)));
    // Before which piece; a claim before the shard is read changes nothing that is read.
    let messages = |piece: &Piece| matches!(piece, Piece::Messages(_));
    let about = |piece: &Piece| matches!(piece, Piece::About(_));
    let never: Meddle = |_, _| ();
    let cases: [(&str, When, Meddle, bool); 8] = [
        ("nothing", messages, never, true),
        ("a claim", messages, claims, false),
        ("a commit", messages, commits, false),
        ("an early commit", about, commits, false),
        ("an append", messages, appends, false),
        ("an early append", about, appends, false),
        ("subscriptions", messages, routes, false),
        ("a new shard", messages, joins, false),
    ];
    for (what, when, meddle, is_whole) in cases {
        let (log, id) = (MemoryLog::new(), shard("h", 0));
        at_once(log.append(vec![message("a", "1"), message("a", "2")]));
        at_once(log.claim(id.clone(), Offset::START));
        let mut put = |piece: Piece| {
            if when(&piece) {
                meddle(&log, &id);
            }
            Ok(())
        };
        let exported = export(&log, Offset::START, &|_, _| None, &mut put).now_or_never().unwrap();
        assert_eq!(exported.is_ok(), is_whole, "{what}: {exported:?}");
        assert!(is_whole || matches!(exported, Err(ExportError::InUse)), "{what}: {exported:?}");
    }
}
