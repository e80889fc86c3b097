//! Messages for others: they cost an idle shard nothing, and move its position along now and then.

use super::*;

fn told_every(foreign_messages_max: usize) -> Options {
    Options { foreign_messages_max, ..Options::default() }
}

#[tokio::test]
async fn foreign_messages_move_the_position_along_now_and_then() {
    let rig = Rig::new(told_every(100)).await;
    rig.reader.route(Arc::new(routing("idle", &["mine"], 1)));
    rig.reader.route(Arc::new(routing("busy", &["other"], 1)));
    let mut idle = rig.reader.join(&shard("idle", 0), Offset::START);
    let mut told: Vec<Delivery> = vec![];
    for _ in 0..100 {
        rig.append("other", 10).await;
        settle().await;
        told.extend(idle.try_next());
    }
    assert!((5..=11).contains(&told.len()), "{} deliveries for 1000 messages", told.len());
    assert!(told.iter().all(|delivery| delivery.messages.is_empty()));
    assert!(told.is_sorted_by_key(|delivery| delivery.upto));
    let end = rig.log.end().await.unwrap();
    let behind = rig.log.all().await.iter().filter(|message| message.offset > told[told.len() - 1].upto).count();
    assert!(behind <= 200, "{behind} behind {end}");
}

#[tokio::test]
async fn an_idle_shard_is_left_alone_until_then() {
    let rig = Rig::new(told_every(100_000)).await;
    rig.reader.route(Arc::new(routing("idle", &["mine"], 8)));
    let mut idle: Vec<Inbox> = (0..8).map(|index| rig.reader.join(&shard("idle", index), Offset::START)).collect();
    for _ in 0..100 {
        rig.append("other", 100).await;
        settle().await;
    }
    assert!(idle.iter_mut().all(|inbox| inbox.try_next().is_none()));
    assert_eq!(rig.log.reads(), 0);
}

#[tokio::test]
async fn a_shard_that_is_asked_for_is_told_where_it_is() {
    let rig = Rig::new(told_every(100_000)).await;
    rig.reader.route(Arc::new(routing("idle", &["mine"], 1)));
    let mut idle = rig.reader.join(&shard("idle", 0), Offset::START);
    let end = rig.append("other", 10).await[9];
    settle().await;
    rig.reader.tell(&shard("idle", 0));
    rig.reader.tell(&shard("idle", 0));
    let told = idle.try_next().unwrap();
    assert_eq!((told.messages.len(), told.upto), (0, end));
    assert!(idle.try_next().is_none(), "once is enough");
}

#[tokio::test]
async fn a_shard_that_caught_up_past_foreign_messages_is_told_where_it_is() {
    let rig = Rig::new(told_every(100_000)).await;
    rig.append("other", 500).await;
    let end = rig.append("other", 500).await[499];
    settle().await;
    rig.reader.route(Arc::new(routing("idle", &["mine"], 1)));
    let mut idle = rig.reader.join(&shard("idle", 0), Offset::START);
    assert_eq!(next(&mut idle).await.unwrap().upto, end);
}

#[tokio::test]
async fn messages_of_siblings_move_the_position_along_while_catching_up() {
    let options = Options { recent_messages_max: 1, inbox_messages_max: 8, chunk_messages_max: 4, ..told_every(50) };
    let rig = Rig::new(options).await;
    let routing = routing("h", &["t"], 2);
    rig.log.append((0..1000).map(|_| new_message("t", 0, 0)).collect()).await.unwrap();
    rig.append("other", 1).await;
    settle().await;
    let busy_index = routing.route(&rig.log.all().await[0]).shard(2);
    rig.reader.route(Arc::new(routing));
    let mut busy = rig.reader.join(&shard("h", busy_index), Offset::START);
    let mut idle = rig.reader.join(&shard("h", 1 - busy_index), Offset::START);
    let mut told = vec![];
    let mut taken = 0;
    while taken < 1000 {
        taken += next(&mut busy).await.unwrap().messages.len();
        told.extend(idle.try_next().map(|delivery| delivery.upto));
    }
    assert!(told.len() > 5, "{}", told.len());
    assert!(told.is_sorted());
}

#[tokio::test]
async fn how_far_an_idle_shard_on_the_tail_is_comes_with_the_time_of_the_last_message() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["mine"], 1)));
    let shard = shard("h", 0);
    let mut inbox = rig.reader.join(&shard, Offset::START);
    settle().await;
    assert_eq!(rig.reader.passed_at(&shard), None, "nothing came yet");
    let foreign = rig.append("other", 3).await;
    settle().await;
    let last = rig.log.all().await.pop().unwrap();
    assert_eq!(rig.reader.passed_at(&shard), Some((foreign[2], last.time)));
    let mine = rig.append("mine", 1).await;
    settle().await;
    assert_eq!(rig.reader.passed_at(&shard), None, "a message waits in its inbox");
    assert_eq!(offsets(&next(&mut inbox).await.unwrap()), mine);
    assert_eq!(rig.reader.passed_at(&shard).map(|(upto, _)| upto), Some(mine[0]));
}
