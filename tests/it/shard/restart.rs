//! What a shard makes of the heads that an earlier one wrote, and of the time at which something was delayed.

use super::*;
use sluicebox::handler::Digest;
use sluicebox::routing::reserved;

#[test]
fn after_a_restart_a_retry_waits_on_unless_another_module_is_in_force() {
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        // Which module failed, which one is in force, and whether it is tried at once.
        let cases = [(Some(one), Some(one), false), (Some(one), Some(two), true), (None, Some(one), false)];
        for (failed, in_force, at_once) in cases {
            let setup = Setup { digest: in_force, ..setup(on_failure, Bounds::default()) };
            let (mut shard, mut log, mut messages) = shard(setup.clone(), 1);
            shard.offer(messages.pop_front().unwrap());
            let run = shard.next_run(NOW).unwrap();
            let failure = Failure::Retry { reason: "down".into(), after: None };
            shard.finish(run.lane, Err(failure), failed, 0.5, NOW);
            record(&mut shard, &mut log);
            let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
            shard.wake(NOW);
            while answer(&mut shard, &log, &setup) {}
            let tried = shard.next_run(NOW).map(|run| run.call.attempt);
            assert_eq!(tried, at_once.then_some(2), "{on_failure:?}: {failed:?} failed, {in_force:?} is in force");
        }
    }
}

#[test]
fn what_a_publisher_delays_is_due_by_the_log_and_what_a_handler_delays_by_its_run() {
    let (own, others) = (HandlerName::delay(), HandlerName::parse("h").unwrap());
    let delayed = reserved::delayed_topic();
    let minute = Duration::from_secs(60);
    let cases =
        [(&own, delayed.clone(), NOW), (&others, delayed, LATER), (&others, Topic::parse("in").unwrap(), LATER)];
    for (handler, topic, since) in cases {
        let mut setup = setup(OnFailure::Park, Bounds::default());
        setup.id.handler = handler.clone();
        let mut log = MemoryCore::default();
        let appended = log.append(vec![NewMessage::new(topic.clone(), "")], NOW).unwrap().messages;
        let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
        shard.offer(setup.routing.route(&appended[0]));
        let run = shard.next_run(LATER).unwrap();
        let output = Outgoing {
            topic: Topic::parse("out").unwrap(),
            key: None,
            id: None,
            headers: Headers::default(),
            body: "".into(),
            delay: Some(minute),
        };
        shard.finish(run.lane, Ok(Effects { outputs: vec![output], ..Effects::default() }), None, 0.0, LATER);
        let dues: Vec<Timestamp> = shard.stage().unwrap().delayed_put.iter().map(|delayed| delayed.due).collect();
        assert_eq!(dues, [since.after(minute)], "{handler} on {topic}");
    }
}
