//! What may happen many times a second and is worth a line: the first at once, then once a minute how many there were.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const BETWEEN_LINES: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Occasions(Mutex<Since>);

#[derive(Debug, Default)]
struct Since {
    last_line: Option<Instant>,
    count: u64,
}

impl Occasions {
    /// One more. How many there were since the last line, if it is time for another.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.count += 1;
        if since.last_line.is_some_and(|last| now < last + BETWEEN_LINES) {
            return None;
        }
        since.last_line = Some(now);
        Some(std::mem::take(&mut since.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_first_is_said_at_once_and_later_ones_are_counted() {
        let (occasions, now) = (Occasions::default(), clock::instant());
        assert_eq!(occasions.note(now), Some(1));
        assert_eq!([occasions.note(now), occasions.note(now)], [None, None]);
        assert_eq!(occasions.note(now + BETWEEN_LINES), Some(3));
    }
}
