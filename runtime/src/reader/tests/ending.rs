//! Leaving and stopping.

use super::*;
use futures_util::FutureExt as _;

#[tokio::test]
async fn stop_ends_all_tasks_and_all_inboxes_after_what_is_in_them() {
    let rig = Rig::new(Options { inbox_messages_max: 4, ..Options::default() }).await;
    rig.reader.route(Arc::new(routing("idle", &["mine"], 1)));
    rig.reader.route(Arc::new(routing("full", &["t"], 1)));
    let mut idle = rig.reader.join(&shard("idle", 0), Offset::START);
    let mut full = rig.reader.join(&shard("full", 0), Offset::START);
    let appended = rig.append("t", 100).await;
    settle().await;

    let other_handle = rig.reader.clone();
    tokio::time::timeout(DEADLINE, rig.reader.stop()).await.expect("every task ends");
    let told = next(&mut idle).await.unwrap();
    assert_eq!((told.messages.len(), told.upto), (0, appended[99]));
    assert!(next(&mut idle).await.is_none());
    assert_eq!(offsets(&next(&mut full).await.unwrap()), appended[..4]);
    assert!(next(&mut full).await.is_none());
    assert!(next(&mut other_handle.join(&shard("idle", 0), Offset::START)).await.is_none());
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_reader() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    drop(rig.reader);
    assert!(next(&mut inbox).await.is_none());
}

#[tokio::test]
async fn a_shard_that_leaves_gets_what_is_in_its_inbox_and_then_its_end() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    let mine = rig.append("t", 3).await;
    let foreign = rig.append("other", 1).await;
    settle().await;
    rig.reader.leave(&shard("h", 0));
    rig.append("t", 3).await;
    settle().await;
    let last = next(&mut inbox).await.unwrap();
    assert_eq!((offsets(&last), last.upto), (mine, foreign[0]));
    assert!(next(&mut inbox).await.is_none());
}

#[tokio::test]
async fn dropping_an_inbox_leaves_unless_the_shard_joined_again() {
    let rig = Rig::new(Options { inbox_messages_max: 4, recent_messages_max: 1, ..Options::default() }).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let first = rig.reader.join(&shard("h", 0), Offset::START);
    let mut second = rig.reader.join(&shard("h", 0), Offset::START);
    drop(first);
    let appended = rig.append("t", 3).await;
    assert_eq!(take(&mut second, 3).await, appended);
    drop(second);
    rig.append("t", 100).await;
    rig.append("t", 100).await;
    settle().await;
    assert_eq!(rig.log.reads(), 0, "nobody is behind");
}

#[tokio::test]
async fn a_forgotten_handler_parts_with_its_shards_and_may_come_back() {
    let rig = Rig::new(Options::default()).await;
    let routing = Arc::new(routing("h", &["t"], 1));
    rig.reader.route(routing.clone());
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    rig.reader.unroute(&routing.handler);
    assert!(next(&mut inbox).await.is_none());
    let appended = rig.append("t", 3).await;
    settle().await;
    rig.reader.route(routing.clone());
    let mut again = rig.reader.join(&shard("h", 0), Offset::START);
    assert_eq!(take(&mut again, 3).await, appended);
    // It takes its place again before its task has heard that it was forgotten.
    let tasks = rig.reader.tasks.len();
    rig.reader.unroute(&routing.handler);
    rig.reader.route(routing);
    settle().await;
    assert_eq!(rig.reader.tasks.len(), tasks, "one task looks after it");
}

#[tokio::test]
async fn a_shard_beyond_a_smaller_number_of_shards_leaves() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 2)));
    let mut gone = rig.reader.join(&shard("h", 1), Offset::START);
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    assert!(next(&mut gone).await.is_none());
}

#[tokio::test]
async fn a_tail_that_ends_is_told_with_the_reason_and_nothing_is_told_before() {
    let rig = Rig::new(Options::default()).await;
    rig.append("t", 1).await;
    settle().await;
    assert_eq!(rig.reader.failed().now_or_never(), None);
    rig.log.end_tail();
    rig.append("t", 1).await;
    let reason = tokio::time::timeout(DEADLINE, rig.reader.failed()).await.expect("it is told");
    assert!(reason.contains("the log closed its tail"), "{reason}");
}
