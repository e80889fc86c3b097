//! Several hosts as processes on this machine: how the rate grows with them, for a handler that waits and for one that computes,
//! and how long the messages of a host that is killed wait for another.

use crate::engine::Engine;
use crate::guests;
use crate::{Arguments, Modes};
use anyhow::Context as _;
use sluicebox::bench::Used;
use sluicebox::clock::{self, Timestamp};
use sluicebox::handler::HandlerName;
use sluicebox::invoke::{Call, DelayedRoom, Invoke as _};
use sluicebox::log::{Log, Member};
use sluicebox::message::{Key, Message, NewMessage, Offset};
use sluicebox::sandbox::{Mode, Settings};
use sluicebox::topic::{Pattern, Topic};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const HOSTS_MAX: usize = 3;
const SHARDS: usize = 24;
const KEYS: usize = 1_000;
const APPENDED: usize = 1_000;
/// After this a host that is not heard is taken for dead.
const LEASE: &str = "2s";
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(2);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Handler {
    name: &'static str,
    /// The guest `hostile` does what its message says.
    order: String,
    /// Messages for each host.
    messages: usize,
}

pub async fn measure(engine: &impl Engine, modes: &Modes, arguments: &Arguments) -> anyhow::Result<()> {
    let handlers = [
        Handler { name: "waits 10 ms", order: "nap 10".into(), messages: 20_000 },
        Handler {
            name: "burns 1 ms",
            order: format!("work {}", rounds_of_a_millisecond(modes).await?),
            messages: 3_000,
        },
    ];
    println!(
        "{SHARDS} shards, {KEYS} keys, 64 runs at a time on each host, warm sandboxes, lease {LEASE}; all hosts and the server \
         share the cores of this machine"
    );
    for handler in &handlers {
        let mut first = None;
        for hosts in 1..=HOSTS_MAX {
            if format!("{}, {hosts} host(s)", handler.name).contains(&arguments.only) {
                let rate = rate_of(engine, handler, hosts).await?;
                let times = rate / *first.get_or_insert(rate);
                println!("{}, {hosts} host(s): {rate:.0} messages/s, {times:.2} × the first", handler.name);
            }
        }
    }
    if "takeover".contains(&arguments.only) {
        takeover(engine).await?;
    }
    Ok(())
}

/// Rounds of the guest's loop that take so much of the processor, whatever else goes on.
async fn rounds_of_a_millisecond(modes: &Modes) -> anyhow::Result<u64> {
    const ROUNDS: u64 = 5_000_000;
    let module = modes.sandboxes.load(&guests::bytes("hostile"))?;
    let publish = vec![Pattern::parse("out.*")?];
    let settings = Settings { mode: Mode::Warm, publish, ..Settings::new(HandlerName::parse("scale")?) };
    let invoke = modes.sandboxes.handler(&module, settings)?;
    let work = async |rounds: u64| {
        let new = message(0, &format!("work {rounds}"))?;
        let key = new.key.clone();
        let message = Arc::new(Message::from_new(new, Offset(1), Timestamp(0)));
        let call = Call { message, key, attempt: 1, state: Default::default(), delayed_room: DelayedRoom::ANY };
        let before = Used::now();
        invoke.call(call).await?;
        anyhow::Ok(Used::now().since(&before))
    };
    work(1).await?;
    Ok((ROUNDS as f64 * 1e-3 / work(ROUNDS).await?.as_secs_f64()) as u64)
}

fn message(number: usize, order: &str) -> anyhow::Result<NewMessage> {
    let mut message = NewMessage::new(Topic::parse("orders.given")?, order.to_owned());
    message.key = Key::parse(&format!("key-{}", number % KEYS))?;
    Ok(message)
}

async fn rate_of(engine: &impl Engine, handler: &Handler, hosts: usize) -> anyhow::Result<f64> {
    let namespace = format!("bench-scale-{hosts}-{}", handler.order.replace(' ', "-"));
    let log = engine.log(&namespace).await?;
    let hosts = Together::start(engine, &*log, &namespace, hosts).await?;
    let messages = handler.messages * hosts.0.len();
    let before = hosts.used();
    let began = clock::instant();
    let last = publish(&log, messages, &handler.order).await?;
    until_handled(&*log, last).await?;
    let took = began.elapsed();
    let used = hosts.used().iter().zip(&before).map(|(used, before)| used.since(before)).sum::<Duration>();
    println!("    processor time of all hosts: {:.1} µs a message", used.as_secs_f64() * 1e6 / messages as f64);
    drop(hosts);
    drop(log);
    engine.clear().await?;
    Ok(messages as f64 / took.as_secs_f64())
}

