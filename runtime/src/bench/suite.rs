//! The measurements that `sluicebox bench` and `cargo bench --bench end_to_end` print, each against the plain SQLite
//! commit of the same rows in the same run: absolute numbers are this machine's, ratios travel.

use super::{Load, OUTPUT, latencies, machine, message, run};
use crate::clock::{self, Timestamp};
use crate::commit::{KeyWrites, Mark, ShardCommit};
use crate::effects::{Effects, StateWrite};
use crate::handler::{Digest, HandlerName, ShardId};
use crate::invoke::{Call, Failure, Invoke};
use crate::log::Log;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::message::{IdHash, Key, Message, NewMessage, Offset};
use crate::sandbox::{Mode, Pool, Sandboxes, Settings, tracing_sink};
use crate::topic::{Pattern, Topic};
use anyhow::Context as _;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What to measure, and on what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The compiled `order` handler.
    pub module: PathBuf,
    /// Where the logs are made; each is deleted when the next one is.
    pub folder: PathBuf,
    /// Messages per throughput measurement.
    pub messages: usize,
}

const KEYS: usize = 10_000;
const LATENCY_MESSAGES: usize = 2_000;
const WAIT: Duration = Duration::from_millis(10);

/// Measures everything and hands out one line at a time.
pub async fn measure(plan: &Plan, mut print: impl FnMut(String)) -> anyhow::Result<()> {
    let module = std::fs::read(&plan.module).with_context(|| {
        format!("failed to read `{}`: build it with `sluicebox build handlers`", plan.module.display())
    })?;
    let sandboxes = Sandboxes::new(&Pool::default(), tracing_sink())?;
    let module = sandboxes.load(&module)?;
    print(format!("machine: {}", machine()));
    print(format!("sandboxes: {}", sandboxes.describe()));
    print(format!(
        "log: embedded, WAL, synchronous=FULL (fsync per commit); {} messages of 100 bytes, {KEYS} keys",
        plan.messages
    ));
    let handler = |mode| -> anyhow::Result<Arc<dyn Invoke>> {
        let name = HandlerName::parse("bench")?;
        let settings = Settings { publish: vec![Pattern::parse("orders.*")?], mode, ..Settings::new(name) };
        Ok(Arc::new(sandboxes.handler(&module, settings)?))
    };
    let modes = [("fresh", handler(Mode::Fresh)?), ("warm", handler(Mode::Warm)?)];
    for (name, invoke) in &modes {
        let micros = call_cost(invoke.as_ref()).await?.as_secs_f64() * 1e6;
        print(format!("sandbox call, {name}: {micros:.1} µs"));
    }
    let mut limit: f64 = 0.0;
    for batch in [256, 1024] {
        let rate = plain_commits(plan.empty_log()?, plan.messages, batch).await?;
        limit = limit.max(rate);
        print(format!("plain commit of the same rows, {batch} a commit: {rate:.0} messages/s"));
    }
    for publishing in [false, true] {
        for shards in [1, 8] {
            for (name, invoke) in &modes {
                let load = Load { shards, publishing, ..plan.load(invoke) };
                let rate = plan.messages as f64 / run(plan.empty_log()?, &load).await?.as_secs_f64();
                let how = if publishing { "publishing in the time" } else { "log filled before" };
                let ratio = rate / limit;
                print(format!("{how}, {shards} shard(s), {name}: {rate:.0} messages/s, {ratio:.2} × the plain commit"));
            }
        }
    }
    for (name, invoke) in &modes {
        let load = Load { messages: LATENCY_MESSAGES, ..plan.load(invoke) };
        let took = latencies(plan.empty_log()?, &load).await?;
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
        print(format!(
            "one at a time, {name}: publish to visible output p50 {p50:.2} ms, p99 {p99:.2} ms, longest {longest:.2} ms"
        ));
    }
    let waiting: Arc<dyn Invoke> = Arc::new(Waiting(modes[1].1.clone()));
    let load = Load { messages: plan.messages.min(200_000), keys: 1_000, concurrency: 1_000, ..plan.load(&waiting) };
    let rate = load.messages as f64 / run(plan.empty_log()?, &load).await?.as_secs_f64();
    print(format!("handler that waits 10 ms, 1,000 keys, warm: {rate:.0} messages/s"));
    Ok(())
}

impl Plan {
    fn load(&self, invoke: &Arc<dyn Invoke>) -> Load {
        let invoke = invoke.clone();
        Load { messages: self.messages, keys: KEYS, shards: 8, concurrency: 64, publishing: false, invoke }
    }

    /// A log in a folder of its own, which the next call deletes.
    fn empty_log(&self) -> anyhow::Result<Arc<dyn Log>> {
        let folder = self.folder.join("log");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove `{}`", folder.display()));
            }
            _ => {}
        }
        Ok(Arc::new(EmbeddedLog::open(&folder, Options::default())?))
    }
}

/// Waits before it runs the handler, as one does that asks another service.
struct Waiting(Arc<dyn Invoke>);

impl Invoke for Waiting {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let handler = self.0.clone();
        Box::pin(async move {
            tokio::time::sleep(WAIT).await;
            handler.call(call).await
        })
    }

    fn uses_state(&self) -> bool {
        self.0.uses_state()
    }

    fn digest(&self) -> Option<Digest> {
        self.0.digest()
    }
}

/// The median cost of one call on one core.
async fn call_cost(invoke: &dyn Invoke) -> anyhow::Result<Duration> {
    const CALLS: usize = 2_000;
    let mut rounds = Vec::new();
    for round in 0..15 {
        let calls: Vec<Call> = (0..CALLS).map(|number| call(round * CALLS + number)).collect();
        let started = clock::instant();
        for call in calls {
            invoke.call(call).await?;
        }
        rounds.push(started.elapsed() / CALLS as u32);
    }
    rounds.sort();
    Ok(rounds[rounds.len() / 2])
}

fn call(number: usize) -> Call {
    let new = message(number, KEYS);
    let key = new.key.clone();
    let message = Arc::new(Message::from_new(new, Offset(1), Timestamp(0)));
    Call { message, key, attempt: 1, state: Default::default() }
}

/// Commits what the handler's runs would commit, without reader, shards or sandbox: the limit of the log.
async fn plain_commits(log: Arc<dyn Log>, messages: usize, batch: usize) -> anyhow::Result<f64> {
    let shard = ShardId { handler: HandlerName::parse("bench")?, index: 0 };
    let claim = log.claim(shard.clone(), Offset::START).await?;
    let output = Topic::parse(OUTPUT)?;
    let started = clock::instant();
    for (number, first) in (claim.record.commit_number + 1..).zip((0..messages).step_by(batch)) {
        let inputs: Vec<NewMessage> = (first..messages.min(first + batch)).map(|at| message(at, KEYS)).collect();
        let mark = |id: &Arc<str>| Mark { id: IdHash::of(id), time: Timestamp(0) };
        let commit = ShardCommit {
            shard: shard.clone(),
            term: claim.term,
            number,
            read: Offset((first + batch) as u64),
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
            dead_max: u64::MAX,
            dead_drop: vec![],
            controlled: claim.record.controlled,
            control: None,
        };
        log.commit(commit).await?;
    }
    Ok(messages as f64 / started.elapsed().as_secs_f64())
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
