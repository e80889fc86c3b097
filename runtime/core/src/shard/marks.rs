//! The ids that were done, as far as they still matter.
//!
//! Expiry follows the log's time of the messages settled, never the wall clock: a handler that was away for a day comes
//! back with all its marks, and a message that waited long behind its key still finds the mark of its twin. A shard that
//! hears nothing is told how far the log is without it, lest marks that nobody needs count against those of other shards.
//!
//! The bound on them is the handler's: [`Remembered`] counts the marks of all its shards on this host, and a shard forgets
//! only while they are too many together and it has more than its share. So most of them may be of one key.

use crate::clock::Timestamp;
use crate::commit::Mark;
use crate::message::{IdHash, Offset};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most samples of when messages were taken up.
const SAMPLES_MAX: usize = 8192;

/// How many marks the shards of one handler have together, on this host. A clone counts the same ones.
#[derive(Clone, Debug, Default)]
pub struct Remembered(Arc<AtomicUsize>);

impl Remembered {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The bounds of a shard's marks.
#[derive(Clone, Copy, Debug)]
pub struct MarkBounds {
    pub window: Duration,
    /// Of all shards together.
    pub marks_max: usize,
    /// A shard that has no more than this forgets nothing inside the window.
    pub share: usize,
}

/// The marks of one shard: about 60 bytes each.
#[derive(Debug)]
pub struct Marks {
    bounds: MarkBounds,
    all: Remembered,
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
    pub fn new(bounds: MarkBounds, all: Remembered, recorded: &[Mark]) -> Self {
        let recorded = &recorded[recorded.len().saturating_sub(bounds.marks_max)..];
        let mut marks = Self {
            bounds,
            all,
            times: HashMap::with_capacity_and_hasher(recorded.len(), BuildHasherDefault::default()),
            order: VecDeque::with_capacity(recorded.len()),
            taken_up: VecDeque::new(),
            settled: Timestamp(0),
            evicted: 0,
        };
        recorded.iter().for_each(|mark| marks.insert(*mark));
        // A record may hold some that were forgotten, and counted, before.
        marks.evicted = 0;
        marks
    }

    /// Whether the id was done by a message less than the window older than `time`.
    pub fn done(&self, id: IdHash, time: Timestamp) -> bool {
        self.times.get(&id).is_some_and(|made| time.since(*made) < self.bounds.window)
    }

    /// Whether a mark that was made up to `before` may matter to a message of this time.
    pub fn has_of_before(&self, before: Timestamp, time: Timestamp) -> bool {
        before > Timestamp(0) && time.since(before) < self.bounds.window
    }

    pub fn insert(&mut self, mark: Mark) {
        self.times.insert(mark.id, mark.time);
        self.order.push_back(mark);
        self.all.0.fetch_add(1, Ordering::Relaxed);
        // More than one may have to go: shards below their share let none go while the whole is over its bound.
        while self.all.count() > self.bounds.marks_max && self.order.len() > self.bounds.share {
            self.evicted += 1;
            self.drop_oldest();
        }
    }

    /// A message was taken up; or nothing up to here is for the shard but what was.
    pub fn taken_up(&mut self, offset: Offset, time: Timestamp) {
        // A sample a sixty-fourth of the window apart says enough about when marks may go.
        let samples = self.taken_up.len();
        match self.taken_up.back_mut() {
            Some((last, at)) if time.since(*at) < self.bounds.window / 64 && samples > 1 => *last = offset,
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
        self.settled.before(self.bounds.window)
    }

    /// When the oldest one may matter no more, by the time of the log.
    pub fn due(&self) -> Option<Timestamp> {
        self.order.front().map(|mark| mark.time.after(self.bounds.window + Duration::from_millis(1)))
    }

    pub fn window(&self) -> Duration {
        self.bounds.window
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// How many went because there were too many, since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    fn drop_oldest(&mut self) {
        let Some(mark) = self.order.pop_front() else { return };
        self.all.0.fetch_sub(1, Ordering::Relaxed);
        if self.times.get(&mark.id) == Some(&mark.time) {
            self.times.remove(&mark.id);
        }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.order.len(), Ordering::Relaxed);
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
        Mark { id: IdHash::of(None, id), time: Timestamp(time) }
    }

