//! Marks of shards that share a bound.

use super::*;
use sluicebox::handler::Dedup;

const WINDOW: Duration = Duration::from_secs(60);
const MARKS_MAX: usize = 20;

/// Two shards of one handler, and a log.
fn two_shards() -> ([Shard; 2], MemoryCore, Setup) {
    let mut setup = setup(OnFailure::Park, Bounds::default());
    let dedup = Some(Dedup { window: WINDOW, marks_max: MARKS_MAX, ..Dedup::default() });
    setup.policy = Arc::new(Policy { dedup, ..Policy::clone(&setup.policy) });
    setup.routing = Arc::new(Routing { shards: 2, ..Routing::clone(&setup.routing) });
    let mut log = MemoryCore::default();
    let shards = [0, 1].map(|index| {
        let id = ShardId { index, ..setup.id.clone() };
        let claim = log.claim(&id, Offset::START);
        Shard::new(Setup { id, ..setup.clone() }, claim, Caution::default())
    });
    (shards, log, setup)
}

fn append(log: &mut MemoryCore, at: Timestamp, ids: impl Iterator<Item = String>) -> Vec<Arc<Message>> {
    let message = |id: String| NewMessage {
        key: Key::parse(&id).unwrap(),
        id: Some(id.as_str().into()),
        ..NewMessage::new(Topic::parse("in").unwrap(), "body")
    };
    log.append(ids.map(message).collect(), at).unwrap().messages
}

/// Has the messages done, and returns how many ran and how many marks went early.
fn done(shard: &mut Shard, log: &mut MemoryCore, setup: &Setup, messages: &[Arc<Message>]) -> (usize, u64) {
    let mut ran = 0;
    messages.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    while let Some(run) = shard.next_run(NOW) {
        shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
        ran += 1;
    }
    log.commit(shard.stage().unwrap(), NOW).unwrap();
    (ran, shard.committed().marks_evicted)
}

#[test]
fn marks_of_a_shard_that_hears_nothing_push_none_out_that_another_shard_still_needs() {
    let ([mut quiet, mut busy], mut log, setup) = two_shards();
    let first = append(&mut log, NOW, (0..MARKS_MAX).map(|number| format!("quiet{number}")));
    assert_eq!(done(&mut quiet, &mut log, &setup, &first), (MARKS_MAX, 0));
    let later = NOW.after(2 * WINDOW);
    let next = append(&mut log, later, (0..MARKS_MAX).map(|number| format!("busy{number}")));
    // It is told how far the log is, and nothing is written for it.
    assert_eq!(quiet.passed(next[0].offset, later), MARKS_MAX);
    assert!(quiet.stage().is_none());
    assert_eq!(done(&mut busy, &mut log, &setup, &next), (MARKS_MAX, 0), "marks inside the window went");
    let again = append(&mut log, later, (0..MARKS_MAX).map(|number| format!("busy{number}")));
    assert_eq!(done(&mut busy, &mut log, &setup, &again).0, 0, "the second of two twins ran");
}

#[test]
fn a_mark_that_a_waiting_message_may_need_stays_however_far_the_log_is() {
    for settled in [false, true] {
        let ([mut shard, _], mut log, setup) = two_shards();
        let first = append(&mut log, NOW, ["twin".to_owned()].into_iter());
        done(&mut shard, &mut log, &setup, &first);
        // Its twin came in time, and waits: taken up only, or also written down.
        let twin = append(&mut log, NOW, ["twin".to_owned()].into_iter());
        shard.offer(setup.routing.route(&twin[0]));
        if settled {
            shard.reached(shard.read(), true);
            log.commit(shard.stage().unwrap(), NOW).unwrap();
            shard.committed();
        }
        let upto = Offset(twin[0].offset.0 + 10);
        assert_eq!(shard.passed(upto, NOW.after(10 * WINDOW)), 0, "the mark went before the twin was settled");
        assert!(shard.next_run(NOW).is_none(), "it ran again");
        log.commit(shard.stage().unwrap(), NOW).unwrap();
        shard.committed();
        assert_eq!(shard.marks_len(), 0, "now nobody needs it");
    }
}

#[test]
fn a_mark_goes_no_earlier_than_its_window_says() {
    let ([mut shard, _], mut log, setup) = two_shards();
    let first = append(&mut log, NOW, ["id".to_owned()].into_iter());
    done(&mut shard, &mut log, &setup, &first);
    let due = shard.marks_due().unwrap();
    assert_eq!(due, NOW.after(WINDOW + Duration::from_millis(1)));
    assert_eq!(shard.passed(Offset(50), NOW.after(WINDOW)), 0);
    assert_eq!(shard.passed(Offset(51), due), 1);
    assert_eq!(shard.marks_due(), None);
}

#[test]
fn a_place_behind_what_was_taken_up_says_nothing_about_marks() {
    let ([mut shard, _], mut log, setup) = two_shards();
    let messages = append(&mut log, NOW, ["first".to_owned(), "second".to_owned()].into_iter());
    done(&mut shard, &mut log, &setup, &messages);
    let late = NOW.after(10 * WINDOW);
    assert_eq!((shard.passed(messages[0].offset, late), shard.marks_len()), (0, 2));
    assert_eq!(shard.passed(messages[1].offset, late), 2);
}

#[test]
fn marks_go_little_later_than_their_window_and_are_not_looked_for_all_the_time() {
    let ([shard, _], ..) = two_shards();
    let slack = shard.marks_slack();
    assert!(slack > Duration::ZERO && slack <= WINDOW / 10, "{slack:?}");
}

#[test]
fn after_ids_came_to_mean_something_else_a_message_that_was_never_done_runs() {
    let (_, mut log, mut setup) = two_shards();
    setup.routing = Arc::new(Routing {
        shards: 1,
        identity: Since { after: Offset::START, time: NOW },
        ..Routing::clone(&setup.routing)
    });
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    let messages = append(&mut log, NOW.after(WINDOW / 2), ["new".to_owned()].into_iter());
    assert_eq!(done(&mut shard, &mut log, &setup, &messages).0, 1);
}
