//! Looks again and again whether the entries are those that this host knows: whether somebody removed or purged them, or put
//! older ones in their place, and whether entries are there that do not come.

use super::engine::Engine;
use super::shared::Shared;
use crate::error::LogError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// So often in a row the log may end before what was applied: a server that just became the leader has yet to catch up.
const BEHIND_MAX: u32 = 10;

/// Looks until the log ends.
pub(super) async fn watch<E: Engine>(shared: Arc<Shared<E>>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        looks.tick().await;
        if let Err(LogError::Refused { reason }) = seen.look(&shared).await {
            return shared.fail(reason);
        }
    }
}

#[derive(Default)]
struct Seen {
    /// What was applied when entries after it were there.
    waits_at: Option<u64>,
    behind: u32,
}

impl Seen {
    async fn look<E: Engine>(&mut self, shared: &Shared<E>) -> Result<(), LogError> {
        let before = shared.replica().applied;
        let ends = shared.engine.ends().await?;
        shared.engine.values_end().await?;
        shared.room.look(&shared.engine).await?;
        self.behind = if ends.1 < before { self.behind + 1 } else { 0 };
        if self.behind > BEHIND_MAX {
            return Err(older(ends.1, before));
        }
        intact(shared, ends)?;
        let applied = shared.replica().applied;
        let waits_at = (ends.1 > applied).then_some(applied);
        if waits_at.is_some() && waits_at == self.waits_at {
            // Whoever should send them is gone, and nobody says so.
            shared.stalled.notify_one();
        }
        self.waits_at = waits_at;
        Ok(())
    }
}

/// An error if entries are gone that nobody let go. Only known once all that is there was applied.
pub(super) fn intact<E: Engine>(shared: &Shared<E>, (first, last): (u64, u64)) -> Result<(), LogError> {
    let (applied, kept_from) = {
        let replica = shared.replica();
        (replica.applied, replica.sequence_of(replica.trimmed).max(1))
    };
    if applied < last || first <= kept_from {
        return Ok(());
    }
    Err(purged(kept_from, first))
}

/// Entries from `kept_from` on were there, and the first is another one.
pub(super) fn purged(kept_from: u64, first: u64) -> LogError {
    LogError::Refused {
        reason: format!(
            "entries {kept_from} to {} of the log were purged, and not by a host: restore all of it as it was at one time, or \
             begin anew without any of it",
            first.saturating_sub(1)
        ),
    }
}

/// The log ends before what is known of it.
pub(super) fn older(last: u64, known: u64) -> LogError {
    LogError::Refused {
        reason: format!(
            "the log ends at entry {last}, and entry {known} was there: it was put back as it was before; restore all of it \
             as it was at one time, and start all hosts again"
        ),
    }
}