    fn marks(window_ms: u64, marks_max: usize, recorded: &[Mark]) -> Marks {
        let bounds = MarkBounds { window: Duration::from_millis(window_ms), marks_max, share: marks_max };
        Marks::new(bounds, Remembered::default(), recorded)
    }

    #[test]
    fn a_mark_counts_for_less_than_its_window() {
        let mut marks = marks(100, 10, &[]);
        marks.insert(mark("a", 1000));
        assert!(marks.done(IdHash::of(None, "a"), Timestamp(1099)));
        assert!(!marks.done(IdHash::of(None, "a"), Timestamp(1100)));
        assert!(!marks.done(IdHash::of(None, "b"), Timestamp(1000)));
    }

    #[test]
    fn marks_expire_by_the_time_of_the_log() {
        let mut marks = marks(100, 10, &[mark("a", 1000)]);
        marks.taken_up(Offset(1), Timestamp(1100));
        marks.expire(None);
        assert_eq!(marks.order.len(), 1);
        marks.taken_up(Offset(3), Timestamp(1101));
        marks.expire(None);
        assert_eq!((marks.order.len(), marks.times.len()), (0, 0));
    }

    #[test]
    fn a_mark_stays_while_a_message_of_its_window_waits() {
        let mut marks = marks(100, 10, &[mark("a", 1000)]);
        for (offset, time) in [(5, 1050), (7, 5000), (9, 9000)] {
            marks.taken_up(Offset(offset), Timestamp(time));
        }
        marks.expire(Some(Offset(5)));
        assert!(marks.done(IdHash::of(None, "a"), Timestamp(1050)));
        marks.expire(Some(Offset(9)));
        assert!(!marks.done(IdHash::of(None, "a"), Timestamp(1050)));
    }

    /// Takes up a message after each of these pauses, in milliseconds, with the window of 6,400: offsets from 1, and times.
    fn all_taken_up(pauses: impl IntoIterator<Item = u64>) -> (Marks, Vec<u64>) {
        let mut marks = marks(6_400, 10, &[]);
        let (mut times, mut time) = (vec![], 10_000);
        for (offset, pause) in (1..).zip(pauses) {
            time += pause;
            marks.taken_up(Offset(offset), Timestamp(time));
            times.push(time);
            assert!(marks.taken_up.len() <= SAMPLES_MAX);
        }
        (marks, times)
    }

    #[test]
    fn samples_say_how_far_messages_are_settled_never_too_far_and_hardly_too_little() {
        for open in [2, 3, 90, 101, 500, 777, 1_000] {
            let (mut marks, times) = all_taken_up((0..1_000).map(|number| number % 7));
            let span = times[999] - times[0];
            assert!(marks.taken_up.len() as u64 <= span / 100 + 3, "a sample for each sixty-fourth of the window");
            marks.expire(Some(Offset(open)));
            // The last one before the open message.
            let last = times[open as usize - 2];
            assert!(marks.settled.0 <= last, "{:?} before {open}", marks.settled);
            assert!(marks.settled.0 + 200 >= last || open < 3, "{:?} before {open}, not {last}", marks.settled);
            marks.expire(None);
            assert!(marks.settled.0 + 100 >= times[999] && marks.taken_up.is_empty());
        }
    }

    #[test]
    fn a_key_that_is_stuck_for_long_makes_samples_coarser_and_never_wrong() {
        let messages = 3 * SAMPLES_MAX as u64;
        for open in [5_000, 20_000, messages] {
            let (mut marks, times) = all_taken_up((0..messages).map(|_| 150));
            assert!(marks.taken_up.len() > SAMPLES_MAX / 2);
            marks.expire(Some(Offset(open)));
            let last = times[open as usize - 2];
            assert!(marks.settled.0 <= last && marks.settled.0 + 16 * 150 >= last, "{:?}, not {last}", marks.settled);
        }
    }

