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
    assert!((9..=11).contains(&told.len()), "{} deliveries for 1000 messages", told.len());
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
    assert!((6..=21).contains(&told.len()), "{} deliveries for 1000 messages", told.len());
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

#[tokio::test]
async fn a_shard_that_gets_messages_is_told_nothing_beside_them() {
    let rig = Rig::new(told_every(100)).await;
    rig.reader.route(Arc::new(routing("h", &["mine"], 1)));
    let mut inbox = rig.reader.join(&shard("h", 0), Offset::START);
    for _ in 0..100 {
        let mine = rig.append("mine", 1).await;
        settle().await;
        assert_eq!(inbox.try_next().map(|delivery| offsets(&delivery)), Some(mine));
        rig.append("other", 49).await;
        settle().await;
        assert!(inbox.try_next().is_none());
    }
}

#[tokio::test]
async fn how_far_a_shard_is_is_known_while_nothing_waits_for_it_and_it_has_not_left() {
    let rig = Rig::new(Options::default()).await;
    rig.reader.route(Arc::new(routing("h", &["mine"], 1)));
    let shard = shard("h", 0);
    assert_eq!(rig.reader.passed(&shard), None, "it has not joined");
    let mut inbox = rig.reader.join(&shard, Offset::START);
    let foreign = rig.append("other", 3).await;
    settle().await;
    assert_eq!(rig.reader.passed(&shard), Some(foreign[2]));
    let mine = rig.append("mine", 1).await;
    settle().await;
    assert_eq!(rig.reader.passed(&shard), None, "a message waits in its inbox");
    assert_eq!(take(&mut inbox, 1).await, mine);
    assert_eq!((rig.reader.passed(&shard), inbox.passed_now()), (Some(mine[0]), mine[0]));
    drop(inbox);
    assert_eq!(rig.reader.passed(&shard), None, "it has left");
}

#[tokio::test]
async fn each_of_many_idle_handlers_is_told_as_often_as_one() {
    let rig = Rig::new(told_every(100)).await;
    let ids: Vec<ShardId> = (0..20).map(|number| shard(&format!("h{number}"), 0)).collect();
    let join = |id: &ShardId| {
        rig.reader.route(Arc::new(routing(id.handler.as_str(), &["mine"], 1)));
        rig.reader.join(id, Offset::START)
    };
    let mut idle: Vec<Inbox> = ids.iter().map(join).collect();
    let mut told = vec![0; idle.len()];
    for _ in 0..100 {
        rig.append("other", 10).await;
        settle().await;
        told.iter_mut().zip(&mut idle).for_each(|(told, inbox)| *told += usize::from(inbox.try_next().is_some()));
    }
    assert!(told.iter().all(|told| (9..=11).contains(told)), "{told:?}");
}
