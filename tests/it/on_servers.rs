//! The program on a server of each kind, as its settings say: the walk of an order, across kills, and what is said when the
//! server is not there.

use crate::harness::everything;
use crate::harness::guests::handler;
use crate::harness::process::{Place, Process};
use crate::harness::servers::fresh_namespace;

fn settings(kind: &str, namespace: &str, url: &str) -> String {
    format!(
        r#"
namespace = "{namespace}"
[log]
kind = "{kind}"
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

fn place(kind: &str, namespace: &str, url: &str) -> Place {
    let place = Place::new("", &[&handler("order")]);
    std::fs::write(place.path().join("sluicebox.toml"), settings(kind, namespace, url)).unwrap();
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

/// The same of each kind, and what `/readyz` says while its server is away.
macro_rules! on {
    ($($name:ident: $kind:ident, $away:literal;)*) => {
        $(mod $name {
            use super::{everything, fresh_namespace, place, publish, until};
            use crate::harness::$kind::{OwnServer, open, url};

            const KIND: &str = stringify!($kind);

            #[tokio::test]
            async fn an_order_is_taken_once_however_often_it_is_sent_and_the_host_is_killed() {
                let namespace = fresh_namespace();
                let place = place(KIND, &namespace, &url());
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
                let place = place(KIND, "t", &server.url());
                let host = place.start();
                publish(&host, "o-0").await;
                until(&host, "done", 1).await;
                server.kill();
                host.until("it is not ready", async |host| host.get("/readyz").await.contains($away)).await;
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
                let url = format!("{KIND}://127.0.0.1:1");
                let place = place(KIND, "t", &url);
                let (code, _, said) = place.command(&["run"]);
                assert_eq!(code, 1, "{said}");
                assert!(said.contains(&format!("failed to open the log of `t` at {url}")), "{said}");
            }
        })*
    };
}

on! {
    on_nats: nats, "no connection to its servers";
    on_redis: redis, "no connection to its server";
}
