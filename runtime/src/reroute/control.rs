//! What operators asked for, and what runs delayed: the handler's, not a key's.

use super::old::Old;
use super::{Change, RerouteError};
use crate::commit::{Control, Delayed, Record};
use crate::control::Command;
use crate::log::{Log, LogError, ReadRequest};
use crate::message::{Message, Offset};
use crate::routing::reserved;
use crate::topic::Pattern;
use std::sync::Arc;

/// Commands read at a time, and bytes of them.
const COMMANDS_MAX: usize = 64;
const COMMANDS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// All new shards go on where the slowest old one was: a command that another applied already changes nothing when it is
/// applied again.
pub(super) async fn fill(
    log: &dyn Log,
    change: &Change,
    old: &Old,
    records: &mut [Record],
) -> Result<(), RerouteError> {
    let controlled = old.controlled();
    if change.to.shards < change.from.shards {
        let pending = commands(log, change, controlled).await?;
        // It names a delayed message by shard and number, and those of shards that go get other ones.
        let cancels = |message: &Arc<Message>| matches!(Command::read(message), Ok(Command::CancelDelayed { .. }));
        if pending.iter().any(cancels) {
            return Err(RerouteError::Cancels(change.from.handler.clone()));
        }
    }
    let Some(slowest) = old.records.iter().find(|record| record.controlled == controlled) else { return Ok(()) };
    let mut all = Control { paused_keys: Default::default(), jobs: vec![], ..slowest.control.clone() };
    let controls = || old.records.iter().map(|record| &record.control);
    for job in controls().flat_map(|control| &control.jobs) {
        // A later one is read again. One that names a shard means letters that are elsewhere now: it ends here.
        if job.filter.shard.is_none()
            && job.command <= controlled.0
            && !all.jobs.iter().any(|known| known.command == job.command)
        {
            all.jobs.push(job.clone());
        }
    }
    all.jobs.sort_by_key(|job| job.command);
    for (index, record) in (0_u16..).zip(records) {
        let owned = |key: &&_| change.to.shard_of(key) == index;
        let paused_keys = controls().flat_map(|control| &control.paused_keys).filter(owned).cloned().collect();
        (record.controlled, record.control) = (controlled, Control { paused_keys, ..all.clone() });
    }
    Ok(())
}

async fn commands(log: &dyn Log, change: &Change, mut after: Offset) -> Result<Vec<Arc<Message>>, LogError> {
    let upto = log.end().await?;
    let mut found = vec![];
    while after < upto {
        let patterns = vec![Pattern::from(&reserved::control_topic(&change.from.handler))];
        let (messages_max, bytes_max) = (COMMANDS_MAX, COMMANDS_BYTES_MAX);
        let batch = log.read(ReadRequest { after, upto, patterns, messages_max, bytes_max }).await?;
        found.extend(batch.messages);
        after = batch.upto.max(after);
    }
    Ok(found)
}

/// They stay where they are, under their numbers; those of shards that go are numbered after the ones that are there.
/// Returns how many there are.
pub(super) fn fill_delayed(old: &Old, records: &mut [Record]) -> usize {
    let kept = records.len().max(1);
    for (index, record) in old.records.iter().enumerate() {
        let Some(to) = records.get_mut(index % kept) else { continue };
        let last = to.delayed.iter().map(|delayed| delayed.number).max().unwrap_or(0);
        let numbers = (last + 1..).zip(&record.delayed);
        to.delayed.extend(numbers.map(|(number, delayed)| match index < kept {
            true => delayed.clone(),
            false => Delayed { number, ..delayed.clone() },
        }));
    }
    old.records.iter().map(|record| record.delayed.len()).sum()
}
