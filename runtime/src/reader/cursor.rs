//! One joined shard: its inbox and its position.

use super::batch::ShardBatch;
use super::inbox::Queue;
use crate::message::Offset;
use std::sync::Arc;

/// Where a shard is, and whether it is fed from the tail.
pub(super) struct Cursor {
    pub(super) queue: Arc<Queue>,
    /// On the tail: everything dispatched goes to it. Otherwise it is behind, and the catch-up task feeds it.
    pub(super) live: bool,
    /// Everything for it up to here was delivered. A live shard may be further: where the tail is.
    position: Offset,
    /// The last `upto` it was given.
    told: Offset,
    /// It was given nothing yet.
    fresh: bool,
    /// Messages for siblings that catch-up read since it was told anything.
    foreign: usize,
    /// The round of catch-up in which it was last served.
    pub(super) round: u64,
}

impl Cursor {
    /// A cursor that is behind.
    pub(super) fn new(queue: Arc<Queue>, after: Offset) -> Self {
        queue.await_room(true);
        Self { queue, live: false, position: after, told: after, fresh: true, foreign: 0, round: 0 }
    }

    /// Everything for it up to here was delivered. `tail`: what was dispatched reaches up to there.
    pub(super) fn position(&self, tail: Option<Offset>) -> Offset {
        match tail {
            Some(tail) if self.live => self.position.max(tail),
            _ => self.position,
        }
    }

    /// Delivers what is new to it of `batch`, which holds all messages for it after `from` and up to `upto`. Says
    /// whether it has all of them; if not, it is full and its position is after the last it took.
    pub(super) fn deliver(&mut self, batch: &mut ShardBatch, from: Offset, upto: Offset) -> bool {
        self.position = self.position.max(from);
        if upto <= self.position {
            batch.clear();
            return true;
        }
        batch.skip_to(self.position);
        if batch.is_empty() {
            self.position = upto;
            return true;
        }
        if let Some(reached) = self.queue.offer(batch, self.position, upto) {
            self.position = reached;
            self.note_told(reached);
        }
        let all = batch.is_empty();
        batch.clear();
        all
    }

    /// A read brought it nothing but so many messages of its siblings.
    pub(super) fn count_foreign(&mut self, messages: usize, messages_max: usize) {
        self.foreign += messages;
        if self.foreign >= messages_max {
            self.tell(self.position);
        }
    }

    /// Puts it on the tail. After a join it is told where it is: what it passed over may have been a long way.
    pub(super) fn go_live(&mut self) {
        self.live = true;
        self.queue.await_room(false);
        if self.fresh {
            self.tell(self.position);
        }
    }

    /// Takes it off the tail, which was dispatched up to `tail`.
    pub(super) fn drop_off(&mut self, tail: Option<Offset>) {
        self.position = self.position(tail);
        self.live = false;
        self.queue.await_room(true);
    }

    /// Lets it know its position unless it knows.
    pub(super) fn tell(&mut self, position: Offset) {
        if position > self.told {
            self.queue.tell(position);
            self.note_told(position);
        }
    }

    /// Lets it know its position although it may know: whoever is asked writes it down.
    pub(super) fn ask(&mut self, position: Offset) {
        self.queue.tell(position);
        self.note_told(position);
    }

    /// Whether it was told anything after `offset`.
    pub(super) fn told_since(&self, offset: Offset) -> bool {
        self.told > offset
    }

    fn note_told(&mut self, upto: Offset) {
        self.told = upto;
        self.fresh = false;
        self.foreign = 0;
    }
}
