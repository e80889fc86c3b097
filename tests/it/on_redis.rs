//! The program on a Redis server, as its settings say: the walk of an order, across kills, and what is said when the server is
//! not there.

use crate::harness::everything;
use crate::harness::guests::handler;
use crate::harness::process::{Place, Process};
use crate::harness::redis::{OwnServer, fresh_namespace, open, url};

fn settings(namespace: &str, url: &str) -> String {
    format!(
        r#"
namespace = "{namespace}"
[log]
kind = "redis"
url = "{url}"
[http]
listen = "127.0.0.1:0"
[handlers.order]
module = "order.wasm"
subscribe = ["events.*"]
start = "earliest"
publish = ["orders.*"]
key = ["/args/user"]
id = "/id"
dedup = {{ topics = ["events.new_order"] }}
"#
    )
}

fn place(namespace: &str, url: &str) -> Place {
    let place = Place::new("", &[&handler("order")]);
    std::fs::write(place.path().join("sluicebox.toml"), settings(namespace, url)).unwrap();
    place
}

async fn publish(host: &Process, id: &str) {
    let body = format!(r#"{{"type":"new_order","id":"{id}","args":{{"user":"ada","amount_cents":1250}}}}"#);
    assert!(host.publish("events.new_order", None, None, &body).await);
}

async fn until(host: &Process, outcome: &str, count: u64) {
    let name = format!(r#"messages_total{{handler="order",outcome="{outcome}",topic="events.new_order"}}"#);
    host.until(&format!("{count} are {outcome}"), async |host| host.metric(&name).await == count).await;
}

#[tokio::test]
async fn an_order_is_taken_once_however_often_it_is_sent_and_the_host_is_killed() {
    let namespace = fresh_namespace();
    let place = place(&namespace, &url());
    for round in 0..3u64 {
        let host = place.start();
        // What was sent before every kill, and one more.
        for id in 0..=round {
            publish(&host, &format!("o-{id}")).await;
        }
        until(&host, "done", 1).await;
        until(&host, "duplicate", round).await;
        host.kill();
    }
    let log = open(&namespace).unwrap();
    let accepted = everything(&*log).await.iter().filter(|m| m.topic.as_str() == "orders.accepted").count();
    assert_eq!(accepted, 3, "one for each order");
    assert!(place.start().stop().success());
}

#[tokio::test]
async fn a_host_that_loses_its_server_is_alive_and_not_ready_refuses_and_goes_on_by_itself() {
    let mut server = OwnServer::start();
    let place = place("t", &server.url());
    let host = place.start();
    publish(&host, "o-0").await;
    until(&host, "done", 1).await;
    server.kill();
    host.until("it is not ready", async |host| host.get("/readyz").await.contains("no connection to its server")).await;
    assert!(!host.publish("events.new_order", None, None, "{}").await, "nothing new is taken");
    assert!(!host.get("/livez").await.contains("not"));
    server.start_again();
    host.until("it is ready", async |host| host.get("/readyz").await == "ready\n").await;
    publish(&host, "o-1").await;
    until(&host, "done", 2).await;
    assert!(host.stop().success());
}

#[test]
fn a_host_whose_server_is_not_there_says_so_and_ends() {
    let place = place("t", "redis://127.0.0.1:1");
    let (code, _, said) = place.command(&["run"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("failed to open the log of `t` at redis://127.0.0.1:1"), "{said}");
}
