//! Another key, id or number of shards for a handler that the log knows: what its shards have is moved along, whole or not
//! at all, while no host works on it.
//!
//! Nothing has to run for it. The shards are claimed, which fences whoever still works on them; from their records and the
//! messages in the log follows what each new shard has, and one write of the log puts that in the place of the old.
//!
//! What is moved:
//! - `read`: all new shards begin where the furthest old one was. What a slower one had not taken up becomes open.
//! - Open messages: to the shard of their lane. Under another key the lanes are others, so nothing may be open.
//! - Marks: they are hashes and name no shard. The messages that they are of are looked up in the log, and say where each
//!   belongs and, under another key or id, which it is now. Of a message that is no longer there every shard keeps the mark
//!   when key and id stay, within the handler's bound; else it is lost, and said.
//! - Dead letters to the shard of their message, delayed messages to any, operators' words to all.
//! - State is addressed by key, whatever the shard: it stays. Under another key it means nothing any more.

mod control;
mod letters;
mod marks;
mod old;
mod open;

use crate::commit::Record;
use crate::handler::HandlerName;
use crate::log::{Log, LogError, Rerouting, StateQuery};
use crate::message::Offset;
use crate::routing::reconcile::{Fixed, fixed};
use crate::routing::{IdFrom, KeyFrom, Routing};
use marks::Marks;
use old::Old;
use open::Open;

/// Keys with state that are counted before people are asked.
const STATE_KEYS_MAX: usize = 1000;

/// The routing that a handler is to have.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub handler: HandlerName,
    pub key: KeyFrom,
    pub id: IdFrom,
    pub shards: u16,
    /// Most marks that its shards remember together.
    pub marks_max: usize,
    /// State stays under the old keys, where handlers with the new key do not see it.
    pub keep_state: bool,
}

/// What is to be done, made from what the log has; nothing is done yet.
#[derive(Debug)]
pub struct Plan {
    rerouting: Rerouting,
    pub summary: Summary,
}

/// What moves, for people.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What is otherwise, as the log has it and as it is wanted.
    pub changes: Vec<Fixed>,
    pub shards: u16,
    /// Open heads, those of messages that a slower shard had not taken up included.
    pub open: usize,
    pub delayed: usize,
    pub letters: usize,
    /// Marks whose message was found in the log.
    pub marks: usize,
    /// Marks whose message is no longer there, and that every shard has now.
    pub marks_everywhere: usize,
    /// Marks whose message is no longer there, of which nobody can tell what they are now, or more than every shard can
    /// have: their ids are forgotten.
    pub marks_lost: usize,
    /// Keys with state that stay where nobody sees them; at least so many.
    pub state_keys: usize,
}

/// Why a handler is not rerouted. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RerouteError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the log does not know handler `{0}`: it begins with what the settings say when a host starts")]
    Unknown(HandlerName),
    #[error(
        "messages of handler `{handler}` are open or not taken up by every shard ({open}), and their order under another key \
         cannot be kept: set `key` back, let the host settle them (`sluicebox handlers waiting {handler}` lists them), stop \
         it and try again; only `shards` and `id` can be changed while messages are open"
    )]
    Open { handler: HandlerName, open: usize },
    #[error(
        "handler `{handler}` has state ({}), and under another key nobody knows whose it is: with --keep-state it stays under \
         the old keys, where only a handler with the old key finds it",
        of_keys(*.keys)
    )]
    State { handler: HandlerName, keys: usize },
    #[error(
        "handler `{handler}` has {open} open messages, more than {max} for {shards} shards: start a host with the settings as \
         they were, let it settle some, stop it and try again"
    )]
    TooMany { handler: HandlerName, open: usize, max: usize, shards: u16 },
    #[error(
        "a command to cancel a delayed message of handler `{0}` is not applied yet, and fewer shards number them anew: start a \
         host with the settings as they were, stop it and try again"
    )]
    Cancels(HandlerName),
}

/// How many keys have state, as far as they were counted.
pub fn of_keys(keys: usize) -> String {
    match keys {
        1 => "of 1 key".into(),
        STATE_KEYS_MAX.. => format!("of {keys} keys or more"),
        _ => format!("of {keys} keys"),
    }
}

