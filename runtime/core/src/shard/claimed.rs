//! What a record may say of waiting when it is claimed.

use super::{Caution, Setup, Shard, open};
use crate::clock::Timestamp;
use crate::commit::{Claim, Record};
use crate::effects::DELAY_MAX;
use crate::handler::Policy;
use crate::message::Offset;
use crate::pipeline::backoff::ASKED_MAX;
use hashbrown::HashSet;

/// The waits of a record that were shortened.
#[derive(Debug, Default)]
struct Shortened {
    heads: HashSet<Offset>,
    /// By number.
    delayed: Vec<u64>,
}

impl Shard {
    /// A shard that goes on from its record at `now`; says how many of its waits are shorter than the record had them.
    ///
    /// Nothing waits longer from now on than `retry`, or the longest delay, can have given: it was written under a clock
    /// that was wrong, and its key would be blocked until then. The next commit says so: the record as it is would put it
    /// off again at each claim.
    pub fn claimed(setup: Setup, mut claim: Claim, caution: Caution, now: Timestamp) -> (Self, usize) {
        let written = open::Open::new(&claim.record.open);
        let Shortened { heads, delayed } = shorten(&mut claim.record, &setup.policy, now);
        let mut shard = Self::new(setup, claim, caution);
        let shortened = heads.len() + delayed.len();
        if !heads.is_empty() {
            shard.open = written;
            shard.write_again(&heads);
        }
        shard.delayed.write_again(delayed);
        (shard, shortened)
    }

    /// The commit to come has these heads as they are now.
    fn write_again(&mut self, heads: &HashSet<Offset>) {
        let has_one = |lane: &super::lanes::Lane| lane.recorded.is_some_and(|offset| heads.contains(&offset));
        let lanes: Vec<usize> = self.lanes.iter().filter(|(_, lane)| has_one(lane)).map(|(at, _)| at).collect();
        lanes.into_iter().for_each(|at| self.lanes.touch(at));
        for offset in heads {
            let head = self.skipped.head(*offset);
            head.into_iter().for_each(|head| self.open.put(head));
        }
        self.position.flush();
    }
}

fn shorten(record: &mut Record, policy: &Policy, now: Timestamp) -> Shortened {
    let retry_until = now.after(policy.retry.max.max(ASKED_MAX));
    let delayed_until = now.after(DELAY_MAX);
    let mut shortened = Shortened::default();
    for head in record.open.iter_mut().filter(|head| head.due > retry_until) {
        head.due = retry_until;
        shortened.heads.insert(head.offset);
    }
    for delayed in record.delayed.iter_mut().filter(|delayed| delayed.due > delayed_until) {
        delayed.due = delayed_until;
        shortened.delayed.push(delayed.number);
    }
    shortened
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
        let head = |due: Timestamp| Head {
            offset: Offset(due.0),
            key: None,
            attempt: 1,
            due,
            error: "".into(),
            digest: None,
            scope: HeadScope::Lane,
        };
        let message = NewMessage::new(Topic::parse("a").unwrap(), "");
        let delayed = |number, due| Delayed { number, due, message: message.clone() };
        let near = now.after(Duration::from_secs(3600));
        let mut record = Record {
            open: vec![head(Timestamp(0)), head(near), head(now.after(year))],
            delayed: vec![delayed(1, near), delayed(2, now.after(year))],
            ..Record::default()
        };
        let shortened = shorten(&mut record, &Policy::default(), now);
        assert_eq!((shortened.heads.len(), shortened.delayed), (1, vec![2]));
        let dues: Vec<_> = record.open.iter().map(|head| head.due).collect();
        assert_eq!(dues, [Timestamp(0), near, now.after(ASKED_MAX)]);
        let dues: Vec<_> = record.delayed.iter().map(|delayed| delayed.due).collect();
        assert_eq!(dues, [near, now.after(DELAY_MAX)]);
        let again = shorten(&mut record, &Policy::default(), now);
        assert_eq!((again.heads.len(), again.delayed.len()), (0, 0));
    }
}
