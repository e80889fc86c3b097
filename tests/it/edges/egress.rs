//! What goes out: to plain subscribers in the order of each key, to streams once, and it waits where nobody takes it.

use super::{Edge, collected, stream_on};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use futures_util::StreamExt as _;
use serde_json::Value;
use std::collections::BTreeMap;

#[tokio::test]
async fn a_plain_subscriber_gets_the_messages_of_each_key_in_their_order() {
    let edge = Edge::without_handlers("egress = [\"out.>\"]");
    let host = edge.place.start();
    let client = edge.client().await;
    let mut seen = client.subscribe("out.>").await.unwrap();
    client.flush().await.unwrap();
    for n in 0..60 {
        assert!(host.publish("out.made", Some(&format!("k{}", n % 3)), None, &n.to_string()).await);
    }
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..60 {
        let message = seen.next().await.unwrap();
        let key = message.headers.unwrap().get("Sluicebox-Key").unwrap().to_string();
        by_key.entry(key).or_default().push(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
    }
    for (index, key) in ["k0", "k1", "k2"].iter().enumerate() {
        let promised: Vec<u64> = (0..60).filter(|n| n % 3 == index as u64).collect();
        assert_eq!(by_key[*key], promised, "{key}");
    }
    assert!(host.stop().success());
}

#[tokio::test]
async fn what_a_full_stream_does_not_take_waits_is_shown_and_goes_out_later() {
    let edge = Edge::without_handlers("egress = [\"out.>\"]");
    let client = edge.client().await;
    let full = Config {
        name: "OUT".into(),
        subjects: vec!["out.>".into()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let stream = stream_on(&client, full.clone()).await;
    let host = edge.place.start();
    for n in 0..3 {
        assert!(host.publish("out.made", Some("k"), None, &n.to_string()).await);
    }
    host.until("two wait", async |host| {
        let shown: Value = serde_json::from_str(&host.get("/v1/handlers/_egress").await).unwrap();
        shown["waiting"]["messages"] == 2
    })
    .await;
    let (code, said, _) = edge.place.command(&["handlers", "list", "--url", &host.url]);
    assert!(code == 0 && said.contains("_egress"), "{said}");
    let context = async_nats::jetstream::new(client);
    context.update_stream(Config { max_messages: -1, ..full }).await.unwrap();
    host.until("nothing waits", async |host| {
        let shown: Value = serde_json::from_str(&host.get("/v1/handlers/_egress").await).unwrap();
        shown["waiting"]["messages"] == 0
    })
    .await;
    assert_eq!(collected(&stream).await, ["0", "1", "2"]);
    assert!(host.stop().success());
}

#[tokio::test]
async fn an_operator_pauses_what_goes_out_and_it_goes_on_where_it_was() {
    let edge = Edge::without_handlers("egress = [\"out.>\"]");
    let client = edge.client().await;
    let stream =
        stream_on(&client, Config { name: "OUT".into(), subjects: vec!["out.>".into()], ..Config::default() }).await;
    let host = edge.place.start();
    let typed = |arguments: &[&str]| edge.place.command(&[arguments, &["--url", &host.url]].concat());
    let paused = async || {
        let shown: Value = serde_json::from_str(&host.get("/v1/handlers/_egress").await).unwrap();
        shown["shards"].as_array().unwrap().iter().filter(|shard| shard["control"]["paused"] == true).count()
    };
    assert_eq!(typed(&["handlers", "pause", "_egress"]).0, 0);
    host.until("it is paused", async |_| paused().await == 8).await;
    assert!(host.publish("out.made", None, None, "held").await);
    assert!(typed(&["handlers", "rollback", "_egress"]).2.contains("has no module to go back to"));
    assert_eq!(typed(&["handlers", "resume", "_egress"]).0, 0);
    host.until("it goes on", async |_| collected(&stream).await == ["held"]).await;
    // It runs, so it cannot be forgotten; once the settings do not ask for it, it can.
    assert!(typed(&["handlers", "forget", "_egress", "--yes"]).2.contains("take it out of the settings"));
    assert!(host.stop().success());
    edge.settings("", "");
    let host = edge.place.start();
    let (code, _, said) = edge.place.command(&["handlers", "forget", "_egress", "--yes", "--url", &host.url]);
    assert_eq!(code, 0, "{said}");
    assert!(host.stop().success());
}