/// Looks at everything that the handler has and says what becomes of it. `None`: the log has this routing already.
///
/// Claims every shard: whoever works on one is fenced and claims again, so no host should.
pub async fn plan(log: &dyn Log, wanted: &Wanted) -> Result<Option<Plan>, RerouteError> {
    let Wanted { handler, key, id, shards, .. } = wanted;
    let recorded = log.routings().await?;
    let found = recorded.routings.into_iter().find(|routing| routing.handler == *handler);
    let routing = found.ok_or_else(|| RerouteError::Unknown(handler.clone()))?;
    let changes = fixed(&routing, key, id, *shards);
    if changes.is_empty() {
        return Ok(None);
    }
    let to = Routing { key: key.clone(), id: id.clone(), shards: *shards, ..routing.clone() };
    let change = Change { from: routing, to };
    let state_keys = state(log, wanted, &change).await?;

    let mut old = Old::claim(log, &change.from).await?;
    let kept = letters::read(log, &change).await?;
    let (mut open, mut marks) = (Open::new(&old), Marks::new(&mut old));
    // One look at the log for both: it may be long.
    let after = open.needs_after().min(marks.needs_after(log).await?);
    old::scan(log, &change, (after, old.read()), |of_old, of_new| {
        open.see(&old, &change, of_old);
        if !kept.offsets.contains(&of_old.message.offset) {
            marks.see(&change, of_old, of_new);
        }
    })
    .await?;

    let count = open.count();
    if change.is_of_key() && count > 0 {
        return Err(RerouteError::Open { handler: handler.clone(), open: count });
    }
    let max = open::most(*shards);
    if count > max {
        return Err(RerouteError::TooMany { handler: handler.clone(), open: count, max, shards: *shards });
    }
    let mut records: Vec<Record> = (0..*shards).map(|_| Record { read: old.read(), ..Record::default() }).collect();
    control::fill(log, &change, &old, &mut records).await?;
    let delayed = control::fill_delayed(&old, &mut records);
    open.fill(log, &change, &mut records).await?;
    let (found, everywhere, lost) = marks.fill(&change, wanted.marks_max, &mut records);
    let summary = Summary {
        changes,
        shards: *shards,
        open: count,
        delayed,
        letters: kept.moved.len(),
        marks: found,
        marks_everywhere: everywhere,
        marks_lost: lost,
        state_keys,
    };
    let Change { to: routing, .. } = change;
    let rerouting = Rerouting { version: recorded.version, routing, from: old.from(), records, letters: kept.moved };
    Ok(Some(Plan { rerouting, summary }))
}

impl Plan {
    /// Does it: all of it is durable when this returns, or nothing is. Refused when anything moved since it was made.
    pub async fn execute(self, log: &dyn Log) -> Result<(), LogError> {
        log.reroute(self.rerouting).await
    }
}

/// From what, to what.
#[derive(Debug)]
struct Change {
    from: Routing,
    to: Routing,
}

impl Change {
    fn is_of_key(&self) -> bool {
        self.from.key != self.to.key
    }

    /// A message has the same mark before and after.
    fn keeps_marks(&self) -> bool {
        !self.is_of_key() && self.from.id == self.to.id
    }
}

/// Keys with state that a changed key leaves behind.
async fn state(log: &dyn Log, wanted: &Wanted, change: &Change) -> Result<usize, RerouteError> {
    if !change.is_of_key() {
        return Ok(0);
    }
    let handler = wanted.handler.clone();
    let query = StateQuery { handler: handler.clone(), prefix: String::new(), after: None, keys_max: STATE_KEYS_MAX };
    match log.state_keys(query).await?.len() {
        keys if keys > 0 && !wanted.keep_state => Err(RerouteError::State { handler, keys }),
        keys => Ok(keys),
    }
}

/// The lowest offset that reading after it yields everything from `offset` on.
fn before(offset: Offset) -> Offset {
    Offset(offset.0.saturating_sub(1))
}
