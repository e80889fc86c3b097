//! What hosts of different versions on one log can all read, while they are updated one after the other.

use crate::log::Member;
use std::time::{Duration, Instant};

/// Rises with each change after which this version writes what an earlier one cannot read.
pub const FEATURES: u32 = 1;

/// The lowest number of the hosts that live, this one included: nothing that came with a higher one may be written.
/// A host that was silent for a lease and comes back may have a lower one, so what it cannot read it must refuse to misread:
/// formats have versions of their own.
pub fn in_force(members: &[Member], lease: Duration, now: Instant) -> u32 {
    let lives = |member: &&Member| now.saturating_duration_since(member.heard) < lease;
    members.iter().filter(lives).map(|member| member.beat.features).fold(FEATURES, u32::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, Timestamp};
    use crate::log::{Heartbeat, HostId};
    use std::sync::Arc;

    #[test]
    fn the_lowest_number_of_the_living_is_in_force() {
        let (now, lease) = (clock::instant(), Duration::from_secs(5));
        let member = |features, silent| {
            let beat = Heartbeat {
                host: HostId(u64::from(features)),
                name: String::new(),
                address: String::new(),
                version: String::new(),
                features,
                started: Timestamp(0),
                runs: vec![],
                joining: false,
                leaving: false,
                sequence: 1,
            };
            Member { beat: Arc::new(beat), heard: now - Duration::from_secs(silent) }
        };
        let check = |members: &[Member], expected| assert_eq!(in_force(members, lease, now), expected);
        check(&[], FEATURES);
        check(&[member(FEATURES, 0), member(FEATURES + 1, 0)], FEATURES);
        check(&[member(FEATURES, 0), member(FEATURES - 1, 4)], FEATURES - 1);
        check(&[member(FEATURES, 0), member(FEATURES - 1, 5)], FEATURES);
    }
}
