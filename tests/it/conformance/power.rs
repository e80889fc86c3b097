//! The embedded log after the loss of power: whatever the disk still has of what was not synced, nothing that was
//! acknowledged is lost and every commit is whole or absent.
//!
//! A child works on a log and records every write and sync that SQLite makes (`harness/recorder.rs`). From places in
//! that record images are built of what the disk may hold if the power fails there (`power/image.rs`), and a log is opened
//! on each.

mod image;
mod work;

use self::image::{Disk, Image};
use self::work::Said;
use super::numbered::{claim_whole, outputs};
use crate::harness::logs::{message, read_all};
use crate::harness::recorder::{self, Event};
use crate::harness::{again, everything};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::log::Log as _;
use sluicebox::log::embedded::EmbeddedLog;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use tokio::runtime::Runtime;

const IMAGES: usize = 200;

/// What a client knows when the power fails.
#[derive(Clone, Debug, Default)]
struct Known {
    /// By shard: the highest term and number that were acknowledged.
    terms: BTreeMap<u16, u64>,
    numbers: BTreeMap<u16, u64>,
    /// By publisher: the last message that was acknowledged.
    appended: BTreeMap<u16, u64>,
    /// Messages before this time may be gone.
    trimmed: u64,
}

impl Known {
    fn hear(&mut self, said: Said) {
        match said {
            Said::Claimed { shard, term } => _ = self.terms.insert(shard, term),
            Said::Committed { shard, number } => _ = self.numbers.insert(shard, number),
            Said::Appended { publisher, number } => _ = self.appended.insert(publisher, number),
            Said::Trims { older_than } => self.trimmed = older_than,
        }
    }
}

/// Opens a log on what is left and panics where it breaks its word.
async fn check(directory: &Path, known: &Known) {
    let log = EmbeddedLog::open(directory, work::options()).unwrap();
    let found = everything(&log).await;
    let bodies = |prefix: String, topic: &str| -> Vec<String> {
        let bodies = found.iter().filter(|message| message.topic.as_str() == topic);
        let bodies = bodies.map(|message| String::from_utf8(message.body.to_vec()).unwrap());
        bodies.filter(|body| body.starts_with(&prefix)).collect()
    };
    // The oldest may be gone, what follows is without a gap.
    let is_trimmed = known.trimmed > 0;
    let is_whole = |found: &[String], all: &[String]| if is_trimmed { all.ends_with(found) } else { all == found };
    for index in 0..work::SHARDS {
        let (term, last) = claim_whole(&log, index).await;
        assert!(term.0 > known.terms.get(&index).copied().unwrap_or(0), "the term {term:?} was given before");
        let acknowledged = known.numbers.get(&index).copied().unwrap_or(0);
        assert!((acknowledged..=acknowledged + 1).contains(&last), "{last} after {acknowledged} was acknowledged");
        let (found, all) = (bodies(format!("{index}:"), "out"), outputs(index, last));
        assert!(is_whole(&found, &all), "outputs of shard {index}: {found:?} of {all:?}");
    }
    for publisher in 0..work::PUBLISHERS {
        let acknowledged = known.appended.get(&publisher).copied().unwrap_or(0);
        let found = bodies(format!("{publisher}/"), "in");
        let numbers: Vec<u64> = found.iter().map(|body| work::number_of(body)).collect();
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
        let last = numbers.last().copied().unwrap_or(0);
        assert!((acknowledged..=acknowledged + 1).contains(&last), "{last} after {acknowledged} was acknowledged");
        assert!(is_trimmed || numbers.first().is_none_or(|first| *first == 1), "{numbers:?}");
    }
    // And it goes on.
    log.append(vec![message("after", "")]).await.unwrap();
    assert_eq!(log.read(read_all("after")).await.unwrap().messages.len(), 1);
    drop(log);
    let database = rusqlite::Connection::open(directory.join("sluicebox.db")).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

/// Everything a child did to a log.
fn record(name: &str) -> Option<Vec<Event>> {
    if let Some(directory) = again::directory_of_child() {
        let data = directory.join("data");
        std::fs::create_dir(&data).unwrap();
        recorder::start(&data, &directory.join("record"));
        Runtime::new().unwrap().block_on(work::work(&data));
        recorder::finish();
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = again::child(name, directory.path()).spawn().unwrap();
    assert_eq!(again::listen(&mut child).count(), 0);
    assert!(child.wait().unwrap().success());
    Some(recorder::read(&directory.path().join("record")))
}

/// Loses the power at so many places and returns what was found wrong, with the place.
fn lose_power(events: &[Event], random: &mut StdRng, images: usize, disk: fn() -> Disk) -> Vec<String> {
    let mut places: Vec<usize> = (0..images).map(|_| random.random_range(0..=events.len())).collect();
    places.sort_unstable();
    let (mut disk, mut known, mut done) = (disk(), Known::default(), 0);
    let mut wrong = vec![];
    for place in places {
        for (at, event) in events[done..place].iter().enumerate() {
            match event {
                Event::Said(text) => known.hear(Said::parse(text)),
                event => disk.happens(done + at, event),
            }
        }
        done = place;
        let kind = *Image::ALL.choose(random).unwrap();
        let directory = tempfile::tempdir().unwrap();
        disk.image(kind, random, directory.path());
        let checked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            Runtime::new().unwrap().block_on(check(directory.path(), &known));
        }));
        if let Err(panic) = checked {
            let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
            wrong.push(format!("at {place} ({kind:?}): {}", text.unwrap_or_default()));
        }
    }
    wrong
}

#[test]
fn after_the_loss_of_power_nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let name = "conformance::power::after_the_loss_of_power_nothing_acknowledged_is_lost_and_nothing_is_half_there";
    let Some(events) = record(name) else { return };
    let seed: u64 = rand::random();
    println!("seed {seed}, {} events", events.len());
    let mut random = StdRng::seed_from_u64(seed);
    // What there was to lose: the write-ahead log started over under load, the database was cut, files went.
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    let restarts = count(|event| matches!(event, Event::Wrote { file, at: 0, .. } if file.ends_with("-wal")));
    assert!(restarts > 5, "{restarts}");
    assert!(count(|event| matches!(event, Event::Cut { .. })) > 0);
    assert!(count(|event| matches!(event, Event::Deleted { .. })) > 0);
    let wrong = lose_power(&events, &mut random, IMAGES, Disk::honest);
    assert!(wrong.is_empty(), "{} of {IMAGES} images: {wrong:#?}", wrong.len());
    // A disk that says it synced and did not is found out, or this test could not fail.
    let wrong = lose_power(&events, &mut random, IMAGES / 5, Disk::lying);
    assert!(wrong.len() > 2, "{wrong:#?}");
}
