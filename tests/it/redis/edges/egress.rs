//! What goes out to channels: after the commit, in the order of each key, and it waits where the server refuses it.

use super::Edge;
use crate::harness::redis::OwnServer;
use serde_json::Value;
use std::collections::BTreeMap;

#[tokio::test]
async fn a_plain_subscriber_gets_the_bodies_of_each_key_in_their_order() {
    let edge = Edge::without_handlers("egress = [\"out.>\"]");
    let host = edge.place.start();
    let seen = edge.server.subscribe("out.made");
    for n in 0..60 {
        let key = format!("k{}", n % 3);
        assert!(host.publish("out.made", Some(&key), None, &format!("{key} {n}")).await);
    }
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..60 {
        let body = seen.next();
        let (key, n) = body.split_once(' ').unwrap();
        by_key.entry(key.to_owned()).or_default().push(n.parse().unwrap());
    }
    for (index, key) in ["k0", "k1", "k2"].iter().enumerate() {
        let promised: Vec<u64> = (0..60).filter(|n| n % 3 == index as u64).collect();
        assert_eq!(by_key[*key], promised, "{key}");
    }
    assert!(host.stop().success());
}

#[tokio::test]
async fn what_the_server_does_not_let_out_waits_is_shown_and_goes_out_later() {
    let server = OwnServer::start();
    let rights = "shop on >pass ~sb:* &sb:* &out.a +@all -@dangerous +info +config|get +function|list +function|load";
    let set = |words: &str| server.ask(&[&["ACL", "SETUSER"], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    set(rights);
    let place = Edge::beside(
        &server,
        "login = { user = \"shop\", password_file = \"password\" }\negress = [\"out.>\"]",
        "",
        None,
    );
    place.put("password", "pass");
    let host = place.start();
    let (allowed, denied) = (server.subscribe("out.a"), server.subscribe("out.b"));
    for (topic, body) in [("out.b", "1"), ("out.b", "2"), ("out.a", "3")] {
        assert!(host.publish(topic, Some(topic), None, body).await);
    }
    assert_eq!(allowed.next(), "3");
    let waiting = async |host: &crate::harness::process::Process| -> u64 {
        let shown: Value = serde_json::from_str(&host.get("/v1/handlers/_egress").await).unwrap();
        shown["waiting"]["messages"].as_u64().unwrap()
    };
    host.until("two wait", async |host| waiting(host).await == 2).await;
    set("shop &out.b");
    assert_eq!([denied.next(), denied.next()], ["1", "2"]);
    host.until("nothing waits", async |host| waiting(host).await == 0).await;
    assert!(host.stop().success());
}

#[tokio::test]
async fn what_was_committed_while_the_server_was_away_goes_out_when_it_is_back() {
    let mut edge = Edge::without_handlers("egress = [\"out.>\"]");
    let host = edge.place.start();
    assert!(host.publish("out.made", None, None, "1").await);
    edge.server.kill();
    edge.server.start_again();
    let seen = edge.server.subscribe("out.made");
    host.until("it takes messages again", async |host| host.publish("out.made", Some("k"), None, "2").await).await;
    // The first one again, or not, as it was out before the kill.
    while seen.next() != "2" {}
    assert!(host.stop().success());
}
