//! What does one handler call cost, with a sandbox of its own and with a warm one, and how much of that is wasmtime's own?
//!
//! The guest parses a JSON event of about 100 bytes, reads state, writes state and publishes (`tests/guests/bench`).
//! Expected on one core of a current x86-64 machine with Linux 6.7 or newer and no swap: some 10 µs fresh, 2 µs warm. The
//! bare call is of the same component in the same engine with imports that do nothing; rounds of both take turns.
//!
//! `cargo bench --bench sandbox`, or `… -- warm` for one of them. `… -- swap` answers: how long does the longest call take
//! while modules compile and every core has calls to make? (Expected: some milliseconds more than without.) `… -- idle` answers instead: what do 1,000 handlers of
//! different code cost that have nothing to do? (Expected: less than 300 MiB, no processor time.)

#[path = "../../tests/it/harness/guests.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod guests;

use bytes::Bytes;
use sluicebox::clock::Timestamp;
use sluicebox::effects::Entries;
use sluicebox::handler::HandlerName;
use sluicebox::invoke::{Call, DelayedRoom, Invoke};
use sluicebox::message::{Key, Message, NewMessage, Offset};
use sluicebox::sandbox::{Handler, Mode, Pool, Sandboxes, Settings, bare, tracing_sink};
use sluicebox::topic::{Pattern, Topic};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENT: &str =
    r#"{"id":"0f8b1c","user":"ada","amount_cents":1999,"items":["tea","milk","sugar"],"note":"by noon"}"#;
const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 7;

fn main() {
    let bytes = guests::bytes("bench");
    let sandboxes = Sandboxes::new(&Pool::default(), tracing_sink()).expect("the default pool fits");
    println!("cores:    {}", std::thread::available_parallelism().map_or(0, usize::from));
    println!("kernel:   {}", std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim());
    println!("pool:     {}", sandboxes.describe());
    println!("guest:    {} bytes; event: {} bytes; JSON + 3 host calls", bytes.len(), EVENT.len());
    let started = Instant::now();
    let module = sandboxes.load(&bytes).expect("the guest is a component");
    println!("compiled: {:?}", started.elapsed());

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if wanted.iter().any(|wanted| wanted == "idle") {
        return idle(&runtime, &bytes);
    }
    if wanted.iter().any(|wanted| wanted == "swap") {
        return swap(&runtime, &bytes);
    }
    for (name, mode) in [("fresh", Mode::Fresh), ("warm", Mode::Warm)] {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let handler = sandboxes.handler(&module, settings(mode)).expect("everything it imports is granted");
        let bare = Bare { module: sandboxes.bare(&module).expect("everything is there"), mode };
        for threads in [1, 2] {
            // In turns, so that what else the machine does meets both alike.
            let rounds: Vec<(Round, Round)> =
                (0..ROUNDS).map(|_| (round(&runtime, &handler, threads), round(&runtime, &bare, threads))).collect();
            let call = report(name, threads, rounds.iter().map(|(call, _)| *call));
            let bare = report("bare", threads, rounds.iter().map(|(_, bare)| *bare));
            println!("{name:<5} on {threads} thread(s): {:.2} × the bare call's processor time", call / bare);
        }
    }
}

fn settings(mode: Mode) -> Settings {
    let publish = vec![Pattern::parse("orders.*").expect("it is a pattern")];
    Settings { publish, mode, ..Settings::new(HandlerName::parse("order").expect("it is a name")) }
}

/// Another module of the same code: a custom section (id 0) at the end is named by a number.
fn variant(bytes: &[u8], n: usize) -> Vec<u8> {
    let name = format!("{n:08}");
    [bytes, &[0, 9, 8], name.as_bytes()].concat()
}

