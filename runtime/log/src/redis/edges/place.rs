//! A place in the stream that plain clients add to: the id of an entry, and how many there were up to it.

use crate::edges::Position;
use crate::error::LogError;

/// Of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) ms: u64,
    pub(super) number: u64,
}

impl Id {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// A place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) id: Id,
    /// Of the entries that were ever added, about so many are up to here.
    pub(super) added: u64,
}

impl At {
    pub(super) fn begin() -> Self {
        Self { id: Id { ms: 0, number: 0 }, added: 0 }
    }

    pub(super) fn parse(position: &Position) -> Result<Self, LogError> {
        let parsed = position
            .0
            .split_once(' ')
            .and_then(|(id, added)| Some(Self { id: Id::parse(id)?, added: added.parse().ok()? }));
        parsed.ok_or_else(|| LogError::Refused { reason: format!("`{}` is no place in a stream", position.0) })
    }

    pub(super) fn position(self) -> Position {
        Position(format!("{} {}", self.id, self.added))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_and_other_text_is_none() {
        let at = At { id: Id { ms: 17, number: 3 }, added: 9 };
        assert_eq!(At::parse(&at.position()).unwrap(), at);
        for text in ["", "17-3", "17 9", "a-1 2", "1-1 x"] {
            assert!(At::parse(&Position(text.into())).is_err(), "{text}");
        }
        assert!(Id { ms: 9, number: 99 } < Id { ms: 10, number: 0 });
    }
}
