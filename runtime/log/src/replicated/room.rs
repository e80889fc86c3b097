//! The reserve of an engine that has a bound of bytes: appends end before it is full, so that what was taken up can be settled;
//! commits end a little before too, so that it can still be written down which old messages go.
//!
//! What the engine says of itself is of a moment ago. Entries that came since are added, and those that this host has under way.
//! What other hosts have under way is not known, so the parts are only about so large.

use super::engine::{self, Engine};
use super::entry::Entry;
use crate::error::LogError;
use crate::frame::Frame;
use sluicebox_core::clock;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::routing::reserved;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The parts of the bound that are kept from appends, and from commits.
const FROM_APPENDS: u64 = 8;
const FROM_COMMITS: u64 = 32;
const FROM_CLAIMS: u64 = 64;
/// What an entry takes beside its payload, about.
const AROUND_BYTES: u64 = 128;
/// Entries that are counted one by one until the engine is asked again.
const COUNTED_MAX: usize = 16 * 1024;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    Messages,
    Commit,
    /// Of a shard whose commits are refused, again and again.
    Claim,
    /// What makes room, or lets somebody make some.
    Anyway,
}

impl Writes {
    pub(super) fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Frame(Frame::Messages(messages)) if !reserved::are_commands(messages) => Self::Messages,
            // What plain clients sent comes in with a commit, and waits where it is while there is no room.
            Entry::Frame(Frame::Commit(commit)) if commit.shard.handler == HandlerName::intake() => Self::Messages,
            Entry::Frame(Frame::Commit(_)) => Self::Commit,
            Entry::Claim { .. } => Self::Claim,
            _ => Self::Anyway,
        }
    }

    /// How many bytes of the bound it may not use.
    fn kept(self, bytes_max: u64) -> u64 {
        match self {
            Self::Messages => bytes_max / FROM_APPENDS,
            Self::Commit => bytes_max / FROM_COMMITS,
            Self::Claim => bytes_max / FROM_CLAIMS,
            Self::Anyway => 0,
        }
    }
}

#[derive(Default)]
pub(super) struct Room {
    known: Mutex<Known>,
    /// One asks the engine at a time; when the last one had its answer.
    asks: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    told: Option<engine::Room>,
    /// Entries that came after it was told: sequence and bytes.
    came: VecDeque<(u64, u64)>,
    under_way: u64,
}

impl Known {
    fn bytes(&self, copies: u64) -> u64 {
        let came: u64 = self.came.iter().map(|(_, bytes)| bytes).sum();
        (came + self.under_way).saturating_mul(copies)
    }

    /// Why so many bytes more are too many.
    fn lacks(&self, writes: Writes, more: u64) -> Option<String> {
        let told = self.told?;
        let bytes = told.bytes.saturating_add(self.bytes(told.copies));
        let left = told.bytes_max.saturating_sub(writes.kept(told.bytes_max));
        (bytes.saturating_add(more.saturating_mul(told.copies)) > left).then(|| {
            let engine::Room { bytes_max, advice, .. } = told;
            format!("it has {bytes} of its maximum bytes ({bytes_max}), and the rest is kept for the work under way: {advice}")
        })
    }
}

impl Room {
    /// An entry is there.
    pub(super) fn came(&self, sequence: u64, payload_bytes: usize) {
        let mut known = self.known();
        if known.told.is_none() {
            return;
        }
        if known.came.len() >= COUNTED_MAX
            && let (Some(first), Some(second)) = (known.came.pop_front(), known.came.front_mut())
        {
            second.1 += first.1;
        }
        known.came.push_back((sequence, payload_bytes as u64 + AROUND_BYTES));
    }

    /// Asks the engine how full it is.
    pub(super) async fn look<E: Engine>(&self, engine: &E) -> Result<(), LogError> {
        let begun = clock::instant();
        let mut asked = self.asks.lock().await;
        if asked.is_some_and(|asked| asked >= begun) {
            return Ok(());
        }
        let told = engine.room().await?;
        *asked = Some(clock::instant());
        let mut known = self.known();
        known.told = told;
        let upto = told.map_or(u64::MAX, |told| told.upto);
        known.came.retain(|(sequence, _)| *sequence > upto);
        Ok(())
    }

    /// Room for an entry until what comes back is dropped; the error says why there is none.
    pub(super) async fn take<E: Engine>(
        &self,
        engine: &E,
        writes: Writes,
        payload_bytes: usize,
    ) -> Result<UnderWay<'_>, String> {
        let bytes = payload_bytes as u64 + AROUND_BYTES;
        if let Err(reason) = self.try_take(writes, bytes) {
            // Somebody may have made room since. Without an answer it is as it was.
            if self.look(engine).await.is_err() {
                return Err(reason);
            }
            self.try_take(writes, bytes)?;
        }
        Ok(UnderWay { room: self, bytes })
    }

    fn try_take(&self, writes: Writes, bytes: u64) -> Result<(), String> {
        let mut known = self.known();
        if let Some(reason) = known.lacks(writes, bytes).filter(|_| writes != Writes::Anyway) {
            return Err(reason);
        }
        known.under_way += bytes;
        Ok(())
    }

    /// Whether appends are refused, or soon.
    pub(super) fn is_short(&self) -> bool {
        let known = self.known();
        known.told.is_some_and(|told| known.lacks(Writes::Messages, told.bytes_max / FROM_APPENDS).is_some())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of an entry that did not come back yet.
pub(super) struct UnderWay<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut known = self.room.known();
        known.under_way = known.under_way.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: u64) -> Room {
        let room = Room::default();
        room.known().told = Some(engine::Room { bytes, bytes_max: 800_000, upto: 5, copies: 1, advice: "raise it" });
        room
    }

    #[test]
    fn appends_end_before_commits_and_commits_before_what_makes_room() {
        for (bytes, appends, commits) in [(600_000, true, true), (700_001, false, true), (775_001, false, false)] {
            let room = room(bytes);
            assert_eq!(room.try_take(Writes::Messages, 0).is_ok(), appends, "{bytes}");
            assert_eq!(room.try_take(Writes::Commit, 0).is_ok(), commits, "{bytes}");
            assert_eq!(room.try_take(Writes::Anyway, 900_000), Ok(()));
        }
    }

    #[test]
    fn what_came_since_and_what_is_under_way_counts() {
        let room = room(500_000);
        room.came(6, 100_000);
        assert_eq!(room.try_take(Writes::Messages, 90_000), Ok(()));
        assert!(room.try_take(Writes::Messages, 90_000).unwrap_err().contains("raise it"));
        drop(UnderWay { room: &room, bytes: 90_000 });
        assert_eq!(room.try_take(Writes::Messages, 90_000), Ok(()));
        for sequence in 7..100_000 {
            room.came(sequence, 0);
        }
        assert!(room.known().came.len() <= COUNTED_MAX && room.known().bytes(1) > 90_000 + 99_993 * AROUND_BYTES);
    }
}
