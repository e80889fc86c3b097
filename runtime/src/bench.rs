//! End-to-end benchmarks over a real log: what `sluicebox bench` and `cargo bench` print.
//!
//! The handler is `handlers/order`: it parses an event of 100 bytes, reads and writes state, counts, and publishes once.
//!
//! Question: how many messages per second go from the log through a handler into output + state + mark, committed with
//! fsync, and how near is that to what its parts alone would allow: all cores busy with the sandbox call and the plain
//! commit of the same rows? Expected on two cores: some hundred thousand a second, the sandbox of a fresh instance being the
//! largest part.

use crate::clock;
use crate::config::Start;
use crate::handler::{HandlerName, Policy};
use crate::host::{Handler, Host};
use crate::invoke::Invoke;
use crate::log::{Log, ReadRequest, Tail};
use crate::message::{Key, NewMessage, Offset};
use crate::reader::Options;
use crate::routing::{Field, IdFrom, KeyFrom};
use crate::telemetry::Metrics;
use crate::topic::{Pattern, Topic};
use std::sync::Arc;
use std::time::Duration;
use threads::Used;

mod parts;
pub mod suite;
mod swap;
mod threads;

/// What the handler under test listens to, and where it publishes once per message.
pub const INPUT: &str = "events.new_order";
pub const OUTPUT: &str = "orders.accepted";

/// Messages in one append of a benchmark.
const APPEND_MESSAGES: usize = 1000;

/// Where the handler takes key and id from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The publisher gives them with the message.
    Given,
    /// JSON pointers into the body, as the example settings have.
    Pointers,
}

/// One end-to-end measurement.
#[derive(Clone)]
pub struct Load {
    pub messages: usize,
    pub keys: usize,
    pub identity: Identity,
    pub shards: u16,
    /// Runs at a time.
    pub concurrency: usize,
    /// Whether publishing is in the measured time; otherwise the log is filled before.
    pub publishing: bool,
    pub invoke: Arc<dyn Invoke>,
}

/// The body of the number-th message: 100 bytes of JSON, an event of the `order` handler.
fn body(number: usize, key: usize) -> String {
    let cents = number % 10_000;
    let mut body =
        format!(r#"{{"type":"new_order","id":"id-{number}","args":{{"user":"user-{key}","amount_cents":{cents}}}"#);
    while body.len() < 99 {
        body.push(' ');
    }
    body.push('}');
    body
}

fn message(number: usize, keys: usize, identity: Identity) -> NewMessage {
    // A stride that is prime to the number of keys spreads neighbours over shards.
    let key = number.wrapping_mul(7919) % keys.max(1);
    let mut message = NewMessage::new(topic(INPUT), body(number, key));
    if identity == Identity::Given {
        message.key = Key::parse(&format!("user-{key}")).ok().flatten();
        message.id = Some(format!("id-{number}").into());
    }
    message
}

fn topic(text: &'static str) -> Topic {
    Topic::parse(text).expect("a valid topic")
}

/// Appends `messages` to the log, up to four appends at a time.
pub async fn fill(log: &Arc<dyn Log>, messages: usize, keys: usize, identity: Identity) -> anyhow::Result<()> {
    use futures_util::{StreamExt, TryStreamExt};
    let chunks = (0..messages).step_by(APPEND_MESSAGES).map(|first| {
        let batch =
            (first..messages.min(first + APPEND_MESSAGES)).map(|number| message(number, keys, identity)).collect();
        let log = log.clone();
        async move { log.append(batch).await.map(drop) }
    });
    futures_util::stream::iter(chunks).buffered(4).try_for_each(|()| async { Ok(()) }).await?;
    Ok(())
}

/// The handler of a measurement.
pub fn handler(load: &Load) -> Handler {
    Handler {
        name: HandlerName::parse("bench").expect("a valid name"),
        subscribe: vec![Pattern::from(&topic(INPUT))],
        key: match load.identity {
            Identity::Given => KeyFrom::Message,
            Identity::Pointers => KeyFrom::Fields(vec![Field::Pointer("/args/user".into())]),
        },
        id: match load.identity {
            Identity::Given => IdFrom::Message,
            Identity::Pointers => IdFrom::Fields(vec![Field::Pointer("/id".into())]),
        },
        shards: load.shards,
        start: Start::Earliest,
        policy: Policy { concurrency: load.concurrency, ..Policy::default() },
        invoke: load.invoke.clone(),
    }
}

/// What a run of a load took.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Until the last output was durable.
    pub took: Duration,
    /// Processor time by kind of thread, in microseconds a message, for people.
    pub processor: String,
}

