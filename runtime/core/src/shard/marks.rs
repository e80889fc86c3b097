//! The ids that were done, as far as they still matter.
//!
//! Expiry follows the log's time of the messages settled, never the wall clock: a handler that was away for a day comes
//! back with all its marks, and a message that waited long behind its key still finds the mark of its twin.

use crate::clock::Timestamp;
use crate::commit::Mark;
use crate::message::{IdHash, Offset};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

/// Most samples of when messages were taken up.
const SAMPLES_MAX: usize = 8192;

/// The marks of one shard: about 60 bytes each.
#[derive(Debug)]
pub struct Marks {
    window: Duration,
    marks_max: usize,
    times: ById<Timestamp>,
    /// In the order they were made.
    order: VecDeque<Mark>,
    /// Offsets and times of some of the messages taken up since `settled`, ascending.
    taken_up: VecDeque<(Offset, Timestamp)>,
    /// Messages up to this time are settled.
    settled: Timestamp,
    evicted: u64,
}

impl Marks {
    pub fn new(window: Duration, marks_max: usize, recorded: &[Mark]) -> Self {
        let recorded = &recorded[recorded.len().saturating_sub(marks_max)..];
        let mut marks = Self {
            window,
            marks_max,
            times: HashMap::with_capacity_and_hasher(recorded.len(), BuildHasherDefault::default()),
            order: VecDeque::with_capacity(recorded.len()),
            taken_up: VecDeque::new(),
            settled: Timestamp(0),
            evicted: 0,
        };
        recorded.iter().for_each(|mark| marks.insert(*mark));
        marks
    }

    /// Whether the id was done by a message less than the window older than `time`.
    pub fn done(&self, id: IdHash, time: Timestamp) -> bool {
        self.times.get(&id).is_some_and(|made| time.since(*made) < self.window)
    }

    pub fn insert(&mut self, mark: Mark) {
        self.times.insert(mark.id, mark.time);
        self.order.push_back(mark);
        if self.order.len() > self.marks_max {
            self.evicted += 1;
            self.drop_oldest();
        }
    }

    /// A message was taken up.
    pub fn taken_up(&mut self, offset: Offset, time: Timestamp) {
        // A sample a sixty-fourth of the window apart says enough about when marks may go.
        let samples = self.taken_up.len();
        match self.taken_up.back_mut() {
            Some((last, at)) if time.since(*at) < self.window / 64 && samples > 1 => *last = offset,
            _ => self.taken_up.push_back((offset, time)),
        }
        if self.taken_up.len() > SAMPLES_MAX {
            // A key that is stuck for a hundred windows: coarser samples will do.
            let mut index = 0;
            self.taken_up.retain(|_| {
                index += 1;
                index % 2 == 0
            });
        }
    }

    /// Everything before `open` is settled (`None`: everything taken up): marks that no later message can need go.
    pub fn expire(&mut self, open: Option<Offset>) {
        while let Some(&(offset, time)) = self.taken_up.front()
            && open.is_none_or(|open| offset < open)
        {
            self.settled = self.settled.max(time);
            self.taken_up.pop_front();
        }
        let since = self.since();
        while self.order.front().is_some_and(|mark| mark.time < since) {
            self.drop_oldest();
        }
    }

    /// Marks older than this no longer matter.
    pub fn since(&self) -> Timestamp {
        self.settled.before(self.window)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn marks_max(&self) -> usize {
        self.marks_max
    }

    /// How many went because there were too many, since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    fn drop_oldest(&mut self) {
        if let Some(mark) = self.order.pop_front()
            && self.times.get(&mark.id) == Some(&mark.time)
        {
            self.times.remove(&mark.id);
        }
    }
}

/// An [`IdHash`] is a cryptographic hash already: its first 64 bits serve as they are.
#[derive(Debug, Default)]
pub struct FirstWord(u64);

/// A table by id that hashes no id again.
pub type ById<V> = HashMap<IdHash, V, BuildHasherDefault<FirstWord>>;

impl Hasher for FirstWord {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: &str, time: u64) -> Mark {
        Mark { id: IdHash::of(id), time: Timestamp(time) }
    }

    #[test]
    fn a_mark_counts_for_less_than_its_window() {
        let mut marks = Marks::new(Duration::from_millis(100), 10, &[]);
        marks.insert(mark("a", 1000));
        assert!(marks.done(IdHash::of("a"), Timestamp(1099)));
        assert!(!marks.done(IdHash::of("a"), Timestamp(1100)));
        assert!(!marks.done(IdHash::of("b"), Timestamp(1000)));
    }

    #[test]
    fn marks_expire_by_the_time_of_the_log() {
        let mut marks = Marks::new(Duration::from_millis(100), 10, &[mark("a", 1000)]);
        marks.taken_up(Offset(1), Timestamp(1100));
        marks.expire(None);
        assert_eq!(marks.order.len(), 1);
        marks.taken_up(Offset(3), Timestamp(1101));
        marks.expire(None);
        assert_eq!((marks.order.len(), marks.times.len()), (0, 0));
    }

    #[test]
    fn a_mark_stays_while_a_message_of_its_window_waits() {
        let mut marks = Marks::new(Duration::from_millis(100), 10, &[mark("a", 1000)]);
        for (offset, time) in [(5, 1050), (7, 5000), (9, 9000)] {
            marks.taken_up(Offset(offset), Timestamp(time));
        }
        marks.expire(Some(Offset(5)));
        assert!(marks.done(IdHash::of("a"), Timestamp(1050)));
        marks.expire(Some(Offset(9)));
        assert!(!marks.done(IdHash::of("a"), Timestamp(1050)));
    }

    #[test]
    fn beyond_the_maximum_the_oldest_go_and_are_counted() {
        let mut marks = Marks::new(Duration::from_secs(9), 2, &[]);
        for (number, id) in ["a", "b", "c"].iter().enumerate() {
            marks.insert(mark(id, number as u64));
        }
        assert!(!marks.done(IdHash::of("a"), Timestamp(3)));
        assert!(marks.done(IdHash::of("b"), Timestamp(3)) && marks.done(IdHash::of("c"), Timestamp(3)));
        assert_eq!((marks.take_evicted(), marks.take_evicted()), (1, 0));
    }

    #[test]
    fn a_later_mark_of_the_same_id_outlives_the_earlier_one() {
        let mut marks = Marks::new(Duration::from_millis(100), 10, &[mark("a", 1000), mark("a", 1150)]);
        marks.taken_up(Offset(1), Timestamp(1200));
        marks.expire(None);
        assert!(marks.done(IdHash::of("a"), Timestamp(1200)));
    }
}
