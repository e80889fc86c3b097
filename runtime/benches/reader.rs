//! How many messages a second does the reader route to the 8 shards of one handler?
//!
//! Expected: 1 to 3 million on one core where the key comes with the message, less where key and id are taken out of a
//! JSON body. It has to be well above what the shards can handle (100,000 to 300,000), since it shares their cores.
//!
//! - tail: batches of 512 are appended to a log in memory, and shards that only count take them. The time of the appends
//!   alone, measured before, is subtracted.
//! - tail, 8 handlers: the same with eight handlers that all want every message. What it costs a message is the work of the
//!   one dispatcher, which more cores do not share, and the taking out of the inboxes.
//! - tail among idle handlers: the same while 1,000 other handlers of 8 shards have nothing to do. It costs about the same.
//! - catch-up: the log was filled before, the shards join at its start.
//! - routing alone: what of that is finding key, id and shard.
//!
//! One thread: its CPU time, so that other work on the machine does not count. Two threads: time on the clock.
//!
//! Run with `cargo bench --bench reader`.

use sluicebox::clock::Timestamp;
use sluicebox::handler::{HandlerName, ShardId};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{Key, Message, NewMessage, Offset};
use sluicebox::reader::{Inbox, Options, Reader};
use sluicebox::routing::{Field, IdFrom, KeyFrom, Router, Routing, Since, Span};
use sluicebox::topic::{Pattern, Topic};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: usize = 1_000_000;
const BATCH: usize = 512;
const SHARDS: u16 = 8;

fn main() {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{} cores of {}; {MESSAGES} messages of about 100 bytes", cores, model.unwrap_or("an unknown kind"));

    let by_key = || (KeyFrom::Message, IdFrom::Message);
    let by_body = || {
        let at = |pointer: &str| vec![Field::Pointer(pointer.into())];
        (KeyFrom::Fields(at("/user")), IdFrom::Fields(at("/id")))
    };
    for (what, (key, id)) in [("key of the message, no id", by_key()), ("key and id from the body", by_body())] {
        let routing = Arc::new(routing(key, id));
        let one = || Builder::new_current_thread().enable_time().build().expect("a runtime");
        let two = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
        report("routing alone", what, routing_alone(&routing));
        report("tail, one thread", what, tail(&one(), &routing, 1, 0));
        report("tail, 8 handlers", what, tail(&one(), &routing, 8, 0));
        report("tail among idle handlers", what, tail(&one(), &routing, 1, 1000));
        report("catch-up, one thread", what, catch_up(&one(), &routing, thread_time));
        report("catch-up, two threads", what, catch_up(&two, &routing, clock_time));
    }
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    Duration::from_nanos(stat.split(' ').next().and_then(|run| run.parse().ok()).expect("a number comes first"))
}

fn clock_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn routing_alone(routing: &Routing) -> Duration {
    let messages: Vec<_> = (1..)
        .zip(batches().into_iter().flatten())
        .map(|(offset, new)| Arc::new(Message::from_new(new, Offset(offset), Timestamp(0))))
        .collect();
    let router = Router::new([routing]);
    let started = thread_time();
    for message in &messages {
        std::hint::black_box(router.message(message).to(0));
    }
    thread_time() - started
}

fn report(case: &str, what: &str, time: Duration) {
    let rate = MESSAGES as f64 / time.as_secs_f64();
    println!("{case:25} {what:26} {:>10.0} messages/s {:>6.0} ns each", rate, 1e9 / rate);
}

fn routing(key: KeyFrom, id: IdFrom) -> Routing {
    let subscribe = vec![Pattern::parse("orders.*").expect("a pattern")];
    let spans = vec![Span { after: Offset::START, subscribe }];
    Routing {
        handler: HandlerName::parse("bench").expect("a name"),
        key,
        id,
        shards: SHARDS,
        recorded: Offset::START,
        identity: Since::default(),
        spans,
    }
}

/// As many handlers that differ in nothing but their names.
fn handlers_like(routing: &Arc<Routing>, count: usize) -> Vec<Arc<Routing>> {
    let name = |number| HandlerName::parse(&format!("bench{number}")).expect("a name");
    (0..count).map(|number| Arc::new(Routing { handler: name(number), ..(**routing).clone() })).collect()
}

