//! Waits that were written under a clock that was a year ahead.

use super::*;
use sluicebox::commit::Claim;

const AHEAD: Timestamp = Timestamp(NOW.0 + 365 * 24 * 3600 * 1000);

/// A record in which a message waits for its retry and another is delayed, both for a year.
fn put_off_for_a_year(on_failure: OnFailure) -> (Setup, MemoryCore) {
    let (setup, mut log) = (setup(on_failure, Bounds::default()), MemoryCore::default());
    let message = |key: &str| NewMessage {
        key: Key::parse(key).unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), key.to_owned())
    };
    let appended = log.append(vec![message("bad"), message("later")], AHEAD).unwrap().messages;
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    appended.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    while let Some(run) = shard.next_run(AHEAD) {
        let delayed = Outgoing {
            topic: Topic::parse("out").unwrap(),
            key: None,
            id: None,
            headers: Headers::default(),
            body: "delayed".into(),
            delay: Some(Duration::from_secs(60)),
        };
        let result = match &run.call.message.body[..] {
            b"bad" => Err(Failure::Retry { reason: "down".into(), after: None }),
            _ => Ok(Effects { outputs: vec![delayed], ..Effects::default() }),
        };
        shard.finish(run.lane, result, None, 0.5, AHEAD);
    }
    record(&mut shard, &mut log);
    (setup, log)
}

fn dues(claim: &Claim) -> Vec<Timestamp> {
    let heads = claim.record.open.iter().map(|head| head.due);
    heads.chain(claim.record.delayed.iter().map(|delayed| delayed.due)).collect()
}

#[test]
fn waits_that_a_claim_makes_shorter_are_written_so_that_the_next_one_does_not_begin_them_again() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let (setup, mut log) = put_off_for_a_year(on_failure);
        let claim = log.claim(&setup.id, Offset::START);
        assert!(dues(&claim).iter().all(|due| *due >= AHEAD), "{:?}", dues(&claim));
        let (mut shard, shortened) = Shard::claimed(setup.clone(), claim, Caution::default(), NOW);
        assert_eq!(shortened, 2, "{on_failure:?}");
        let commit = shard.stage().expect("what was shortened is to be written");
        log.commit(commit, NOW).unwrap();
        shard.committed();
        assert!(shard.stage().is_none(), "once is enough");
        let claim = log.claim(&setup.id, Offset::START);
        assert_eq!((claim.record.open.len(), claim.record.delayed.len()), (1, 1));
        let written = dues(&claim);
        let (_, shortened) = Shard::claimed(setup, claim, Caution::default(), LATER);
        assert_eq!(shortened, 0, "{on_failure:?}: {written:?}");
    }
}

#[test]
fn shorter_waits_are_written_although_nothing_else_is_to_be() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let (setup, mut log) = put_off_for_a_year(on_failure);
        let mut claim = log.claim(&setup.id, Offset::START);
        claim.record.delayed.clear();
        let (mut shard, shortened) = Shard::claimed(setup, claim, Caution::default(), NOW);
        assert_eq!(shortened, 1, "{on_failure:?}");
        let commit = shard.stage().expect("what was shortened is to be written");
        assert!(matches!(&commit.open_put[..], [head] if head.due < AHEAD), "{:?}", commit.open_put);
        log.commit(commit, NOW).unwrap();
        shard.committed();
        assert!(shard.stage().is_none(), "once is enough");
    }
}

#[test]
fn what_is_settled_before_a_shorter_wait_is_written_leaves_the_record() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let (setup, mut log) = put_off_for_a_year(on_failure);
        let claim = log.claim(&setup.id, Offset::START);
        let (mut shard, _) = Shard::claimed(setup.clone(), claim, Caution::default(), NOW);
        // Both are due now, or as good as.
        shard.wake(AHEAD);
        answer(&mut shard, &log, &setup);
        let run = shard.next_run(AHEAD).unwrap();
        shard.finish(run.lane, Ok(Effects::default()), None, 0.0, AHEAD);
        // Whether more of its key waits in the log.
        while answer(&mut shard, &log, &setup) {}
        let record = record(&mut shard, &mut log);
        assert_eq!((record.open.len(), record.delayed.len()), (0, 0), "{on_failure:?}");
        let outputs = log.read(&ReadRequest {
            after: Offset::START,
            upto: Offset::END,
            patterns: vec![Pattern::parse("out").unwrap()],
            messages_max: 10,
            bytes_max: usize::MAX,
        });
        assert_eq!(outputs.messages.len(), 1, "the delayed message came once");
    }
}

#[test]
fn the_search_for_what_cannot_be_committed_does_not_find_a_shorter_wait_beside_it() {
    let (setup, mut log) = put_off_for_a_year(OnFailure::Park);
    let claim = log.claim(&setup.id, Offset::START);
    let caution = Caution { upto: claim.record.read, ..Caution::default() };
    let (mut shard, shortened) = Shard::claimed(setup, claim, caution, NOW);
    assert_eq!(shortened, 2);
    let in_search = shard.stage();
    assert!(in_search.is_none_or(|commit| commit.delayed_put.is_empty()));
}
