//! Operators' orders about dead letters.

use super::*;
use sluicebox::commit::{DeadAction, DeadJob};
use sluicebox::control::{Applied, Command};

/// Answers what the shard asks for until its commit is written, and says what the log answered.
fn commit_next(shard: &mut Shard, log: &mut MemoryCore, poison: Option<&str>) -> Option<Result<(), Caution>> {
    for _ in 0..4 {
        if let Some(query) = shard.take_needs().dead {
            shard.dead_found(log.dead(&query));
        }
    }
    let commit = shard.stage()?;
    if commit.outputs.iter().any(|output| poison.is_some_and(|poison| output.body == poison)) {
        return Some(Err(shard.caution_after_refusal("poison")));
    }
    log.commit(commit, NOW).unwrap();
    shard.committed();
    Some(Ok(()))
}

#[test]
fn an_order_about_the_letters_of_one_shard_leaves_those_of_others() {
    let (mut shard, mut log, mut messages) = shard(setup(OnFailure::Park, Bounds::default()), 1);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Err(Failure::Reject { reason: "no".into() }), None, 0.5, NOW);
    record(&mut shard, &mut log);
    for (offset, index, dropped) in [(100, 1, 0), (101, 0, 1)] {
        let filter = DeadFilter { shard: Some(index), upto: Some(u64::MAX), ..DeadFilter::default() };
        shard.command(Offset(offset), Command::DropDead { filter }, NOW);
        if let Some(query) = shard.take_needs().dead {
            shard.dead_found(log.dead(&query));
        }
        let commit = shard.stage();
        assert_eq!(commit.as_ref().map_or(0, |commit| commit.dead_drop.len()), dropped, "shard {index}");
        if commit.is_some() {
            shard.committed();
        }
    }
}

#[test]
fn a_letter_that_another_order_still_saw_returns_once() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let (mut shard, mut log, mut messages) = shard(setup, 1);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Err(Failure::Reject { reason: "no".into() }), None, 0.5, NOW);
    record(&mut shard, &mut log);
    let upto = log.dead(&DeadQuery::newest(DeadFilter::default(), 1)).first().map(|dead| dead.number);
    let filter = DeadFilter { upto, ..DeadFilter::default() };
    for offset in [100, 101] {
        shard.command(Offset(offset), Command::RetryDead { filter: filter.clone(), to: None }, NOW);
    }
    let asks = |shard: &mut Shard, log: &MemoryCore| log.dead(&shard.take_needs().dead.unwrap());
    let letters = asks(&mut shard, &log);
    shard.dead_found(letters);
    let commit = shard.stage().unwrap();
    assert_eq!(commit.outputs.len(), 1);
    // The first order is done, and the second one looks before the commit is written and hears when it is durable.
    let rest = asks(&mut shard, &log);
    shard.dead_found(rest);
    let seen = asks(&mut shard, &log);
    assert_eq!(seen.len(), 1);
    log.commit(commit, NOW).unwrap();
    shard.committed();
    shard.dead_found(seen);
    let rest = asks(&mut shard, &log);
    shard.dead_found(rest);
    assert_eq!(shard.stage().unwrap().outputs, vec![]);
}

#[test]
fn an_order_about_dead_letters_is_carried_out_after_a_refused_commit_but_for_the_letter_that_cannot_return() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let mut log = MemoryCore::default();
    let message = |number: usize| NewMessage {
        key: Key::parse(&format!("k{number}")).unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), number.to_string())
    };
    let appended = log.append((0..5).map(message).collect(), NOW).unwrap().messages;
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    appended.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    while let Some(run) = shard.next_run(NOW) {
        shard.finish(run.lane, Err(Failure::Reject { reason: "no".into() }), None, 0.5, NOW);
    }
    assert_eq!(commit_next(&mut shard, &mut log, None), Some(Ok(())));
    let all = |log: &MemoryCore| log.dead(&DeadQuery::newest(DeadFilter::default(), 100));
    let upto = all(&log).iter().map(|dead| dead.number).max();
    let filter = DeadFilter { upto, ..DeadFilter::default() };
    shard.command(Offset(100), Command::RetryDead { filter: filter.clone(), to: None }, NOW);
    let mut refused = 0;
    for _ in 0..50 {
        match commit_next(&mut shard, &mut log, Some("3")) {
            Some(Err(caution)) => {
                refused += 1;
                let claim = log.claim(&setup.id, Offset::START);
                shard = Shard::new(setup.clone(), claim, caution);
                if shard.control().jobs.is_empty() {
                    // It was in the commit that was refused: it is heard again.
                    shard.command(Offset(100), Command::RetryDead { filter: filter.clone(), to: None }, NOW);
                }
            }
            Some(Ok(())) => {}
            None => break,
        }
    }
    let left: Vec<_> = all(&log).into_iter().map(|dead| dead.letter.message.body.clone()).collect();
    assert_eq!(left, ["3"], "the others returned");
    assert!(shard.control().jobs.is_empty() && refused <= 3, "the order is done, refused {refused} times");
    assert_eq!(*shard.caution(), Caution::default(), "nothing is left to be tried");
}

