//! The measurements that `sluicebox bench` and `cargo bench --bench end_to_end` print, each against its parts right before
//! and after it (*sum of parts*: all cores busy with the sandbox call and the plain commit, nothing between them): absolute
//! numbers are this machine's, and of this moment where it is shared with others; ratios travel. `taskset -c 0 sluicebox bench` shows one core.

use super::{Identity, Load, latencies, machine, parts, run, swap};
use crate::effects::Effects;
use crate::handler::{Digest, HandlerName};
use crate::invoke::{Call, Failure, Invoke};
use crate::log::Log;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::sandbox::bare::Bare;
use crate::sandbox::{Mode, Pool, Sandboxes, Settings, tracing_sink};
use crate::topic::Pattern;
use anyhow::Context as _;
use futures_util::future::BoxFuture;
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
    /// Only measurements whose name contains this are made.
    pub only: String,
}

const KEYS: usize = 10_000;
const LATENCY_MESSAGES: usize = 2_000;
const WAIT: Duration = Duration::from_millis(10);
/// Messages of a plain commit, of which the sum of parts is made; and in all, each time.
const COMMIT_MESSAGES: usize = 1024;
const PART_MESSAGES: usize = 50_000;
const CALL_ROUNDS: usize = 15;
/// Beside each throughput, before and after.
const PART_ROUNDS: usize = 5;

/// A mode of the sandbox under test.
struct Tested {
    name: &'static str,
    mode: Mode,
    invoke: Arc<dyn Invoke>,
}

/// What a message takes at least, on one core.
struct Parts {
    call: Duration,
    commit: Duration,
    /// How many times as long a call takes while every core makes calls.
    crowding: f64,
}

