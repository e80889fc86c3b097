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

mod parts;
pub mod suite;
mod swap;
mod threads;

pub use parts::call_alone;
pub use threads::Used;

/// What the handler under test listens to, and where it publishes once per message.
pub const INPUT: &str = "events.new_order";
pub const OUTPUT: &str = "orders.accepted";

/// Messages in one append, unless a benchmark says so.
pub const APPENDED: usize = 1000;
/// Messages under way to the log, unless one append has more.
const APPENDING: usize = 4 * APPENDED;
/// Where each message is an append of its own: as many clients that wait for their answers.
const APPENDS: usize = 256;

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
    /// The number of the first message: each number is another id.
    pub first: usize,
    pub keys: usize,
    pub identity: Identity,
    pub shards: u16,
    /// Runs at a time.
    pub concurrency: usize,
    /// Whether publishing is in the measured time; otherwise the log is filled before.
    pub publishing: bool,
    /// Messages of one append.
    pub appended: usize,
    /// A process beside this one whose processor time counts too: the server that the log is on.
    pub server: Option<u32>,
    pub invoke: Arc<dyn Invoke>,
}

impl Load {
    /// A log that is filled before, 10,000 keys, 8 shards; the handler looks into the body for key and id.
    pub fn new(messages: usize, invoke: Arc<dyn Invoke>) -> Self {
        Self {
            messages,
            first: 0,
            keys: 10_000,
            identity: Identity::Pointers,
            shards: 8,
            concurrency: 64,
            publishing: false,
            appended: APPENDED,
            server: None,
            invoke,
        }
    }
}

/// The body of the number-th message: 100 bytes of JSON, an event of the `order` handler.
pub fn body(number: usize, key: usize) -> String {
    let cents = number % 10_000;
    let mut body =
        format!(r#"{{"type":"new_order","id":"id-{number}","args":{{"user":"user-{key}","amount_cents":{cents}}}"#);
    while body.len() < 99 {
        body.push(' ');
    }
    body.push('}');
    body
}

/// The key of the number-th message: a stride that is prime to the number of keys spreads neighbours over shards.
pub fn key(number: usize, keys: usize) -> usize {
    number.wrapping_mul(7919) % keys.max(1)
}

fn message(number: usize, keys: usize, identity: Identity) -> NewMessage {
    let key = key(number, keys);
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

/// Appends the load's messages to the log, several appends at a time.
pub async fn fill(log: &Arc<dyn Log>, load: &Load) -> anyhow::Result<()> {
    use futures_util::{StreamExt, TryStreamExt};
    let Load { messages, first, keys, identity, appended, .. } = *load;
    let end = first + messages;
    let chunks = (first..end).step_by(appended).map(|first| {
        let batch = (first..end.min(first + appended)).map(|number| message(number, keys, identity)).collect();
        let log = log.clone();
        async move { log.append(batch).await.map(drop) }
    });
    let at_once = (APPENDING / appended).clamp(1, APPENDS);
    futures_util::stream::iter(chunks).buffered(at_once).try_for_each(|()| async { Ok(()) }).await?;
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
    /// Processor time of this process, and of the load's server.
    pub used: Duration,
    pub server_used: Duration,
}

impl Ran {
    pub fn messages_per_second(&self, messages: usize) -> f64 {
        messages as f64 / self.took.as_secs_f64()
    }
}

/// Runs the load on an empty log.
pub async fn run(log: Arc<dyn Log>, load: &Load) -> anyhow::Result<Ran> {
    if !load.publishing {
        fill(&log, load).await?;
    }
    let mut tail = log.tail().await?;
    let metrics = Arc::new(Metrics::new());
    let (started, before, server_before) = (clock::instant(), Used::now(), load.server.map(Used::of));
    let host = Host::start(log.clone(), vec![handler(load)], metrics.clone(), Options::default()).await?;
    let (filled, published) = (log.clone(), load.clone());
    let publisher =
        tokio::spawn(async move { if published.publishing { fill(&filled, &published).await } else { Ok(()) } });
    // A publisher that fails ends the measurement: the outputs it owes would never come.
    let published = async { publisher.await? };
    tokio::try_join!(published, until_published(&log, &mut *tail, load.messages))?;
    let took = started.elapsed();
    let used = Used::now();
    let server_used = load.server.map(Used::of).zip(server_before);
    host.stop().await;
    Ok(Ran {
        took,
        processor: used.per_message(&before, load.messages),
        used: used.since(&before),
        server_used: server_used.map_or(Duration::ZERO, |(used, before)| used.since(&before)),
    })
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
