//! How fast it goes, printed for people; what is held to is counted: many messages share a commit.

use super::{Edge, stream_on};
use async_nats::jetstream::stream::Config;
use std::time::Instant;

const MESSAGES: u64 = 20_000;

#[tokio::test]
async fn a_backlog_of_plain_messages_is_taken_up_many_at_a_time() {
    let edge = Edge::without_handlers("ingress = [\"in.>\"]");
    assert!(edge.place.start().stop().success(), "it makes the stream");
    let client = edge.client().await;
    let context = async_nats::jetstream::new(client);
    for _ in 0..MESSAGES / 500 {
        let mut acks = vec![];
        for _ in 0..500 {
            acks.push(context.publish("in.made", vec![b'x'; 100].into()).await.unwrap());
        }
        // The client lets no more than a few thousand be under way.
        for ack in acks {
            ack.await.unwrap();
        }
    }
    let log = edge.log().await;
    let before = log.entries_kept().await.unwrap();
    let begun = Instant::now();
    let host = edge.place.start();
    let taken = r#"ingress_messages_total{result="taken"}"#;
    host.until("all are taken", async |host| host.metric(taken).await == MESSAGES).await;
    println!("{MESSAGES} plain messages of 100 bytes were taken up in {:?}, start included", begun.elapsed());
    let entries = log.entries_kept().await.unwrap() - before;
    assert!(entries < MESSAGES / 10, "{entries} entries");
    assert!(host.stop().success());
}

#[tokio::test]
async fn a_backlog_goes_out_to_a_stream_with_many_under_way() {
    let edge = Edge::without_handlers("egress = [\"out.>\"]");
    let client = edge.client().await;
    let out = Config { name: "OUT".into(), subjects: vec!["out.>".into()], ..Config::default() };
    let mut out = stream_on(&client, out).await;
    let host = edge.place.start();
    let line = format!("{}\n", "1".repeat(100));
    edge.place.put("lines", line.repeat(MESSAGES as usize));
    let begun = Instant::now();
    let typed = ["publish", "out.made", "--ndjson", "lines", "--url", &host.url];
    let (code, _, said) = edge.place.command(&typed);
    assert_eq!(code, 0, "{said}");
    let appended = begun.elapsed();
    host.until("all went out", async |_| out.info().await.unwrap().state.messages == MESSAGES).await;
    println!("{MESSAGES} messages of 100 bytes were appended in {appended:?} and went out by {:?}", begun.elapsed());
    assert!(host.stop().success());
}
