//! A shard that waits takes no turns meanwhile. They are counted by looks at the clock, of which each turn takes at least
//! one: a shard that only seems to wait would not even let the time of these tests go on.

use super::{Run, in_seed, key, pass};
use sluicebox::clock;
use sluicebox::control::Command;
use sluicebox::log::Log as _;
use sluicebox::message::NewMessage;
use sluicebox::topic::Topic;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// In an hour without work. A shard may look again every ten seconds, and that a few times.
const LOOKS_MAX: usize = 2_000;
/// A shard that spins panics here: then time goes on and the test can fail.
const LOOKS_END: usize = 200_000;
const HOUR: Duration = Duration::from_secs(3600);

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

fn counted() -> Instant {
    LOOKS.set(LOOKS.get() + 1);
    assert!(LOOKS.get() < LOOKS_END, "somebody looks at the clock again and again");
    tokio::time::Instant::now().into_std()
}

/// One handler with one shard, over a log that only takes its time, and a message of it whose retry was due long ago when
/// the handler's host starts again. Meanwhile an operator says this.
async fn with_a_retry_that_is_due(command: Command) -> Run {
    LOOKS.set(0);
    clock::simulated::begin(counted);
    let mut run = Run::new(1);
    run.hosts.truncate(1);
    run.handlers.truncate(1);
    run.handlers[0].shards = 1;
    // Nothing else shuts it.
    run.handlers[0].policy.breaker = None;
    run.log.mend();
    run.start().await;
    let message = NewMessage { key: Some(key(0)), ..NewMessage::new(Topic::parse("in.a").unwrap(), "fail 2") };
    run.log.append(vec![message]).await.unwrap();
    while run.log.kept().status().await.unwrap().iter().all(|shard| shard.open == 0) {
        pass(Duration::from_millis(1)).await;
    }
    run.hosts[0].take().unwrap().stop().await;
    run.command(0, command).await;
    pass(Duration::from_secs(60)).await;
    run
}

async fn check_an_hour_without_work(mut run: Run) {
    LOOKS.set(0);
    run.start().await;
    pass(HOUR).await;
    let looks = LOOKS.get();
    assert!(looks < LOOKS_MAX, "{looks} looks at the clock in an hour without work");
    let open: u64 = run.log.kept().status().await.unwrap().iter().map(|shard| shard.open).sum();
    assert_eq!(open, 1, "it did not wait");
    // So that it can do what it is to do.
    LOOKS.set(0);
    run.log.release_commands();
    run.settle().await.unwrap();
}

#[test]
fn a_shard_that_waits_for_what_operators_said_takes_no_turns_meanwhile() {
    in_seed(1, async {
        let run = with_a_retry_that_is_due(Command::ResumeKey { key: key(1) }).await;
        // Before it is heard nothing may run, whatever is due.
        run.log.hold_commands();
        check_an_hour_without_work(run).await;
    });
}

#[test]
fn a_shard_whose_handler_is_paused_takes_no_turns_while_a_retry_is_due() {
    in_seed(1, async {
        let run = with_a_retry_that_is_due(Command::Pause).await;
        check_an_hour_without_work(run).await;
    });
}

#[test]
fn a_shard_whose_handler_is_tripped_takes_no_turns_while_a_retry_is_due() {
    in_seed(1, async {
        let run = with_a_retry_that_is_due(Command::Trip).await;
        check_an_hour_without_work(run).await;
    });
}
