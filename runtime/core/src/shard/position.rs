//! How far a shard has come: in memory, and as of the last commit that was staged.

use crate::message::Offset;

#[derive(Debug)]
pub struct Position {
    /// Every message up to here was taken up.
    read: Offset,
    /// Every operator command up to here is applied.
    controlled: Offset,
    read_staged: Offset,
    controlled_staged: Offset,
    /// Write the record even if nothing was settled.
    flush: bool,
}

impl Position {
    /// The position that the record says.
    pub fn new(read: Offset, controlled: Offset) -> Self {
        Self { read, controlled, read_staged: read, controlled_staged: controlled, flush: false }
    }

    pub fn read(&self) -> Offset {
        self.read
    }

    pub fn controlled(&self) -> Offset {
        self.controlled
    }

    pub fn read_to(&mut self, upto: Offset) {
        self.read = self.read.max(upto);
    }

    pub fn control_to(&mut self, upto: Offset) {
        self.controlled = self.controlled.max(upto);
    }

    /// Asks for the record to be written even if nothing is settled.
    pub fn flush(&mut self) {
        self.flush = true;
    }

    pub fn is_flushing(&self) -> bool {
        self.flush
    }

    /// Whether the record would say something else if it were written now.
    pub fn has_moved(&self) -> bool {
        self.read > self.read_staged || self.controlled > self.controlled_staged
    }

    /// The position is in the commit that is being staged.
    pub fn staged(&mut self) {
        (self.read_staged, self.controlled_staged, self.flush) = (self.read, self.controlled, false);
    }
}
