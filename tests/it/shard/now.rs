//! What an operator does to what waits: it is due at once, or it goes.

use super::*;
use sluicebox::control::{Applied, Command};
use sluicebox::handler::Digest;

/// A shard whose one message has failed and waits; what it was in, and how the run named its offset.
fn waiting(on_failure: OnFailure) -> (Shard, MemoryCore, Offset) {
    let (mut shard, mut log, mut messages) = shard(setup(on_failure, Bounds::default()), 1);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    fail(&mut shard, &run);
    record(&mut shard, &mut log);
    (shard, log, run.call.message.offset)
}

fn retry_now(shard: &mut Shard, key: Option<&str>, offset: Option<Offset>) {
    let key = key.map(|key| Key::parse(key).unwrap().unwrap());
    let offset = offset.map(|offset| offset.0);
    let next = Offset(shard.controlled().0 + 10);
    assert_eq!(shard.command(next, Command::RetryNow { key, offset }, NOW), Applied::Done);
}

#[test]
fn what_waits_is_due_at_once_when_told_and_keeps_its_attempts() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        for (key, at) in [(None, false), (Some("k"), false), (None, true), (Some("k"), true)] {
            let (mut shard, _, offset) = waiting(on_failure);
            assert!(shard.next_run(NOW).is_none(), "it waits");
            retry_now(&mut shard, key, at.then_some(offset));
            let run = shard.next_run(NOW).unwrap_or_else(|| panic!("{on_failure:?} {key:?} {at}"));
            assert_eq!((run.call.message.offset, run.call.attempt), (offset, 2));
        }
    }
}

#[test]
fn only_what_is_named_is_due_at_once() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let (mut shard, _, offset) = waiting(on_failure);
        retry_now(&mut shard, Some("other"), None);
        retry_now(&mut shard, None, Some(Offset(offset.0 + 1)));
        retry_now(&mut shard, Some("other"), Some(offset));
        assert!(shard.next_run(NOW).is_none(), "{on_failure:?}");
    }
}

/// A successor after a crash must not wait again: the command will not be read again.
#[test]
fn the_commit_that_has_the_command_has_the_heads_that_are_due() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let (mut shard, mut log, _) = waiting(on_failure);
        retry_now(&mut shard, None, None);
        shard.reached(shard.read(), true);
        let record = record(&mut shard, &mut log);
        assert_eq!((record.controlled, record.open[0].due), (shard.controlled(), NOW), "{on_failure:?}");
        assert_eq!(record.open[0].attempt, 1);
    }
}

fn delaying(log: &mut MemoryCore, setup: &Setup) -> Shard {
    let message = NewMessage { key: Key::parse("k").unwrap(), ..NewMessage::new(Topic::parse("in").unwrap(), "") };
    let appended = log.append(vec![message], NOW).unwrap();
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    shard.offer(setup.routing.route(&appended.messages[0]));
    let run = shard.next_run(NOW).unwrap();
    let delayed = |seconds| Outgoing {
        topic: Topic::parse("out").unwrap(),
        key: None,
        id: None,
        headers: Headers::default(),
        body: "x".into(),
        delay: Some(Duration::from_secs(seconds)),
    };
    let effects = Effects { outputs: vec![delayed(1), delayed(2)], ..Effects::default() };
    shard.finish(run.lane, Ok(effects), None, 0.0, NOW);
    shard
}

#[test]
fn a_delayed_message_that_is_cancelled_never_comes_and_the_others_do() {
    for durable in [false, true] {
        let setup = setup(OnFailure::Park, Bounds::default());
        let mut log = MemoryCore::default();
        let mut shard = delaying(&mut log, &setup);
        if durable {
            assert_eq!(record(&mut shard, &mut log).delayed.len(), 2);
        }
        let cancel = |shard, number| Command::CancelDelayed { shard, number, id: None };
        shard.command(Offset(50), cancel(0, 1), NOW);
        shard.command(Offset(51), cancel(1, 2), NOW);
        shard.command(Offset(52), cancel(0, 99), NOW);
        let record = record(&mut shard, &mut log);
        assert_eq!(record.delayed.iter().map(|delayed| delayed.number).collect::<Vec<_>>(), [2], "{durable}");
        assert_eq!((record.controlled, shard.delayed().messages), (Offset(52), 1));
        shard.wake(LATER);
        assert_eq!(shard.stage().unwrap().outputs.len(), 1);
    }
}

#[test]
fn a_retry_that_was_made_due_and_failed_again_waits_by_its_new_time() {
    let (mut shard, _, offset) = waiting(OnFailure::Park);
    let first_due = shard.next_due().unwrap();
    retry_now(&mut shard, None, Some(offset));
    let run = shard.next_run(NOW).unwrap();
    let again = first_due.after(Duration::from_secs(1));
    let after = Some(again.since(NOW));
    shard.finish(run.lane, Err(Failure::Retry { reason: "down".into(), after }), None, 0.5, NOW);
    // Its earlier time comes first.
    shard.wake(first_due);
    assert!(shard.next_run(first_due).is_none() && !shard.expects_message());
    assert_eq!(shard.next_due(), Some(again));
}

#[test]
fn with_another_module_what_waits_is_due_at_once_and_goes_on_under_the_settings_in_force() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let (mut shard, _, offset) = waiting(on_failure);
        shard.swapped(Some(Digest::of(b"the fix")), NOW);
        let Retry { min, max, .. } = setup(on_failure, Bounds::default()).policy.retry;
        shard.adopt(Arc::new(Policy { on_failure, retry: Retry { attempts: 2, min, max }, ..Policy::default() }));
        let run = shard.next_run(NOW).unwrap();
        assert_eq!((run.call.message.offset, run.call.attempt), (offset, 2), "{on_failure:?}");
        fail(&mut shard, &run);
        let died: Vec<u32> = shard.stage().unwrap().dead.iter().map(|letter| letter.attempts).collect();
        assert_eq!(died, [2], "{on_failure:?}: it has no third try any more");
    }
}

#[test]
fn a_first_try_is_known_by_its_key_and_by_its_message_where_all_have_one_lane() {
    for key in [KeyFrom::Message, KeyFrom::All] {
        let mut setup = setup(OnFailure::Park, Bounds::default());
        setup.routing = Arc::new(Routing { key: key.clone(), ..Routing::clone(&setup.routing) });
        let (mut shard, _, messages) = shard(setup, 2);
        let mut tries = vec![];
        for message in messages {
            let offset = message.message.offset;
            shard.offer(message);
            let run = shard.next_run(NOW).unwrap();
            assert_eq!(
                shard.running(run.lane).map(|(routed, failed)| (routed.message.offset, failed)),
                Some((offset, 0))
            );
            shard.withdraw(run.lane);
            assert!(shard.running(run.lane).is_none(), "it did not take place");
            let run = shard.next_run(NOW).unwrap();
            tries.push(run.tries);
            shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
        }
        assert_eq!(tries[0] == tries[1], key == KeyFrom::Message, "{tries:?}");
    }
}

#[test]
fn a_message_that_gave_up_its_place_is_among_those_that_may_be_open() {
    let bounds = Bounds { open_max: 1, ..Bounds::default() };
    let (mut shard, mut log, mut messages) = shard(setup(OnFailure::Skip, bounds), 1);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    fail(&mut shard, &run);
    record(&mut shard, &mut log);
    assert_eq!((shard.open_len(), shard.wants_messages()), (1, false));
}
