//! The processor is shared between handlers: one that is flooded and computes without pause leaves the others theirs.

use super::*;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sluicebox::clock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Waker};
use tokio::task::JoinSet;

/// Tasks of a handler, like its shards.
const TASKS: usize = 8;
const TURN: Duration = Duration::from_micros(500);
const WINDOW: Duration = Duration::from_millis(500);
const ROUNDS: usize = 3;

/// Sandboxes of a host of their own: the other tests have theirs.
fn sandboxes() -> (Sandboxes, Module) {
    let sandboxes = Sandboxes::new(&Pool { running: 400, idle: 0, cache: None }, LINES.sink()).unwrap();
    let module = sandboxes.load(&guests::bytes("hostile")).unwrap();
    (sandboxes, module)
}

/// A handler that always has so many messages to handle, until this is dropped.
struct Flooded {
    handled: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Flooded {
    /// As many runs at once in each task.
    fn start(handler: &Handler, tasks: usize, runs: usize, order: &str) -> Self {
        let handled = Arc::new(AtomicU64::new(0));
        let mut started = JoinSet::new();
        for _ in 0..tasks {
            let (handler, order, handled) = (handler.clone(), order.to_owned(), handled.clone());
            started.spawn(async move {
                let mut pending: FuturesUnordered<_> = (0..runs).map(|_| handler.call(call(&order))).collect();
                let mut turn = clock::instant();
                while pending.next().await.is_some() {
                    handled.fetch_add(1, Relaxed);
                    pending.push(handler.call(call(&order)));
                    // As a shard does after each turn.
                    if turn.elapsed() > TURN {
                        tokio::task::yield_now().await;
                        turn = clock::instant();
                    }
                }
            });
        }
        Self { handled, _tasks: started }
    }

    /// Messages handled in a second, looking for a while.
    async fn rate(&self) -> f64 {
        let (before, started) = (self.handled.load(Relaxed), clock::instant());
        let _ = tokio::time::timeout(WINDOW, std::future::pending::<()>()).await;
        (self.handled.load(Relaxed) - before) as f64 / started.elapsed().as_secs_f64()
    }
}

/// What a fast handler does alone, and beside a flood of runs that never end before their deadline.
async fn check_share(order: &str) {
    let (sandboxes, module) = sandboxes();
    let limit = Duration::from_millis(300);
    let spinning = sandboxes.handler(&module, Settings { timeout: limit, ..settings("spinning") }).unwrap();
    let fast = sandboxes.handler(&module, settings("fast")).unwrap();
    let fast = Flooded::start(&fast, TASKS, 1, "count");
    let (mut alone, mut beside, mut stopped) = (0.0, 0.0, 0.0);
    // In turns, so that what else the machine does meets both.
    for _ in 0..ROUNDS {
        alone += fast.rate().await;
        let spinning = Flooded::start(&spinning, TASKS, 32, order);
        beside += fast.rate().await;
        stopped += spinning.rate().await;
    }
    let rates = format!("{alone:.0} alone, {beside:.0} beside {stopped:.0} runs of `{order}` stopped");
    println!("fast handler, messages in {ROUNDS} s: {rates}");
    // Half would be fair. Without turns it is less than a hundredth.
    assert!(beside > alone / 4.0, "{rates}");
    assert!(stopped > 0.0, "they end at their deadline, turn or no turn: {rates}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_spinning_runs_leaves_a_fast_handler_its_share() {
    check_share("spin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_waits_for_a_moment_now_and_then_gets_no_more() {
    check_share("dodge").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_starts_many_spinning_runs_is_soon_back() {
    let (sandboxes, module) = sandboxes();
    let handler = sandboxes.handler(&module, settings("started")).unwrap();
    run(&handler, "ok").await.unwrap();
    let mut runs = vec![];
    let slow = (0..64).filter(|_| {
        let started = clock::instant();
        let mut future = handler.call(call("spin"));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        runs.push(future);
        started.elapsed() > Duration::from_millis(1)
    });
    // As many as there are slots have one each, as many and one more wait for one, and the others have not begun. Twice
    // that, because the machine may be busy.
    let (slow, slots) = (slow.count(), std::thread::available_parallelism().unwrap().get());
    println!("{slow} of 64 runs computed when they were started");
    assert!(slow <= 2 * (2 * slots + 1), "{slow} of 64 runs computed, one after the other");
    drop(runs);
    run(&handler, "ok").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_of_a_handler_gets_as_much_as_sixty_four_of_another() {
    let (sandboxes, module) = sandboxes();
    let handler = |name| sandboxes.handler(&module, settings(name)).unwrap();
    let (many, one) = (handler("many"), handler("one"));
    let order = format!("work {}", iterations(&one).await);
    let (many, one) = (Flooded::start(&many, TASKS, 8, &order), Flooded::start(&one, 1, 1, &order));
    let (mut of_many, mut of_one) = (0.0, 0.0);
    // All of the many make progress together, so they end together: seen long enough it is even.
    for _ in 0..3 * ROUNDS {
        let (rate_of_many, rate_of_one) = tokio::join!(many.rate(), one.rate());
        of_many += rate_of_many;
        of_one += rate_of_one;
    }
    // One run computes on one core at most.
    let cores = std::thread::available_parallelism().unwrap().get();
    let fair = (of_many + of_one) / cores.max(2) as f64;
    let rates = format!("{of_many:.1} of many, {of_one:.1} of one, {fair:.1} would be fair on {cores} cores");
    println!("pieces of work in {} s: {rates}", 3 * ROUNDS);
    assert!(of_one > fair * 0.4, "the one starves: {rates}");
    assert!(of_many > of_one * 0.3, "the many starve: {rates}");
}

/// How much work takes some five ticks.
async fn iterations(handler: &Handler) -> u64 {
    let mut iterations = 500_000;
    loop {
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let started = clock::instant();
            run(handler, &format!("work {iterations}")).await.unwrap();
            shortest = shortest.min(started.elapsed());
        }
        if shortest > Duration::from_millis(8) {
            return iterations;
        }
        iterations = iterations * 3 / 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_wait_for_their_turn_are_stopped_at_their_deadline() {
    let (sandboxes, module) = sandboxes();
    let limit = Duration::from_millis(300);
    let handler = sandboxes.handler(&module, Settings { timeout: limit, ..settings("crowd") }).unwrap();
    let started = clock::instant();
    let runs = (0..64).map(|_| tokio::spawn(handler.call(call("spin"))));
    for result in futures_util::future::join_all(runs).await {
        assert_eq!(result.unwrap(), Err(Failure::Timeout { limit }));
    }
    let took = started.elapsed();
    // Each has a first turn of two ticks before its time begins; one after the other they would take 20 s.
    assert!(took > limit && took < Duration::from_secs(10), "{took:?}");
    // All slots are there again.
    run(&handler, "ok").await.unwrap();
    assert_eq!(run(&handler, "spin").await, Err(Failure::Timeout { limit }));
}
