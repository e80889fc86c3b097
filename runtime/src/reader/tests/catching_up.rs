//! Dropping off the tail, and coming back.

use super::*;
use crate::memory::Budget;

fn small() -> Options {
    Options {
        inbox_messages_max: 8,
        chunk_messages_max: 4,
        recent_messages_max: 1,
        retry_min: Duration::from_micros(1),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_shard_that_never_reads_delays_neither_its_siblings_nor_other_handlers() {
    let rig = Rig::new(small()).await;
    let (slow, other) = (routing("slow", &["t"], 4), routing("other", &["t"], 1));
    rig.reader.route(Arc::new(slow.clone()));
    rig.reader.route(Arc::new(other.clone()));
    let mut stuck = rig.reader.join(&shard("slow", 0), Offset::START);
    let mut going = vec![];
    for (routing, index) in [(&slow, 1), (&slow, 2), (&slow, 3), (&other, 0)] {
        let id = ShardId { handler: routing.handler.clone(), index };
        going.push((routing, id.clone(), rig.reader.join(&id, Offset::START)));
    }
    for _ in 0..50 {
        rig.append("t", 40).await;
    }

    for (routing, id, inbox) in &mut going {
        let expected = rig.expected(routing, id, Offset::START).await;
        assert!(expected.len() > 100);
        assert_eq!(take(inbox, expected.len()).await, expected, "{id}");
    }
    // Nothing ran in between, so this is all that was kept for it.
    let kept: usize = std::iter::from_fn(|| stuck.try_next()).map(|delivery| delivery.messages.len()).sum();
    assert!((1..=8).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_full_inbox_causes_no_reads_until_it_has_room() {
    let rig = Rig::new(small()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    for _ in 0..10 {
        rig.append("t", 10).await;
    }
    settle().await;
    let reads = rig.log.reads();
    rig.append("t", 10).await;
    settle().await;
    assert_eq!(rig.log.reads(), reads);

    assert_eq!(take(&mut inbox, 110).await.len(), 110);
    assert!(rig.log.reads() > reads);
}

#[tokio::test]
async fn a_message_that_does_not_fit_yet_causes_no_reads_until_it_does() {
    let rig = Rig::new(Options { inbox_bytes_max: 1000, ..small() }).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    // The first fills less than half of the inbox, but leaves too little for the second.
    let appended = rig.log.append(vec![new_message("t", 0, 300), new_message("t", 0, 800)]).await.unwrap();
    rig.append("other", 10).await;
    settle().await;
    let reads = rig.log.reads();
    settle().await;
    assert_eq!(rig.log.reads(), reads);
    assert_eq!(take(&mut inbox, 2).await, appended);
}

#[tokio::test]
async fn a_shard_that_dropped_off_joins_the_tail_again_and_is_then_fed_without_reads() {
    let rig = Rig::new(small()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    for _ in 0..10 {
        rig.append("t", 10).await;
    }
    assert_eq!(take(&mut inbox, 100).await.len(), 100);
    settle().await;
    let reads = rig.log.reads();
    assert!(reads > 0, "it did drop off");

    for _ in 0..50 {
        let offset = rig.append("t", 1).await;
        assert_eq!(take(&mut inbox, 1).await, offset);
    }
    assert_eq!(rig.log.reads(), reads);
}

#[tokio::test]
async fn a_shard_is_brought_through_what_is_for_its_siblings_in_few_reads_however_little_memory_is_left() {
    let rig = Rig::new(Options { waiting: Budget::new(1), recent_bytes_max: 1, ..Options::default() }).await;
    for _ in 0..2 {
        rig.append("t", 400).await;
    }
    settle().await;
    let routing = routing("h", &["t"], 100);
    rig.reader.route(Arc::new(routing.clone()));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    let expected = rig.expected(&routing, &shard("h", 0), Offset::START).await;
    assert_eq!(take(&mut inbox, expected.len()).await, expected);
    settle().await;
    let reads = rig.log.reads();
    assert!(reads <= 4 * expected.len(), "{reads} reads of 800 messages, {} of them its own", expected.len());
}

#[tokio::test]
async fn a_shard_that_is_a_little_behind_comes_back_without_reads() {
    let rig = Rig::new(Options { recent_messages_max: 1000, ..small() }).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    for _ in 0..10 {
        let appended = [rig.append("t", 20).await, rig.append("t", 20).await].concat();
        assert_eq!(take(&mut inbox, 40).await, appended);
    }
    assert_eq!(rig.log.reads(), 0);
}

#[tokio::test]
async fn what_is_kept_for_those_a_little_behind_is_bounded_in_bytes() {
    let rig = Rig::new(Options { recent_messages_max: 1000, recent_bytes_max: 1, ..small() }).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    let appended = [rig.append("t", 20).await, rig.append("t", 20).await].concat();
    assert_eq!(take(&mut inbox, 40).await, appended);
    assert!(rig.log.reads() > 0, "the first batch was kept beyond the bound");
}

#[tokio::test]
async fn a_shard_far_behind_does_not_hold_back_one_that_is_nearly_there() {
    let rig = Rig::new(small()).await;
    let routing = routing("h", &["t"], 2);
    rig.reader.route(Arc::new(routing.clone()));
    rig.append("t", 4000).await;
    let near = rig.append("t", 100).await[0];
    let mut far_inbox = rig.reader.join(&shard("h", 0), Offset::START);
    let mut near_inbox = rig.reader.join(&shard("h", 1), near);

    let expected = rig.expected(&routing, &shard("h", 1), near).await;
    let (mut got, mut far) = (vec![], 0);
    while got.len() < expected.len() {
        tokio::select! {
            delivery = next(&mut near_inbox) => got.extend(offsets(&delivery.unwrap())),
            delivery = next(&mut far_inbox) => far += delivery.unwrap().messages.len(),
        }
    }
    assert_eq!(got, expected);
    assert!(far < 500, "{far}");
}

#[tokio::test]
async fn a_lagged_tail_loses_nothing() {
    let rig = Rig::new(small()).await;
    let routing = routing("h", &["t"], 2);
    rig.reader.route(Arc::new(routing.clone()));
    let mut inboxes = [0, 1].map(|index| rig.reader.join(&shard("h", index), Offset::START));
    rig.append("t", 4).await;
    settle().await;
    rig.log.lose_batches(2);
    rig.append("t", 4).await;
    rig.append("t", 4).await;
    settle().await;
    let lost_and_quiet = rig.log.all().await.len();
    for _ in 0..5 {
        rig.append("t", 4).await;
    }
    assert_eq!(lost_and_quiet, 12);
    for (index, inbox) in (0..).zip(&mut inboxes) {
        let expected = rig.expected(&routing, &shard("h", index), Offset::START).await;
        assert_eq!(take(inbox, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn what_the_tail_lost_comes_although_nothing_follows() {
    let rig = Rig::new(small()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    rig.log.lose_batches(1);
    let lost = rig.append("t", 3).await;
    assert_eq!(take(&mut inbox, 3).await, lost);
    settle().await;
    let reads = rig.log.reads();
    settle().await;
    assert_eq!(rig.log.reads(), reads, "it waits for the tail, not in a circle");
    rig.log.lose_batches(1);
    let lost = rig.append("t", 3).await;
    assert_eq!(take(&mut inbox, 3).await, lost, "the tail fell behind once more");
    settle().await;
    let next_offset = rig.append("t", 1).await;
    assert_eq!(take(&mut inbox, 1).await, next_offset);
}

#[tokio::test]
async fn a_shard_that_read_to_the_end_after_a_lag_does_not_hold_back_its_siblings() {
    let rig = Rig::new(small()).await;
    let routing = routing("h", &["t"], 2);
    rig.reader.route(Arc::new(routing.clone()));
    let mut inboxes = [0, 1].map(|index| rig.reader.join(&shard("h", index), Offset::START));
    rig.log.lose_batches(1);
    rig.append("t", 100).await;
    for (index, inbox) in (0..).zip(&mut inboxes) {
        let expected = rig.expected(&routing, &shard("h", index), Offset::START).await;
        assert_eq!(take(inbox, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn a_shard_that_joined_ahead_of_a_tail_that_lags_gets_nothing_before_its_offset() {
    let rig = Rig::new(small()).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    rig.log.lose_batches(1);
    // Nothing has run since: the dispatcher has not seen it.
    let appended = rig.append("t", 6).await;
    let mut inbox = rig.reader.join(&shard("h", 0), appended[3]);
    assert_eq!(take(&mut inbox, 2).await, appended[4..]);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_asked_again_and_nothing_is_lost() {
    let rig = Rig::new(small()).await;
    let appended = rig.append("t", 30).await;
    rig.append("other", 1).await;
    settle().await;
    rig.log.refuse_reads(6);
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    assert_eq!(take(&mut inbox, 30).await, appended);
    assert!(rig.log.reads() > 6);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_given_time() {
    let hours = Duration::from_secs(1000 * 3600);
    let rig = Rig::new(Options { retry_min: hours, retry_max: hours, ..small() }).await;
    rig.append("t", 30).await;
    rig.append("other", 1).await;
    settle().await;
    rig.log.refuse_reads(6);
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let _inbox = rig.reader.join(&shard("h", 0), Offset::START);
    settle().await;
    assert_eq!(rig.log.reads(), 1);
    tokio::time::timeout(DEADLINE, rig.reader.stop()).await.expect("a wait does not outlive the reader");
}

/// Time stands still but for those who wait for it: what passes is what was waited.
#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_is_given_more_time_with_each_failure_in_a_row() {
    let (second, hours) = (Duration::from_secs(1), Duration::from_secs(1000 * 3600));
    let rig = Rig::new(Options { retry_min: second, retry_max: hours, ..small() }).await;
    rig.append("t", 30).await;
    rig.append("other", 1).await;
    settle().await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    rig.log.refuse_reads(16);
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    let begun = tokio::time::Instant::now();
    while rig.log.reads() <= 16 {
        tokio::time::sleep(16 * second).await;
    }
    // Any part of 2^15 seconds, any part of half as many, and so on: by chance as little as this once in 10^13.
    assert!(begun.elapsed() > Duration::from_secs(64), "{:?}", begun.elapsed());
    take(&mut inbox, 30).await;

    rig.append("t", 30).await;
    rig.append("other", 1).await;
    settle().await;
    let reads = rig.log.reads();
    rig.log.refuse_reads(1);
    let begun = tokio::time::Instant::now();
    take(&mut inbox, 30).await;
    assert!(rig.log.reads() > reads + 1 && begun.elapsed() <= second, "after a success it begins anew");
}

#[tokio::test]
async fn a_message_larger_than_the_inbox_comes_alone() {
    let rig = Rig::new(Options { inbox_bytes_max: 1000, ..small() }).await;
    rig.reader.route(Arc::new(routing("h", &["t"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    let sizes = [10, 5000, 10, 800, 800, 5000];
    let appended = rig.log.append(sizes.map(|bytes| new_message("t", 0, bytes)).into()).await.unwrap();
    let mut got = vec![];
    while got.len() < sizes.len() {
        let delivery = next(&mut inbox).await.unwrap();
        let bytes: usize = delivery.messages.iter().map(|routed| routed.message.bytes()).sum();
        assert!(bytes <= 1000 || delivery.messages.len() == 1, "{bytes} bytes");
        got.extend(offsets(&delivery));
    }
    assert_eq!(got, appended);
}
