//! Joining, joining again, and routings that change.

use super::*;

#[tokio::test]
async fn a_shard_gets_what_comes_after_the_offset_it_joined_at() {
    let rig = Rig::new(Options::default()).await;
    let appended = rig.append("t", 100).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), appended[39]);
    assert_eq!(take(&mut inbox, 60).await, appended[40..]);
    let newer = rig.append("t", 5).await;
    assert_eq!(take(&mut inbox, 5).await, newer);
}

#[tokio::test]
async fn joining_again_at_an_older_offset_delivers_from_there_and_ends_the_earlier_inbox() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut first = rig.reader.join(&shard("h", 0), Offset::START);
    let appended = rig.append("t", 20).await;
    assert_eq!(take(&mut first, 20).await, appended);
    rig.append("t", 20).await;
    settle().await;

    let mut second = rig.reader.join(&shard("h", 0), appended[9]);
    assert!(next(&mut first).await.is_none(), "what was in it is not wanted any more");
    drop(first);
    let all = rig.expected(&routing("h", &["t"], 1), &shard("h", 0), appended[9]).await;
    assert_eq!(take(&mut second, 30).await, all);
    assert!(second.try_next().is_none());
}

#[tokio::test]
async fn a_shard_that_joins_ahead_of_the_tail_gets_nothing_before_its_offset() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    // Nothing has run since: the dispatcher has seen none of these.
    let appended = [rig.append("t", 10).await, rig.append("t", 10).await].concat();
    let mut inbox = rig.reader.join(&shard("h", 0), appended[14]);
    assert_eq!(take(&mut inbox, 5).await, appended[15..]);
    assert_eq!(rig.log.reads(), 0);
}

#[tokio::test]
async fn messages_below_a_changed_subscription_are_routed_under_the_old_one() {
    for (live, topics_max) in [(true, 1), (false, 100)] {
        let rig = Rig::new(Options { topics_max, ..Options::default() }).await;
        let mut changing = routing("h", &["old"], 1);
        rig.reader.route(Arc::new(changing.clone()));
        rig.append("old", 1).await;
        settle().await;
        let mut inbox = live.then(|| rig.reader.join(&shard("h", 0), Offset::START));
        settle().await;

        // Appended before the change is recorded, dispatched after it is known here.
        let (old, new) = (rig.append("old", 3).await, rig.append("new", 3).await);
        changing.spans.push(span(new[2], &["new"]));
        rig.reader.route(Arc::new(changing.clone()));
        let (_, newer) = (rig.append("old", 3).await, rig.append("new", 3).await);

        let inbox = inbox.get_or_insert_with(|| rig.reader.join(&shard("h", 0), Offset::START));
        let got = take(inbox, 7).await;
        assert_eq!(got[1..], [old, newer].concat());
        settle().await;
        assert!(inbox.try_next().is_none_or(|delivery| delivery.messages.is_empty()));
    }
}

#[tokio::test]
async fn a_read_that_was_under_way_when_the_subscription_changed_is_done_again() {
    let rig = Rig::new(Options { recent_messages_max: 1, ..Options::default() }).await;
    let mut changing = routing("h", &["old"], 1);
    let before = rig.append("old", 3).await;
    rig.append("old", 3).await;
    let after = rig.append("new", 3).await;
    rig.append("other", 1).await;
    settle().await;
    rig.reader.route(Arc::new(changing.clone()));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    while rig.log.reads() == 0 {
        tokio::task::yield_now().await;
    }
    changing.spans.push(span(before[2], &["new"]));
    rig.reader.route(Arc::new(changing));
    assert_eq!(take(&mut inbox, 6).await, [before, after].concat());
}

#[tokio::test]
async fn a_removed_handler_gets_nothing_and_its_topics_are_not_read() {
    let rig = Rig::new(Options { recent_messages_max: 1, ..Options::default() }).await;
    let end = rig.append("t", 10).await[9];
    let mut removed = routing("h", &["t"], 1);
    removed.spans.push(span(end, &[]));
    rig.append("t", 10).await;
    let last = rig.append("t", 10).await[9];
    settle().await;
    rig.reader.route(Arc::new(removed));
    let mut inbox = rig.reader.join(&shard("h", 0), end);
    let told = next(&mut inbox).await.unwrap();
    assert_eq!((told.messages.len(), told.upto), (0, last));
    assert_eq!(rig.log.reads(), 0);
}

#[tokio::test]
async fn a_handler_that_appears_late_gets_its_messages_and_leaves_the_others_alone() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("early", &["t"], 1)));
    let mut early = rig.reader.join(&shard("early", 0), Offset::START);
    let first = rig.append("t", 5).await;
    assert_eq!(take(&mut early, 5).await, first);
    rig.reader.route(Arc::new(routing("late", &["*"], 1)));
    let mut late = rig.reader.join(&shard("late", 0), first[4]);
    let second = rig.append("t", 5).await;
    assert_eq!(take(&mut early, 5).await, second);
    assert_eq!(take(&mut late, 5).await, second);
}

#[tokio::test]
async fn a_shard_without_a_routing_has_an_ended_inbox() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 2)));
    assert!(next(&mut rig.reader.join(&shard("unknown", 0), Offset::START)).await.is_none());
    assert!(next(&mut rig.reader.join(&shard("h", 2), Offset::START)).await.is_none());
}