/// From the death of a host until each of its shards has handled a message that came after it.
async fn takeover(engine: &impl Engine) -> anyhow::Result<()> {
    let namespace = "bench-takeover";
    let log = engine.log(namespace).await?;
    let mut hosts = Together::start(engine, &*log, namespace, HOSTS_MAX).await?;
    until_handled(&*log, publish(&log, KEYS, "ok").await?).await?;
    let began = clock::instant();
    hosts.0.pop();
    until_handled(&*log, publish(&log, KEYS, "ok").await?).await?;
    println!(
        "takeover: {:.2} s from SIGKILL of one of {HOSTS_MAX} hosts until a message of each of {KEYS} keys was handled, with a \
         lease of {LEASE}",
        began.elapsed().as_secs_f64()
    );
    drop(hosts);
    drop(log);
    engine.clear().await
}

/// The offset of the last one.
async fn publish(log: &Arc<dyn Log>, messages: usize, order: &str) -> anyhow::Result<Offset> {
    let mut last = Offset::START;
    for first in (0..messages).step_by(APPENDED) {
        let chunk = (first..messages.min(first + APPENDED)).map(|number| message(number, order));
        let chunk = chunk.collect::<anyhow::Result<_>>()?;
        last = log.append(chunk).await?.pop().unwrap_or(last);
    }
    Ok(last)
}

/// Every shard has settled all it has up to there.
async fn until_handled(log: &dyn Log, upto: Offset) -> anyhow::Result<()> {
    let handled = async {
        loop {
            let shards = log.status().await?;
            if shards.len() >= SHARDS && shards.iter().all(|shard| shard.read >= upto && shard.open == 0) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, handled).await.context("the hosts do not keep up")?
}

/// Hosts that share the shards.
struct Together(Vec<Host>);

impl Together {
    async fn start(engine: &impl Engine, log: &dyn Log, namespace: &str, hosts: usize) -> anyhow::Result<Self> {
        let started = (0..hosts).map(|number| Host::start(number, namespace, engine.url()));
        let together = Self(started.collect::<anyhow::Result<_>>()?);
        let held = |member: &Member| -> usize {
            let own = member.beat.runs.iter().filter(|runs| runs.handler.as_str() == "scale");
            own.map(|runs| runs.held.len()).sum()
        };
        let shared = async {
            loop {
                let held: Vec<usize> = log.members().list().iter().map(held).filter(|held| *held > 0).collect();
                if held.len() == hosts && held.iter().sum::<usize>() == SHARDS {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, shared).await.context("the hosts do not share the shards")?;
        Ok(together)
    }

    fn used(&self) -> Vec<Used> {
        self.0.iter().map(|host| Used::of(host.process.id())).collect()
    }
}

/// A process with a folder of its own; it is killed when it is dropped.
struct Host {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Host {
    /// Returns when it is ready.
    fn start(number: usize, namespace: &str, url: &str) -> anyhow::Result<Self> {
        let kind = url.split(':').next().unwrap_or_default();
        let folder = tempfile::tempdir()?;
        let settings = format!(
            r#"
namespace = "{namespace}"
[log]
kind = "{kind}"
url = "{url}"
[host]
name = "host-{number}"
lease = "{LEASE}"
[http]
listen = "127.0.0.1:0"
[handlers.scale]
module = "hostile.wasm"
subscribe = ["orders.given"]
publish = ["out.*"]
start = "earliest"
shards = {SHARDS}
sandbox = "warm"
"#
        );
        std::fs::write(folder.path().join("sluicebox.toml"), settings)?;
        std::fs::copy(guests::guest("hostile"), folder.path().join("hostile.wasm"))?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
            .args(["run", "--json", "--diagnostics", "warn"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let says = process.stdout.take().context("it is piped")?;
        let host = Self { process, _folder: folder };
        let mut line = String::new();
        BufReader::new(says).read_line(&mut line)?;
        anyhow::ensure!(line.contains("url"), "a host ended before it was ready");
        Ok(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
