//! What a record may say of waiting when it is claimed.

use crate::clock::Timestamp;
use crate::commit::Record;
use crate::effects::DELAY_MAX;
use crate::handler::Policy;
use crate::pipeline::backoff::ASKED_MAX;

/// Nothing in a record waits longer from now on than `retry`, or the longest delay, can have given: it was written under a
/// clock that was wrong, and its key would be blocked until then. Returns how many waits that shortened.
pub fn shorten_waits(record: &mut Record, policy: &Policy, now: Timestamp) -> usize {
    let retry_until = now.after(policy.retry.max.max(ASKED_MAX));
    let delayed_until = now.after(DELAY_MAX);
    let heads = record.open.iter_mut().map(|head| (&mut head.due, retry_until));
    let delayed = record.delayed.iter_mut().map(|delayed| (&mut delayed.due, delayed_until));
    let too_late = heads.chain(delayed).filter(|(due, until)| **due > *until);
    too_late.map(|(due, until)| *due = until).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Delayed, Head, HeadScope};
    use crate::message::{NewMessage, Offset};
    use crate::topic::Topic;
    use std::time::Duration;

    #[test]
    fn no_wait_is_longer_than_it_can_have_been() {
        let (now, year) = (Timestamp(1_800_000_000_000), Duration::from_secs(365 * 24 * 3600));
        let head = |due| Head {
            offset: Offset(1),
            key: None,
            attempt: 1,
            due,
            error: "".into(),
            digest: None,
            scope: HeadScope::Lane,
        };
        let message = NewMessage::new(Topic::parse("a").unwrap(), "");
        let delayed = |due| Delayed { number: 1, due, message: message.clone() };
        let near = now.after(Duration::from_secs(3600));
        let mut record = Record {
            open: vec![head(Timestamp(0)), head(near), head(now.after(year))],
            delayed: vec![delayed(near), delayed(now.after(year))],
            ..Record::default()
        };
        assert_eq!(shorten_waits(&mut record, &Policy::default(), now), 2);
        let dues: Vec<_> = record.open.iter().map(|head| head.due).collect();
        assert_eq!(dues, [Timestamp(0), near, now.after(ASKED_MAX)]);
        let dues: Vec<_> = record.delayed.iter().map(|delayed| delayed.due).collect();
        assert_eq!(dues, [near, now.after(DELAY_MAX)]);
        assert_eq!(shorten_waits(&mut record, &Policy::default(), now), 0);
    }
}