/// Makes calls on every core and looks for the longest, first alone and then while one module after the other is compiled.
fn swap(runtime: &Runtime, bytes: &[u8]) {
    const MODULES: usize = 20;
    let cache = tempfile::tempdir().expect("there is room for a folder");
    let pool = Pool { cache: Some(cache.path().join("compiled")), ..Pool::default() };
    let sandboxes = Sandboxes::new(&pool, tracing_sink()).expect("the pool fits");
    let module = sandboxes.load(bytes).expect("the guest is a component");
    let handler = sandboxes.handler(&module, settings(Mode::Fresh)).expect("everything it imports is granted");
    let started = Instant::now();
    let load = || {
        for n in 0..MODULES {
            let module = sandboxes.load(&variant(bytes, n)).expect("it is still a component");
            let handler = sandboxes.handler(&module, settings(Mode::Fresh)).expect("everything is granted");
            runtime.block_on(handler.try_out()).expect("the guest starts");
        }
    };
    calls_beside(runtime, &handler, "alone", || std::thread::sleep(Duration::from_secs(3)));
    calls_beside(runtime, &handler, "while modules compile", load);
    println!("{MODULES} modules; all took {:?}", started.elapsed());
}

/// Prints the longest calls that all cores made while something else was done.
fn calls_beside(runtime: &Runtime, handler: &Handler, name: &str, beside: impl FnOnce()) {
    const SHOWN: usize = 5;
    let is_over = AtomicBool::new(false);
    let started = Instant::now();
    let work = || {
        let call = call();
        let _entered = runtime.enter();
        let (mut longest, mut calls) = (vec![], 0u64);
        while !is_over.load(Relaxed) {
            let begun = Instant::now();
            poll_to_end(handler.call(call.clone())).expect("the guest does not fail");
            longest.push(begun.elapsed());
            calls += 1;
            if longest.len() > 1000 {
                longest.sort_by(|a, b| b.cmp(a));
                longest.truncate(SHOWN);
            }
        }
        (longest, calls)
    };
    let (mut longest, calls) = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        beside();
        is_over.store(true, Relaxed);
        let each = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        each.fold((vec![], 0), |(all, sum), (longest, calls)| ([all, longest].concat(), sum + calls))
    });
    longest.sort_by(|a, b| b.cmp(a));
    longest.truncate(SHOWN);
    let took = started.elapsed();
    println!("{name}: longest calls {longest:.1?} of {calls} in {took:.1?}");
}

/// Loads many handlers, runs each once, and looks at what the process takes while nothing happens.
fn idle(runtime: &Runtime, bytes: &[u8]) {
    const HANDLERS: usize = 1000;
    const PAUSE: Duration = Duration::from_secs(5);
    // Kept from run to run: compiling so many takes a minute, and a host that starts again finds them compiled.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let pool = Pool { cache: Some(cache), ..Pool::default() };
    let sandboxes = Sandboxes::new(&pool, tracing_sink()).expect("the pool fits");
    let before = resident();
    let mut compiled = 0;
    let started = Instant::now();
    let handlers: Vec<_> = (0..HANDLERS)
        .map(|n| {
            let module = sandboxes.load(&variant(bytes, n)).expect("it is still a component");
            compiled += usize::from(!module.from_cache());
            let handler = sandboxes.handler(&module, settings(Mode::Fresh)).expect("everything is granted");
            runtime.block_on(handler.call(call())).expect("the guest does not fail");
            handler
        })
        .collect();
    println!("loaded {HANDLERS} handlers in {:?}, {compiled} of them not found compiled", started.elapsed());
    // The ticker goes to sleep a moment after the last call.
    std::thread::sleep(Duration::from_secs(1));
    println!("with them:           {}", resident());
    let released = [sandboxes.release_idle(), sandboxes.release_idle()];
    println!("released:            {released:?} modules, at the first and the second look");
    let processor_before = process_processor_seconds();
    std::thread::sleep(PAUSE);
    let processor = process_processor_seconds() - processor_before;
    println!("before the handlers: {before}");
    println!("idle:                {}", resident());
    println!("processor time while idle: {:.0} ms in {PAUSE:?}", processor * 1e3);
    drop(handlers);
}

/// Resident memory. What is mapped from files the kernel takes back when it needs room.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
    };
    let (all, files) = (mib("VmRSS:"), mib("RssFile:"));
    format!("{all} MiB resident, {files} MiB of them mapped from files")
}