fn batches() -> Vec<Vec<NewMessage>> {
    let topic = Topic::parse("orders.created").expect("a topic");
    let message = |number: usize| {
        let user = format!("user-{}", number % 10_000);
        let body =
            format!(r#"{{"user":"{user}","id":"order-{number}","amount_cents":4200,"currency":"EUR","city":"Köln"}}"#);
        NewMessage { key: Key::parse(&user).expect("a short key"), ..NewMessage::new(topic.clone(), body) }
    };
    let numbers: Vec<usize> = (0..MESSAGES).collect();
    numbers.chunks(BATCH).map(|numbers| numbers.iter().copied().map(message).collect()).collect()
}

fn tail(runtime: &Runtime, routing: &Arc<Routing>, handlers: usize, idle_handlers: usize) -> Duration {
    let alone = batches();
    let appends = runtime.block_on(append(Arc::new(MemoryLog::new()), alone));
    let batches = batches();
    runtime.block_on(async {
        let log = Arc::new(MemoryLog::new());
        let reader = Reader::start(log.clone(), Options::default()).await.expect("a tail");
        let routings = handlers_like(routing, handlers);
        routings.iter().for_each(|routing| reader.route(routing.clone()));
        let _idle: Vec<Inbox> = (0..idle_handlers).flat_map(|number| idle(&reader, number)).collect();
        let shards = shards(&reader, &routings);
        let started = thread_time();
        append(log, batches).await;
        drain(shards, MESSAGES * handlers).await;
        (thread_time() - started).saturating_sub(appends)
    })
}

fn idle(reader: &Reader, number: usize) -> Vec<Inbox> {
    let handler = HandlerName::parse(&format!("idle{number}")).expect("a name");
    let subscribe = vec![Pattern::parse(&format!("idle.{number}")).expect("a pattern")];
    let spans = vec![Span { after: Offset::START, subscribe }];
    let routing = Routing { handler, spans, ..routing(KeyFrom::Message, IdFrom::Message) };
    let shard = |index| ShardId { handler: routing.handler.clone(), index };
    reader.route(Arc::new(routing.clone()));
    (0..SHARDS).map(|index| reader.join(&shard(index), Offset::START)).collect()
}

fn catch_up(runtime: &Runtime, routing: &Arc<Routing>, time: fn() -> Duration) -> Duration {
    runtime.block_on(async {
        let log = Arc::new(MemoryLog::new());
        append(log.clone(), batches()).await;
        let reader = Reader::start(log, Options::default()).await.expect("a tail");
        reader.route(routing.clone());
        let started = time();
        drain(shards(&reader, std::slice::from_ref(routing)), MESSAGES).await;
        time() - started
    })
}

async fn append(log: Arc<MemoryLog>, batches: Vec<Vec<NewMessage>>) -> Duration {
    let started = thread_time();
    for batch in batches {
        log.append(batch).await.expect("messages within the limits");
        tokio::task::yield_now().await;
    }
    thread_time() - started
}

/// Shards that only count, each in its own task.
fn shards(reader: &Reader, routings: &[Arc<Routing>]) -> (JoinSet<()>, tokio::sync::mpsc::Receiver<usize>) {
    let (count, counts) = tokio::sync::mpsc::channel(1024);
    let mut tasks = JoinSet::new();
    let shards = routings.iter().flat_map(|routing| (0..SHARDS).map(|index| (routing.handler.clone(), index)));
    for (handler, index) in shards {
        let mut inbox: Inbox = reader.join(&ShardId { handler, index }, Offset::START);
        let count = count.clone();
        tasks.spawn(async move {
            while let Some(delivery) = inbox.next().await {
                if count.send(delivery.messages.len()).await.is_err() {
                    return;
                }
            }
        });
    }
    (tasks, counts)
}

async fn drain((_tasks, mut counts): (JoinSet<()>, tokio::sync::mpsc::Receiver<usize>), expected: usize) {
    let mut messages = 0;
    while messages < expected {
        messages += counts.recv().await.expect("the shards go on until all came");
    }
}