impl Ran {
    pub fn messages_per_second(&self, messages: usize) -> f64 {
        messages as f64 / self.took.as_secs_f64()
    }
}

/// Runs the load on an empty log.
pub async fn run(log: Arc<dyn Log>, load: &Load) -> anyhow::Result<Ran> {
    if !load.publishing {
        fill(&log, load.messages, load.keys, load.identity).await?;
    }
    let mut tail = log.tail().await?;
    let metrics = Arc::new(Metrics::new());
    let (started, before) = (clock::instant(), Used::now());
    let host = Host::start(log.clone(), vec![handler(load)], metrics.clone(), Options::default()).await?;
    let (filled, messages) = (log.clone(), if load.publishing { load.messages } else { 0 });
    let (keys, identity) = (load.keys, load.identity);
    let publisher = tokio::spawn(async move { fill(&filled, messages, keys, identity).await });
    // A publisher that fails ends the measurement: the outputs it owes would never come.
    let published = async { publisher.await? };
    tokio::try_join!(published, until_published(&log, &mut *tail, load.messages))?;
    let took = started.elapsed();
    let processor = Used::now().per_message(&before, load.messages);
    host.stop().await;
    Ok(Ran { took, processor })
}

/// Waits until so many outputs are in the log since the tail began.
pub async fn until_published(log: &Arc<dyn Log>, tail: &mut dyn Tail, messages: usize) -> anyhow::Result<()> {
    let wanted = topic(OUTPUT);
    let (mut outputs, mut from) = (0, tail.start());
    while outputs < messages {
        let batch = match tail.next().await {
            Some(Ok(batch)) => batch,
            // Fell behind: count from the log what is missing.
            Some(Err(_)) => {
                let (count, upto) = count_after(log, from).await?;
                (outputs, from) = (outputs + count, upto);
                continue;
            }
            None => anyhow::bail!("the log was closed"),
        };
        outputs += batch.messages.iter().filter(|message| message.offset > from && message.topic == wanted).count();
        from = from.max(batch.upto);
    }
    Ok(())
}

async fn count_after(log: &Arc<dyn Log>, mut after: Offset) -> anyhow::Result<(usize, Offset)> {
    let mut count = 0;
    loop {
        let request = ReadRequest {
            after,
            upto: Offset::END,
            patterns: vec![Pattern::from(&topic(OUTPUT))],
            messages_max: 10_000,
            bytes_max: usize::MAX,
        };
        let batch = log.read(request).await?;
        count += batch.messages.len();
        if batch.upto == after {
            return Ok((count, after));
        }
        after = batch.upto;
    }
}

/// One message at a time: from publishing until its output is visible, for each of `messages`, sorted.
pub async fn latencies(log: Arc<dyn Log>, load: &Load) -> anyhow::Result<Vec<Duration>> {
    let metrics = Arc::new(Metrics::new());
    let host = Host::start(log.clone(), vec![handler(load)], metrics.clone(), Options::default()).await?;
    let mut tail = log.tail().await?;
    let wanted = topic(OUTPUT);
    let mut took = Vec::with_capacity(load.messages);
    for number in 0..load.messages {
        let started = clock::instant();
        log.append(vec![message(number, load.keys, load.identity)]).await?;
        loop {
            match tail.next().await {
                Some(Ok(batch)) if batch.messages.iter().any(|message| message.topic == wanted) => break,
                Some(_) => {}
                None => anyhow::bail!("the log was closed"),
            }
        }
        took.push(started.elapsed());
    }
    host.stop().await;
    took.sort();
    Ok(took)
}

/// What the numbers were measured on, for people.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: unknown CPU");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    format!("{cores} cores, {model}, {} build", if cfg!(debug_assertions) { "debug" } else { "release" })
}
