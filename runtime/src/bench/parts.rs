//! The parts of a message's way, each alone: the sandbox call, the plain commit of the same rows, one synced write.

use super::{Identity, OUTPUT, message};
use crate::clock::{self, Timestamp};
use crate::commit::{Claim, KeyWrites, Mark, ShardCommit};
use crate::effects::StateWrite;
use crate::handler::{HandlerName, ShardId};
use crate::invoke::{Call, DelayedRoom, Invoke};
use crate::log::Log;
use crate::message::{IdHash, Key, Message, NewMessage, Offset};
use crate::sandbox::Mode;
use crate::sandbox::bare::Bare;
use crate::topic::Topic;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;

/// The `number`-th message of a benchmark, with its key and id.
fn given(number: usize, keys: usize) -> NewMessage {
    message(number, keys, Identity::Given)
}

/// Medians of one call.
pub(super) struct Calls {
    pub(super) alone: Duration,
    /// Of the same component with imports that do nothing.
    pub(super) bare: Duration,
    /// While every core makes calls: they share caches, memory and, where they are threads of one physical core, the
    /// units that compute.
    pub(super) crowded: Duration,
}

const CALLS: usize = 2_000;

/// Measures calls in turns, so that all are of the same moments of the machine.
pub(super) async fn calls(
    invoke: &Arc<dyn Invoke>,
    bare: &Bare,
    mode: Mode,
    rounds: usize,
    keys: usize,
) -> anyhow::Result<Calls> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut alone, mut bares, mut crowded) = (vec![], vec![], vec![]);
    let mut kept = bare.start().await?;
    for _ in 0..rounds {
        let calls: Vec<Call> = (0..CALLS).map(|number| one_call(number, keys)).collect();
        let started = clock::instant();
        for call in &calls {
            match mode {
                Mode::Fresh => bare.start().await?.call(call).await?,
                Mode::Warm => kept.call(call).await?,
            }
        }
        bares.push(started.elapsed() / CALLS as u32);
        alone.push(call_all(invoke.clone(), calls).await?);
        let begin = Arc::new(Barrier::new(cores));
        let tasks = (0..cores).map(|_| {
            let (invoke, begin) = (invoke.clone(), begin.clone());
            tokio::spawn(async move {
                let calls = (0..CALLS).map(|number| one_call(number, keys)).collect();
                begin.wait().await;
                call_all(invoke, calls).await
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            crowded.push(task.await??);
        }
    }
    Ok(Calls { alone: median(alone), bare: median(bares), crowded: median(crowded) })
}

/// The median of one call, with nothing else going on.
pub async fn call_alone(invoke: &Arc<dyn Invoke>, rounds: usize, keys: usize) -> anyhow::Result<Duration> {
    let mut took = vec![];
    for _ in 0..rounds {
        took.push(call_all(invoke.clone(), (0..CALLS).map(|number| one_call(number, keys)).collect()).await?);
    }
    Ok(median(took))
}

/// How long each took.
async fn call_all(invoke: Arc<dyn Invoke>, calls: Vec<Call>) -> anyhow::Result<Duration> {
    let (started, count) = (clock::instant(), calls.len().max(1) as u32);
    for call in calls {
        invoke.call(call).await?;
    }
    Ok(started.elapsed() / count)
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

fn one_call(number: usize, keys: usize) -> Call {
    let new = given(number, keys);
    let key = new.key.clone();
    let message = Arc::new(Message::from_new(new, Offset(1), Timestamp(0)));
    Call { message, key, attempt: 1, state: Default::default(), delayed_room: DelayedRoom::ANY }
}

/// Commits what the handler's runs would commit, without reader, shards or sandbox: how long one message takes.
pub(super) async fn plain_commit(
    log: Arc<dyn Log>,
    messages: usize,
    keys: usize,
    batch: usize,
) -> anyhow::Result<Duration> {
    let shard = ShardId { handler: HandlerName::parse("bench")?, index: 0 };
    let claim = log.claim(shard.clone(), Offset::START).await?;
    let output = Topic::parse(OUTPUT)?;
    let started = clock::instant();
    for (number, first) in (claim.record.commit_number + 1..).zip((0..messages).step_by(batch)) {
        let inputs = (first..messages.min(first + batch)).map(|at| given(at, keys)).collect();
        log.commit(commit(&shard, &claim, number, &output, inputs)).await?;
    }
    Ok(started.elapsed() / messages.max(1) as u32)
}

/// The medians of one append of one message, and of one commit of what its run would write: what a message that comes alone
/// waits for at least.
pub(super) async fn two_synced_writes(log: Arc<dyn Log>, messages: usize, keys: usize) -> anyhow::Result<Duration> {
    let shard = ShardId { handler: HandlerName::parse("bench")?, index: 0 };
    let claim = log.claim(shard.clone(), Offset::START).await?;
    let output = Topic::parse(OUTPUT)?;
    let (mut appends, mut commits) = (vec![], vec![]);
    for (number, at) in (claim.record.commit_number + 1..).zip(0..messages) {
        let started = clock::instant();
        log.append(vec![given(at, keys)]).await?;
        appends.push(started.elapsed());
        let started = clock::instant();
        log.commit(commit(&shard, &claim, number, &output, vec![given(at, keys)])).await?;
        commits.push(started.elapsed());
    }
    Ok(median(appends) + median(commits))
}

/// What the runs of these messages would commit: a mark, an output and a write of state for each.
fn commit(shard: &ShardId, claim: &Claim, number: u64, output: &Topic, inputs: Vec<NewMessage>) -> ShardCommit {
    let mark = |id: &Arc<str>| Mark { id: IdHash::of(None, id), time: Timestamp(0) };
    ShardCommit {
        shard: shard.clone(),
        term: claim.term,
        number,
        read: Offset(claim.record.read.0 + number * 1_000_000),
        open_put: vec![],
        open_drop: vec![],
        marks: inputs.iter().filter_map(|input| input.id.as_ref()).map(mark).collect(),
        marks_since: Timestamp(0),
        marks_max: 1_000_000,
        state: last_writes(&inputs),
        outputs: inputs.into_iter().map(|input| NewMessage { topic: output.clone(), ..input }).collect(),
        delayed_put: vec![],
        delayed_drop: vec![],
        dead: vec![],
        dead_window: Duration::from_secs(60),
        dead_max: u64::MAX,
        dead_drop: vec![],
        controlled: claim.record.controlled,
        control: None,
    }
}

/// One write per key, as a shard stages them.
fn last_writes(inputs: &[NewMessage]) -> Vec<KeyWrites> {
    let mut by_key: BTreeMap<&Key, StateWrite> = BTreeMap::new();
    for input in inputs {
        if let Some(key) = &input.key {
            by_key.insert(key, StateWrite { entry: "account".into(), value: Some(input.body.slice(..40)) });
        }
    }
    by_key.into_iter().map(|(key, write)| KeyWrites { key: key.clone(), writes: vec![write] }).collect()
}
