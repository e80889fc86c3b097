//! What is remembered of one user's alarms: which are active, how old their status is, which the user was not told of.
//!
//! Changes come late, twice and in any order; the time in a change decides, not its arrival. A cleared alarm is
//! remembered too, so that an older change that comes late does not raise it again.
//!
//! **Bounds.** A user has at most [`ACTIVE_MAX`] active alarms; one more is refused and says so, and what is known is
//! untouched. Of the cleared ones the newest [`CLEARED_MAX`] are remembered. When one is forgotten, the time of its
//! clearing is kept: a change of an unknown alarm that is older may be a late one of a forgotten alarm, or the first of a
//! new alarm. To take it might raise what is over, to drop it might lose an alarm, so it is refused, for a person to see.

use crate::event::{ALARM_ID_BYTES_MAX, Change, Status};
use crate::instant::Instant;
use serde::{Deserialize, Serialize};
use sluicebox_sdk::limits::{BODY_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::collections::BTreeMap;
use std::fmt;

/// Most active alarms of a user: a digest of all of them is one message.
pub const ACTIVE_MAX: usize = 1000;
/// Most cleared alarms that are remembered of a user.
pub const CLEARED_MAX: usize = 256;

/// Bytes of an alarm in state or digest beside its id: names, quotes, status and 30 characters of time.
const ALARM_BYTES_MAX: usize = 100;
const ITEM_BYTES_MAX: usize = ALARM_ID_BYTES_MAX + ALARM_BYTES_MAX;
// What is taken can always be stored and sent. The user's name is bounded as a key, and grows sixfold where all of it is escaped.
const _: () = assert!((ACTIVE_MAX + CLEARED_MAX) * ITEM_BYTES_MAX + ALARM_BYTES_MAX <= VALUE_BYTES_MAX);
const _: () = assert!(ACTIVE_MAX * ITEM_BYTES_MAX + 6 * KEY_BYTES_MAX + ALARM_BYTES_MAX <= BODY_BYTES_MAX);

/// The alarms of one user, by id.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Alarms {
    alarms: BTreeMap<String, Alarm>,
    /// When the newest forgotten alarm was cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forgotten: Option<Instant>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Alarm {
    status: Status,
    changed_at: Instant,
    /// It is active and the user was not told of this status.
    unsent: bool,
}

/// An alarm in a digest.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ActiveAlarm {
    #[serde(rename = "AlarmID")]
    pub alarm: String,
    pub status: Status,
    pub latest_changed_at: Instant,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    /// A newer one is known; nothing changed.
    Late,
}

/// Why a change can neither be taken nor dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    Unknown { forgotten: Instant },
}

impl Alarms {
    /// Takes a change unless a newer one is known; one of the same time is taken.
    pub fn take(&mut self, change: &Change<'_>) -> Result<Taken, Refused> {
        let &Change { alarm, status, changed_at, .. } = change;
        let known = self.alarms.get(alarm);
        if known.is_some_and(|known| changed_at < known.changed_at) {
            return Ok(Taken::Late);
        }
        if let (None, Some(forgotten)) = (known, self.forgotten.filter(|forgotten| changed_at < *forgotten)) {
            // Whatever it was, it is cleared now, and would be forgotten at once.
            return if status.is_active() { Err(Refused::Unknown { forgotten }) } else { Ok(Taken::Late) };
        }
        let was_active = known.is_some_and(|known| known.status.is_active());
        if status.is_active() && !was_active && self.count(Status::is_active) >= ACTIVE_MAX {
            return Err(Refused::Full);
        }
        let unsent = match known {
            Some(known) if known.status == status => known.unsent,
            _ => status.is_active(),
        };
        self.alarms.insert(alarm.to_owned(), Alarm { status, changed_at, unsent });
        self.forget();
        Ok(Taken::Yes)
    }

    /// What the user was not told of, oldest change first; it counts as told from now on.
    pub fn digest(&mut self) -> Vec<ActiveAlarm> {
        let mut digest: Vec<ActiveAlarm> = vec![];
        for (id, alarm) in self.alarms.iter_mut().filter(|(_, alarm)| alarm.unsent) {
            alarm.unsent = false;
            let (status, latest_changed_at) = (alarm.status, alarm.changed_at);
            digest.push(ActiveAlarm { alarm: id.clone(), status, latest_changed_at });
        }
        // A stable sort: alarms of the same time are in the order of their ids.
        digest.sort_by_key(|alarm| alarm.latest_changed_at);
        digest
    }

    /// Forgets the oldest cleared alarms beyond the bound.
    fn forget(&mut self) {
        for _ in CLEARED_MAX..self.count(|status| !status.is_active()) {
            let cleared = self.alarms.iter().filter(|(_, alarm)| !alarm.status.is_active());
            let Some((id, changed_at)) = cleared.map(|(id, alarm)| (id, alarm.changed_at)).min_by_key(|(_, at)| *at)
            else {
                return;
            };
            let id = id.clone();
            self.alarms.remove(&id);
            self.forgotten = self.forgotten.max(Some(changed_at));
        }
    }

    fn count(&self, which: impl Fn(Status) -> bool) -> usize {
        self.alarms.values().filter(|alarm| which(alarm.status)).count()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(
                f,
                "`AlarmID` would be one active alarm of `UserID` too many, at most {ACTIVE_MAX} are kept: \
                 clear some and send it again"
            ),
            Self::Unknown { forgotten } => write!(
                f,
                "`ChangedAt` is before {forgotten} and `AlarmID` is not known: it may be a late change of an alarm that \
                 was cleared and forgotten, of which {CLEARED_MAX} are remembered; send the alarm's present status"
            ),
        }
    }
}
