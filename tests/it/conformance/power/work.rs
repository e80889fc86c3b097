//! What the child does to its log: appends, commits, claims and trims at once, over a write-ahead log so small that it
//! starts over again and again.

use crate::conformance::numbered::{claim_whole, numbered};
use crate::harness::logs::{message, shard};
use crate::harness::{everything, recorder};
use futures_util::future::join_all;
use sluicebox::clock::Timestamp;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, Trim};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub const SHARDS: u16 = 3;
pub const PUBLISHERS: u16 = 2;
/// The log is closed and opened again so many times.
const LIVES: u64 = 3;
/// In each life, so many rounds of so many commits and appends by each.
const ROUNDS: u64 = 6;
const COMMITS: u64 = 20;

/// What the child heard from its log, or is about to ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Claimed {
        shard: u16,
        term: u64,
    },
    Committed {
        shard: u16,
        number: u64,
    },
    Appended {
        publisher: u16,
        number: u64,
    },
    /// Messages before this time may go from now on.
    Trims {
        older_than: u64,
    },
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Claimed { shard, term } => write!(f, "claimed {shard} {term}"),
            Self::Committed { shard, number } => write!(f, "committed {shard} {number}"),
            Self::Appended { publisher, number } => write!(f, "appended {publisher} {number}"),
            Self::Trims { older_than } => write!(f, "trims 0 {older_than}"),
        }
    }
}

impl Said {
    pub fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let (index, number) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        match words[0] {
            "claimed" => Self::Claimed { shard: index, term: number },
            "committed" => Self::Committed { shard: index, number },
            "appended" => Self::Appended { publisher: index, number },
            "trims" => Self::Trims { older_than: number },
            word => panic!("nobody says {word}"),
        }
    }
}

/// The number in the body of an appended message.
pub fn number_of(body: &str) -> u64 {
    body.split('/').nth(1).unwrap().parse().unwrap()
}

/// Each transaction has a time of its own.
fn tick() -> Timestamp {
    static NOW: AtomicU64 = AtomicU64::new(1);
    Timestamp(NOW.fetch_add(1, Ordering::Relaxed))
}

pub fn options() -> Options {
    Options { wal_bytes_max: 512 * 1024, clock: tick, ..Options::default() }
}

async fn commit(log: Arc<EmbeddedLog>, index: u16, round: u64) {
    let (id, (term, last)) = (shard("h", index), claim_whole(&*log, index).await);
    recorder::say(Said::Claimed { shard: index, term: term.0 });
    assert_eq!(last, round * COMMITS);
    for number in last + 1..=last + COMMITS {
        log.commit(numbered(&id, term, number)).await.unwrap();
        recorder::say(Said::Committed { shard: index, number });
    }
}

async fn append(log: Arc<EmbeddedLog>, publisher: u16, round: u64) {
    for number in round * COMMITS + 1..=(round + 1) * COMMITS {
        // Some take many pages.
        let filler = "-".repeat(if number % 7 == 0 { 20_000 } else { 100 });
        log.append(vec![message("in", format!("{publisher}/{number}/{filler}"))]).await.unwrap();
        recorder::say(Said::Appended { publisher, number });
    }
}

/// The oldest quarter goes.
async fn trim(log: &EmbeddedLog) {
    let found = everything(log).await;
    let older_than = found[found.len() / 4].time;
    recorder::say(Said::Trims { older_than: older_than.0 });
    let trim = Trim { older_than: Some(older_than), bytes_max: None, holders: vec![], messages_max: 50 };
    while log.trim(trim.clone()).await.unwrap().more {}
}

pub async fn work(directory: &Path) {
    for life in 0..LIVES {
        let log = Arc::new(EmbeddedLog::open(directory, options()).unwrap());
        for round in life * ROUNDS..(life + 1) * ROUNDS {
            let commits = (0..SHARDS).map(|index| tokio::spawn(commit(log.clone(), index, round)));
            let appends = (0..PUBLISHERS).map(|publisher| tokio::spawn(append(log.clone(), publisher, round)));
            let done = join_all(commits.chain(appends)).await;
            done.into_iter().for_each(|done| done.unwrap());
            trim(&log).await;
        }
        // What remains is copied and the write-ahead log deleted.
        drop(Arc::into_inner(log).unwrap());
    }
}
