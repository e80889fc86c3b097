//! What the shards have as they are, and the messages that it is of.

use super::Change;
use crate::commit::{Record, Term};
use crate::handler::ShardId;
use crate::log::{Log, LogError, ReadRequest};
use crate::message::Offset;
use crate::routing::{Routed, Router, Routing};

/// One read of a scan.
const READ_MESSAGES_MAX: usize = 4096;
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The records of all shards, claimed.
pub(super) struct Old {
    terms: Vec<Term>,
    pub(super) records: Vec<Record>,
}

impl Old {
    pub(super) async fn claim(log: &dyn Log, routing: &Routing) -> Result<Self, LogError> {
        let (mut terms, mut records) = (vec![], vec![]);
        for index in 0..routing.shards {
            let shard = ShardId { handler: routing.handler.clone(), index };
            let claim = log.claim(shard, routing.start()).await?;
            terms.push(claim.term);
            records.push(claim.record);
        }
        Ok(Self { terms, records })
    }

    /// The terms and commit numbers that everything is made from.
    pub(super) fn from(&self) -> Vec<(Term, u64)> {
        self.terms.iter().copied().zip(self.records.iter().map(|record| record.commit_number)).collect()
    }

    /// How far the furthest shard is: what it settled must not be taken up again.
    pub(super) fn read(&self) -> Offset {
        self.records.iter().map(|record| record.read).max().unwrap_or(Offset::START)
    }

    /// How far the slowest shard is.
    pub(super) fn slowest(&self) -> Offset {
        self.records.iter().map(|record| record.read).min().unwrap_or(Offset::START)
    }

    /// Up to here every shard applied every command.
    pub(super) fn controlled(&self) -> Offset {
        self.records.iter().map(|record| record.controlled).min().unwrap_or(Offset::START)
    }

    /// Whether the shard of this message, as it is routed now, took it up.
    pub(super) fn took_up(&self, routed: &Routed) -> bool {
        let shard = routed.shard(u16::try_from(self.records.len()).unwrap_or(u16::MAX));
        self.records.get(usize::from(shard)).is_some_and(|record| routed.message.offset <= record.read)
    }
}

/// Calls `each` with the handler's messages with `after < offset <= upto`, in order: as they are routed and as they will be.
pub(super) async fn scan(
    log: &dyn Log,
    change: &Change,
    (mut after, upto): (Offset, Offset),
    mut each: impl FnMut(&Routed, &Routed),
) -> Result<(), LogError> {
    let Change { from, to } = change;
    let router = Router::new([from, to]);
    while after < upto {
        let patterns = from.patterns_after(after);
        if patterns.is_empty() {
            return Ok(());
        }
        let (messages_max, bytes_max) = (READ_MESSAGES_MAX, READ_BYTES_MAX);
        let batch = log.read(ReadRequest { after, upto, patterns, messages_max, bytes_max }).await?;
        for message in batch.messages.iter().filter(|message| from.subscribes(message)) {
            let mut routes = router.message(message);
            each(&routes.to(0), &routes.to(1));
        }
        after = batch.upto.max(after);
    }
    Ok(())
}