    #[test]
    fn beyond_the_maximum_the_oldest_go_and_are_counted() {
        let mut marks = marks(9000, 2, &[]);
        for (number, id) in ["a", "b", "c"].iter().enumerate() {
            marks.insert(mark(id, number as u64));
        }
        assert!(!marks.done(IdHash::of(None, "a"), Timestamp(3)));
        assert!(marks.done(IdHash::of(None, "b"), Timestamp(3)) && marks.done(IdHash::of(None, "c"), Timestamp(3)));
        assert_eq!((marks.take_evicted(), marks.take_evicted()), (1, 0));
    }

    #[test]
    fn a_later_mark_of_the_same_id_outlives_the_earlier_one() {
        let mut marks = marks(100, 10, &[mark("a", 1000), mark("a", 1150)]);
        marks.taken_up(Offset(1), Timestamp(1200));
        marks.expire(None);
        assert!(marks.done(IdHash::of(None, "a"), Timestamp(1200)));
    }

    #[test]
    fn a_shard_forgets_only_when_the_handler_has_too_many_and_it_has_more_than_its_share() {
        let all = Remembered::default();
        let bounds = MarkBounds { window: Duration::from_secs(9), marks_max: 100, share: 25 };
        let shard = || Marks::new(bounds, all.clone(), &[]);
        let (mut hot, mut cold) = (shard(), shard());
        (0..100).for_each(|number| hot.insert(mark(&number.to_string(), number)));
        assert_eq!((hot.len(), hot.take_evicted()), (100, 0));
        (0..25).for_each(|number| cold.insert(mark(&number.to_string(), number)));
        assert_eq!((cold.len(), cold.take_evicted()), (25, 0));
        // What is too many goes where there are more than the share.
        hot.insert(mark("next", 100));
        assert_eq!((hot.len(), hot.take_evicted(), all.count()), (75, 26, 100));
        assert!(hot.done(IdHash::of(None, "99"), Timestamp(100)) && !hot.done(IdHash::of(None, "0"), Timestamp(100)));
        drop(hot);
        assert_eq!(all.count(), 25);
    }

    /// Whatever the shards do, the handler never has more than twice the bound.
    #[test]
    fn the_marks_of_all_shards_are_bounded_however_the_load_wanders() {
        let all = Remembered::default();
        let bounds = MarkBounds { window: Duration::from_secs(9), marks_max: 64, share: 8 };
        let mut shards: Vec<Marks> = (0..8).map(|_| Marks::new(bounds, all.clone(), &[])).collect();
        for number in 0..10_000_u64 {
            let at = (number / 100 * 5 + number % 3) % 8;
            shards[at as usize].insert(mark(&number.to_string(), number));
            assert!(all.count() <= 128, "{}", all.count());
            assert_eq!(all.count(), shards.iter().map(Marks::len).sum::<usize>());
        }
    }

    #[test]
    fn marks_from_before_a_change_of_identity_count_for_a_window_after_it() {
        let marks = marks(100, 10, &[]);
        let matter = |before, time| marks.has_of_before(Timestamp(before), Timestamp(time));
        assert!(matter(1000, 1000) && matter(1000, 1099));
        assert!(!matter(1000, 1100));
        assert!(!matter(0, 50), "it never changed");
    }

    #[test]
    fn ids_do_not_share_a_bucket() {
        use std::hash::BuildHasher;
        let hasher = BuildHasherDefault::<FirstWord>::default();
        let hashes = (0..1_000).map(|number| hasher.hash_one(IdHash::of(None, &number.to_string())));
        let buckets: std::collections::BTreeSet<u64> = hashes.map(|hash| hash % 1024).collect();
        assert!(buckets.len() > 400, "{}", buckets.len());
    }
}
