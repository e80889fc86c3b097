//! The search for the message that cannot be committed, where it is only in the log.

use super::*;
use sluicebox::log::ReadRequest;

/// Works off what it can; after a refused commit it claims again. How many commits were refused.
fn work_off(setup: &Setup, log: &mut MemoryCore, mut shard: Shard) -> usize {
    let mut refused = 0;
    for _ in 0..100 {
        // As an actor does: runs first, then what is missing, then the commit.
        while let Some(run) = shard.next_run(NOW) {
            let mut effects = Effects::default();
            effects.outputs.push(Outgoing {
                topic: Topic::parse("out").unwrap(),
                key: None,
                id: None,
                headers: Headers::default(),
                body: run.call.message.body.clone(),
                delay: None,
            });
            shard.finish(run.lane, Ok(effects), None, 0.5, NOW);
        }
        let needs = shard.take_needs();
        if let Some(commit) = shard.stage() {
            if commit.outputs.iter().any(|output| output.body == "boom") {
                refused += 1;
                let caution = shard.caution_after_refusal("it cannot be written");
                shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), caution);
                continue;
            }
            log.commit(commit, NOW).unwrap();
            shard.committed();
        }
        let route = |message: &Arc<Message>| setup.routing.route(message);
        let fetched = log.fetch(&needs.fetch).into_iter().map(|message| message.as_ref().map(route));
        shard.fetched(needs.fetch.iter().copied().zip(fetched).collect());
        if let Some(scan) = needs.scan {
            let (messages_max, bytes_max) = (10, scan.bytes_max);
            let (after, upto, patterns) = (scan.after, scan.upto, setup.routing.patterns_after(scan.after));
            let batch = log.read(&ReadRequest { after, upto, patterns, messages_max, bytes_max });
            shard.scanned(scan, batch.messages.iter().map(route).collect(), batch.upto);
        }
    }
    assert_eq!(shard.open_len(), 0, "after {refused} refused commits something is still open");
    refused
}

#[test]
fn a_message_that_cannot_be_committed_is_found_where_the_rest_of_its_key_is_only_in_the_log() {
    let setup = setup(OnFailure::Park, Bounds { lane_items_max: 1, ..Bounds::default() });
    let mut log = MemoryCore::default();
    let bodies = ["first", "ok", "boom", "ok"];
    let message = |body: &str| NewMessage {
        key: Key::parse("k").unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), body.to_owned())
    };
    let appended = log.append(bodies.map(message).into(), NOW).unwrap().messages;
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    appended.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Ok(Effects::default()), None, 0.5, NOW);
    let left = record(&mut shard, &mut log);
    assert_eq!((left.open.len(), left.open[0].scope), (1, HeadScope::After));
    // The host restarts, and has all of it in one commit, as it may have with larger lanes.
    let setup = Setup { bounds: Bounds::default(), ..setup };
    let shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    let refused = work_off(&setup, &mut log, shard);
    let dead: Vec<_> = log.dead(&DeadQuery::newest(DeadFilter::default(), 10)).into_iter().collect();
    assert_eq!((dead.len(), dead[0].letter.kind.as_str(), refused), (1, "uncommittable", 2));
}

#[test]
fn after_a_refused_commit_what_is_only_in_the_log_is_committed_one_by_one_too() {
    let bounds = Bounds { lane_items_max: 1, ..Bounds::default() };
    let (mut shard, mut log, mut messages) = shard(setup(OnFailure::Park, bounds), 3);
    shard.offer(messages.pop_front().unwrap());
    let first = shard.next_run(NOW).unwrap();
    messages.iter().cloned().for_each(|message| shard.offer(message));
    shard.finish(first.lane, Ok(Effects::default()), None, 0.0, NOW);
    let record = record(&mut shard, &mut log);
    assert_eq!(record.open.iter().map(|head| head.scope).collect::<Vec<_>>(), [HeadScope::After]);

    // A commit of the others was refused: which of them is to blame shows only if each is tried alone.
    let caution = Caution { upto: record.read, ..Caution::default() };
    let bounds = Bounds::default();
    let mut shard = Shard::new(setup(OnFailure::Park, bounds), log.claim(shard.id(), Offset::START), caution.clone());
    let scan = shard.take_needs().scan.unwrap();
    shard.scanned(scan, messages.into(), record.read);
    assert_eq!(*shard.caution(), caution, "whoever claims it now is to go on so");
    let second = shard.next_run(NOW).unwrap();
    shard.finish(second.lane, Ok(Effects::default()), None, 0.0, NOW);
    assert!(shard.next_run(NOW).is_none(), "two messages would share a commit");
}

#[test]
fn one_message_per_commit_holds_until_all_that_was_refused_was_read_again() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let mut log = MemoryCore::default();
    let message = |number: u8| NewMessage {
        key: Key::parse(&format!("k{number}")).unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), "")
    };
    let appended = log.append((0..3).map(message).collect(), NOW).unwrap().messages;
    let caution = Caution { upto: appended[2].offset, ..Caution::default() };
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), caution.clone());
    for message in &appended {
        shard.take_needs();
        assert_eq!(*shard.caution(), caution, "nothing of it is under way, and some is still to be read");
        shard.offer(setup.routing.route(message));
        let run = shard.next_run(NOW).unwrap();
        shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
        record(&mut shard, &mut log);
    }
    assert_eq!(*shard.caution(), Caution::default());
}
