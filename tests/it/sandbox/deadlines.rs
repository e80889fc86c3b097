//! A guest is stopped when its time is over, whatever it does, and others do not wait for it.

use super::*;
use sluicebox::clock;
use std::task::{Context, Poll, Waker};

const LIMIT: Duration = Duration::from_millis(200);
/// Far above two ticks (4 ms): the machine may be busy with other tests.
const SLACK: Duration = Duration::from_secs(2);

fn limited(handler: &str) -> Handler {
    hostile(Settings { timeout: LIMIT, ..settings(handler) })
}

#[track_caller]
fn check_stopped(result: Result<Effects, Failure>, took: Duration) {
    assert_eq!(result, Err(Failure::Timeout { limit: LIMIT }));
    assert!(took >= LIMIT && took < LIMIT + SLACK, "stopped after {took:?}");
}

// One thread for everything, so that a guest that never yields would stop the neighbours too.
#[tokio::test(flavor = "current_thread")]
async fn a_spinning_guest_is_stopped_at_its_deadline_and_its_neighbours_go_on() {
    let (spinning, good) = (limited("spinning"), fresh("neighbour"));
    run(&good, "ok").await.unwrap();
    let started = clock::instant();
    let spin = tokio::spawn(async move { (run(&spinning, "spin").await, started.elapsed()) });
    let mut handled = 0;
    while !spin.is_finished() {
        run(&good, "ok").await.unwrap();
        handled += 1;
        tokio::task::yield_now().await;
    }
    let (result, took) = spin.await.unwrap();
    check_stopped(result, took);
    assert!(handled > 10, "only {handled} messages were handled beside a spinning guest");
}

#[tokio::test]
async fn a_guest_that_waits_in_a_host_call_is_stopped_at_its_deadline() {
    let handler = limited("waiting");
    let started = clock::instant();
    let result = run(&handler, "wait").await;
    check_stopped(result, started.elapsed());
}

#[tokio::test]
async fn a_guest_that_naps_holds_no_thread() {
    let handler = fresh("napping");
    run(&handler, "ok").await.unwrap();
    let started = clock::instant();
    let naps = (0..32).map(|_| run(&handler, "nap 100"));
    for result in futures_util::future::join_all(naps).await {
        result.unwrap();
    }
    let took = started.elapsed();
    assert!(took < 32 * Duration::from_millis(100) / 2, "32 naps of 100 ms on one thread took {took:?}");
}

#[tokio::test]
async fn a_warm_sandbox_that_timed_out_is_not_used_again() {
    let handler = hostile(Settings { timeout: LIMIT, mode: Mode::Warm, ..settings("warm-timeout") });
    assert_eq!(answer(&handler, "seen").await, "1");
    assert_eq!(answer(&handler, "seen").await, "2");
    assert_eq!(run(&handler, "spin").await, Err(Failure::Timeout { limit: LIMIT }));
    assert_eq!(answer(&handler, "seen").await, "1");
}

#[tokio::test]
async fn a_call_that_finds_no_room_waits_for_it() {
    let sandboxes = Sandboxes::new(&Pool { running: 4, idle: 0, cache: None }, LINES.sink()).unwrap();
    let module = sandboxes.load(&guests::bytes("hostile")).unwrap();
    let handler = sandboxes.handler(&module, settings("crowd")).unwrap();
    let crowd = (0..40).map(|_| run(&handler, "nap 5"));
    for result in futures_util::future::join_all(crowd).await {
        result.unwrap();
    }
    assert_eq!(sandboxes.permits().available_permits(), 4);

    let all = sandboxes.permits().clone().acquire_many_owned(4).await.unwrap();
    let late = sandboxes.handler(&module, Settings { timeout: LIMIT, ..settings("late") }).unwrap();
    // Waiting for room is not the guest's time: it costs no attempt, however long the others take.
    let mut waiting = std::pin::pin!(run(&late, "ok"));
    assert!(tokio::time::timeout(LIMIT * 2, &mut waiting).await.is_err(), "there was no room for it");
    drop(all);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_short_call_completes_at_the_first_poll() {
    for handler in [fresh("inline-fresh"), warm("inline-warm")] {
        run(&handler, "ok").await.unwrap();
        let completed = (0..200).filter(|_| {
            let mut future = handler.call(call("count"));
            matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
        });
        // Not all of them: the system may take the processor away for longer than a tick in the middle of one.
        assert!(completed.count() > 150);
    }
}