/// Measures everything and hands out one line at a time.
pub async fn measure(plan: &Plan, mut print: impl FnMut(String)) -> anyhow::Result<()> {
    let bytes = std::fs::read(&plan.module).with_context(|| {
        format!("failed to read `{}`: build it with `sluicebox build handlers`", plan.module.display())
    })?;
    let sandboxes = Sandboxes::new(&Pool::default(), tracing_sink())?;
    let module = sandboxes.load(&bytes)?;
    let bare = sandboxes.bare(&module)?;
    let mut modes = vec![];
    for (name, mode) in [("fresh", Mode::Fresh), ("warm", Mode::Warm)] {
        let invoke: Arc<dyn Invoke> = Arc::new(sandboxes.handler(&module, Settings { mode, ..guest()? })?);
        modes.push(Tested { name, mode, invoke });
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    print(format!("machine: {}", machine()));
    print(format!("sandboxes: {}", sandboxes.describe()));
    print(format!(
        "log: embedded, WAL, synchronous=FULL (fsync per commit); {} messages of 100 bytes, {KEYS} keys",
        plan.messages
    ));
    let mut measured = false;
    let mut wants = |name: &str| {
        let wanted = name.contains(&plan.only);
        measured |= wanted;
        wanted
    };
    for batch in [256, COMMIT_MESSAGES] {
        let name = format!("plain commit of the same rows, {batch} a commit");
        if wants(&name) {
            let took = parts::plain_commit(plan.empty_log()?, plan.messages, KEYS, batch).await?;
            print(format!("{name}: {:.1} µs, {:.0} messages/s", micros(took), 1.0 / took.as_secs_f64()));
        }
    }
    for Tested { name, mode, invoke } in &modes {
        let name = format!("sandbox call, {name}");
        if wants(&name) {
            let calls = parts::calls(invoke, &bare, *mode, CALL_ROUNDS, KEYS).await?;
            let ratio = |took: Duration, of: Duration| took.as_secs_f64() / of.as_secs_f64();
            print(format!(
                "{name}: {:.1} µs; bare call of the same component with imports that do nothing {:.1} µs: {:.2} ×; while every \
                 core makes calls {:.1} µs: {:.2} × as long as alone",
                micros(calls.alone),
                micros(calls.bare),
                ratio(calls.alone, calls.bare),
                micros(calls.crowded),
                ratio(calls.crowded, calls.alone)
            ));
        }
    }
    for publishing in [false, true] {
        for (shards, identity) in [(1, Identity::Pointers), (8, Identity::Pointers), (8, Identity::Given)] {
            for tested in &modes {
                let how = if publishing { "publishing in the time" } else { "log filled before" };
                let by = match identity {
                    Identity::Pointers => "key and id by pointer",
                    Identity::Given => "key and id given",
                };
                let name = format!("{how}, {shards} shard(s), {by}, {}", tested.name);
                if !wants(&name) {
                    continue;
                }
                let before = plan.parts(tested, &bare).await?;
                let load = Load { shards, publishing, identity, ..plan.load(&tested.invoke) };
                let ran = run(plan.empty_log()?, &load).await?;
                let after = plan.parts(tested, &bare).await?;
                let (call, commit) = ((before.call + after.call) / 2, (before.commit + after.commit) / 2);
                let crowding = (before.crowding + after.crowding) / 2.0;
                let rate = ran.messages_per_second(plan.messages);
                let share = rate * (call + commit).as_secs_f64() / cores as f64;
                print(format!(
                    "{name}: {rate:.0} messages/s, {share:.2} of the sum of parts ({cores} cores ÷ (call {:.1} µs + plain commit \
                     {:.1} µs), measured around it; while every core makes calls each takes {crowding:.2} × as long: {:.2} of what \
                     is left)",
                    micros(call),
                    micros(commit),
                    share * crowding
                ));
                print(format!("  processor time in µs a message: {}", ran.processor));
            }
        }
    }
    for Tested { name, invoke, .. } in &modes {
        let name = format!("one at a time, {name}");
        if !wants(&name) {
            continue;
        }
        let before = parts::two_synced_writes(plan.empty_log()?, LATENCY_MESSAGES, KEYS).await?;
        let load = Load { messages: LATENCY_MESSAGES, ..plan.load(invoke) };
        let took = latencies(plan.empty_log()?, &load).await?;
        let after = parts::two_synced_writes(plan.empty_log()?, LATENCY_MESSAGES, KEYS).await?;
        let two = (before + after) / 2;
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
        let ratio = p50 * 1e3 / micros(two);
        print(format!(
            "{name}: publish to visible output p50 {p50:.2} ms ({ratio:.2} × two plain synced commits around it, {:.2} ms), \
             p99 {p99:.2} ms, longest {longest:.2} ms",
            micros(two) / 1e3
        ));
    }
    let [fresh, warm] = &modes[..] else { anyhow::bail!("two modes are measured") };
    let name = "handler that waits 10 ms, 1,000 keys, warm";
    if wants(name) {
        let waiting: Arc<dyn Invoke> = Arc::new(Waiting(warm.invoke.clone()));
        let load =
            Load { messages: plan.messages.min(200_000), keys: 1_000, concurrency: 1_000, ..plan.load(&waiting) };
        let ran = run(plan.empty_log()?, &load).await?;
        print(format!("{name}: {:.0} messages/s", ran.messages_per_second(load.messages)));
        print(format!("  processor time in µs a message: {}", ran.processor));
    }
    if wants("swaps") {
        let load = Load { publishing: true, ..plan.load(&fresh.invoke) };
        let swaps = swap::Swaps { sandboxes: &sandboxes, settings: guest()?, module: &bytes };
        for line in swaps.measure(|| plan.empty_log(), &load).await? {
            print(line);
        }
    }
    anyhow::ensure!(measured, "no measurement has `{}` in its name: try `warm`, `8 shard(s)` or `swaps`", plan.only);
    Ok(())
}

fn guest() -> anyhow::Result<Settings> {
    Ok(Settings { publish: vec![Pattern::parse("orders.*")?], ..Settings::new(HandlerName::parse("bench")?) })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Plan {
    fn load(&self, invoke: &Arc<dyn Invoke>) -> Load {
        Load { keys: KEYS, ..Load::new(self.messages, invoke.clone()) }
    }

    /// The parts of a message's way, as they are now.
    async fn parts(&self, tested: &Tested, bare: &Bare) -> anyhow::Result<Parts> {
        let calls = parts::calls(&tested.invoke, bare, tested.mode, PART_ROUNDS, KEYS).await?;
        let messages = self.messages.min(PART_MESSAGES);
        let commit = parts::plain_commit(self.empty_log()?, messages, KEYS, COMMIT_MESSAGES).await?;
        let crowding = calls.crowded.as_secs_f64() / calls.alone.as_secs_f64();
        Ok(Parts { call: calls.alone, commit, crowding })
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
