//! Offsets of messages in frames: the sequence of the entry, and the place in it.

use sluicebox_core::message::Offset;

/// Bits of an offset that say the place in the frame. The rest counts more entries than any log will have (2^48), and until
/// 2^37 of them an offset is a number that JSON keeps whole.
const PLACE_BITS: u32 = 16;

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of the entry; the engine counts from 1.
    pub sequence: u64,
    pub index: u16,
}

impl Place {
    /// Most messages in one frame.
    pub const MESSAGES_MAX: usize = 1 << PLACE_BITS;

    /// Orders as places do.
    pub fn offset(self) -> Offset {
        Offset(self.sequence.saturating_mul(1 << PLACE_BITS) | u64::from(self.index))
    }

    /// The place that an offset names, or would.
    pub fn of(offset: Offset) -> Self {
        let index = u16::try_from(offset.0 & (Self::MESSAGES_MAX as u64 - 1)).unwrap_or(u16::MAX);
        Self { sequence: offset.0 >> PLACE_BITS, index }
    }

    /// The last place that an entry could have: every message up to this entry is at or before it.
    pub fn last_of(sequence: u64) -> Self {
        Self { sequence, index: u16::MAX }
    }
}