#[test]
fn an_order_in_the_record_about_another_shards_letters_is_over_and_the_next_commit_says_so() {
    let (shard, mut log, _) = shard(setup(OnFailure::Park, Bounds::default()), 0);
    let id = shard.id().clone();
    let mut claim = log.claim(&id, Offset::START);
    let job = |command, shard| DeadJob {
        command,
        action: DeadAction::Drop,
        filter: DeadFilter { shard, ..DeadFilter::default() },
        to: None,
    };
    claim.record.control.jobs = vec![job(1, Some(1)), job(2, Some(0)), job(3, None)];
    let mut shard = Shard::new(setup(OnFailure::Park, Bounds::default()), claim, Caution::default());
    let jobs = shard.stage().unwrap().control.unwrap().jobs;
    assert_eq!(jobs.iter().map(|job| job.command).collect::<Vec<_>>(), [2, 3]);
}

/// A shard whose first message is a dead letter, told to return it, and the message that comes next.
fn with_a_letter(upto: Offset) -> (Shard, MemoryCore, Routed, u64) {
    let setup = setup(OnFailure::Park, Bounds::default());
    let (mut first, mut log, mut messages) = shard(setup.clone(), 2);
    first.offer(messages.pop_front().unwrap());
    let run = first.next_run(NOW).unwrap();
    first.finish(run.lane, Err(Failure::Reject { reason: "no".into() }), None, 0.5, NOW);
    record(&mut first, &mut log);
    let number = log.dead(&DeadQuery::newest(DeadFilter::default(), 1))[0].number;
    let caution = Caution { upto, ..Caution::default() };
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), caution);
    let filter = DeadFilter { upto: Some(number), ..DeadFilter::default() };
    shard.command(Offset(100), Command::RetryDead { filter, to: None }, NOW);
    (shard, log, messages.pop_front().unwrap(), number)
}

#[test]
fn a_letter_is_to_blame_for_a_refused_commit_only_if_it_was_alone_in_it() {
    for alone in [true, false] {
        let (mut shard, log, message, number) = with_a_letter(Offset::START);
        if !alone {
            shard.offer(message);
            let run = shard.next_run(NOW).unwrap();
            shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
        }
        let query = shard.take_needs().dead.unwrap();
        shard.dead_found(log.dead(&query));
        assert_eq!(shard.stage().unwrap().dead_drop, [number]);
        let caution = shard.caution_after_refusal("too large");
        assert_eq!(caution.letters.contains(&number), alone);
        assert_eq!(caution.uncommittable, None);
    }
}

#[test]
fn letters_that_come_while_a_message_is_committed_alone_are_asked_for_again() {
    let (mut shard, mut log, message, number) = with_a_letter(Offset(1_000));
    let query = shard.take_needs().dead.unwrap();
    shard.offer(message);
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
    shard.dead_found(log.dead(&query));
    let commit = shard.stage().unwrap();
    assert!(commit.dead_drop.is_empty(), "both would share a commit");
    log.commit(commit, NOW).unwrap();
    shard.committed();
    let query = shard.take_needs().dead.expect("the order is under way");
    shard.dead_found(log.dead(&query));
    assert_eq!(shard.stage().unwrap().dead_drop, [number]);
}

#[test]
fn a_key_is_paused_in_the_shard_that_it_belongs_to_and_in_no_other() {
    let key = Key::parse("k").unwrap().unwrap();
    for index in [0, 1] {
        let mut setup = setup(OnFailure::Park, Bounds::default());
        setup.id.index = index;
        setup.routing = Arc::new(Routing { shards: 2, ..Routing::clone(&setup.routing) });
        let is_its_own = setup.routing.shard_of(&key) == index;
        let (mut shard, _, _) = shard(setup, 0);
        let paused = shard.command(Offset(100), Command::PauseKey { key: key.clone() }, NOW);
        assert_eq!((paused, shard.control().paused_keys.contains(&key)), (Applied::Done, is_its_own), "shard {index}");
        let resumed = shard.command(Offset(101), Command::ResumeKey { key: key.clone() }, NOW);
        assert_eq!((resumed, shard.control().paused_keys.len()), (Applied::Done, 0), "shard {index}");
    }
}

#[test]
fn dead_letters_wait_until_the_commit_to_come_has_room_for_them() {
    // As many outcomes as a commit takes, beside the first message, which dies.
    const MESSAGES: usize = 4096 + 1;
    let bounds = Bounds { lane_items_max: MESSAGES, ..Bounds::default() };
    let (mut shard, mut log, mut messages) = shard(setup(OnFailure::Park, bounds), MESSAGES);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Err(Failure::Reject { reason: "no".into() }), None, 0.5, NOW);
    record(&mut shard, &mut log);
    messages.into_iter().for_each(|message| shard.offer(message));
    while let Some(run) = shard.next_run(NOW) {
        shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
    }
    let upto = log.dead(&DeadQuery::newest(DeadFilter::default(), 1)).first().map(|dead| dead.number);
    let filter = DeadFilter { upto, ..DeadFilter::default() };
    shard.command(Offset(100_000), Command::DropDead { filter }, NOW);
    assert!(shard.take_needs().dead.is_none());
    record(&mut shard, &mut log);
    assert!(shard.take_needs().dead.is_some());
}