/// Processor time of all threads of the process.
fn process_processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| schedstat_seconds(&task.path().join("schedstat"))).sum()
}

/// What one round showed: seconds per call on each thread, by the clock and by the processor time it got.
#[derive(Clone, Copy)]
struct Round {
    wall: f64,
    processor: f64,
}

/// What makes calls, one after the other, on one thread.
trait Calls: Sync {
    /// Makes the calls of one thread until the end, and says how many.
    fn until(&self, call: &Call, end: Instant) -> u64;
}

fn round(runtime: &Runtime, handler: &impl Calls, threads: usize) -> Round {
    let started = Instant::now();
    let work = || {
        // As in a host, no two threads handle the same message.
        let call = call();
        let _entered = runtime.enter();
        let processor_before = processor_seconds();
        let calls = handler.until(&call, started + ROUND);
        (calls as f64, processor_seconds() - processor_before)
    };
    let (calls, processor) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let each = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        each.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    Round { wall: started.elapsed().as_secs_f64() * threads as f64 / calls, processor: processor / calls }
}

/// Processor time of this thread. Differs from the clock where the machine has other work.
fn processor_seconds() -> f64 {
    schedstat_seconds(Path::new("/proc/thread-self/schedstat"))
}

fn schedstat_seconds(path: &Path) -> f64 {
    let schedstat = std::fs::read_to_string(path).unwrap_or_default();
    schedstat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

impl Calls for Handler {
    fn until(&self, call: &Call, end: Instant) -> u64 {
        batches_until(end, || {
            let effects = poll_to_end(self.call(call.clone())).expect("the guest does not fail");
            assert_eq!((effects.outputs.len(), effects.writes.len()), (1, 1));
        })
    }
}

/// wasmtime's own call.
struct Bare {
    module: bare::Bare,
    mode: Mode,
}

impl Calls for Bare {
    fn until(&self, call: &Call, end: Instant) -> u64 {
        let start = || poll_to_end(self.module.start()).expect("the guest starts");
        let mut warm = start();
        batches_until(end, || match self.mode {
            Mode::Fresh => poll_to_end(start().call(call)).expect("the guest does not fail"),
            Mode::Warm => poll_to_end(warm.call(call)).expect("the guest does not fail"),
        })
    }
}

fn batches_until(end: Instant, mut one: impl FnMut()) -> u64 {
    const BATCH: u64 = 64;
    let mut calls = 0;
    while Instant::now() < end {
        (0..BATCH).for_each(|_| one());
        calls += BATCH;
    }
    calls
}

/// As a shard does: polled in place, and done at once unless the system took the processor away meanwhile.
fn poll_to_end<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// Prints what a call took, and returns its processor time in seconds.
fn report(name: &str, threads: usize, rounds: impl Iterator<Item = Round>) -> f64 {
    let rounds: Vec<Round> = rounds.collect();
    let sorted = |value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (wall, processor) = (sorted(|round| round.wall), sorted(|round| round.processor));
    let middle = rounds.len() / 2;
    println!(
        "{name:<5} on {threads} thread(s): {:6.2} µs a call ({:.2} to {:.2} in {ROUNDS} rounds), {:.2} µs of processor time; {:.0} calls/s",
        wall[middle] * 1e6,
        wall[0] * 1e6,
        wall[middle * 2] * 1e6,
        processor[middle] * 1e6,
        threads as f64 / wall[middle],
    );
    processor[middle]
}

fn call() -> Call {
    let key = Key::parse("ada").expect("it is short");
    let mut new = NewMessage::new(Topic::parse("events.new_order").expect("it is a topic"), EVENT);
    new.id = Some("0f8b1c".into());
    let state: Entries =
        [("totals".into(), Bytes::from_static(br#"{"orders":17,"amount_cents":123456}"#))].into_iter().collect();
    Call {
        message: Arc::new(Message::from_new(new, Offset(7), Timestamp(1_700_000_000_000))),
        key,
        attempt: 1,
        state,
        delayed_room: DelayedRoom::ANY,
    }
}
