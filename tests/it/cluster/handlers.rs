//! What concerns a handler as a whole, whichever hosts have its shards: commands, bounds, routings, what publishers delay, and
//! what may go.

use super::together::{SHARDS, Together, held_by, live, sum};
use crate::harness::everything;
use crate::harness::process::Process;
use serde_json::Value;
use sluicebox::commit::DeadFilter;
use sluicebox::log::Log;

async fn count_on(log: &dyn Log, topic: &str) -> usize {
    everything(log).await.iter().filter(|message| message.topic.as_str() == topic).count()
}

/// Waits until the records of all shards are so.
async fn until_status(host: &Process, log: &dyn Log, what: &str, is_so: fn(&sluicebox::log::ShardStatus) -> bool) {
    let of_all = async |_: &Process| {
        let status = log.status().await.unwrap();
        status.iter().filter(|status| !status.shard.handler.is_reserved() && is_so(status)).count() == SHARDS
    };
    host.until(what, of_all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_start_at_the_same_time_record_one_routing_and_hear_operators_whom_any_of_them_was_told() {
    let together = Together::new("1s");
    let hosts = together.start_at_once(3);
    together.until_shared(&hosts).await;
    let log = together.log();
    assert_eq!(log.routings().await.unwrap().routings.len(), 1);
    let typed = |arguments: &[&str], host: &Process| {
        let (code, _, said) = together.command(&[arguments, &["--url", &host.url]].concat());
        assert_eq!(code, 0, "{said}");
    };
    typed(&["handlers", "pause", "order"], &hosts[0]);
    until_status(&hosts[0], &*log, "all shards are paused", |status| status.control.paused).await;
    let publishing = together.publish(&hosts);
    publishing.go_on(50).await;
    let orders = publishing.end().await;
    assert_eq!(count_on(&*log, "orders.accepted").await, 0);
    typed(&["handlers", "breaker", "trip", "order"], &hosts[1]);
    typed(&["handlers", "resume", "order"], &hosts[2]);
    until_status(&hosts[0], &*log, "all are tripped", |status| status.control.tripped && !status.control.paused).await;
    assert_eq!(count_on(&*log, "orders.accepted").await, 0);
    typed(&["handlers", "breaker", "reset", "order"], &hosts[2]);
    together.check_each_once(orders).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_on_dead_letters_is_one_over_all_hosts() {
    let together = Together::new("1s").and("", "", "dead = { max = 5 }\nbreaker = false");
    let hosts = together.start(3);
    together.until_shared(&hosts).await;
    for number in 0..60 {
        let body = format!(r#"{{"type":"unknown","id":"x-{number}","args":{{"user":"user-{number}"}}}}"#);
        assert!(hosts[number % 3].publish("events.new_order", None, None, &body).await);
    }
    let died = r#"messages_total{handler="order",outcome="dead",topic="events.new_order"}"#;
    hosts[0].until("all died", async |_| sum(&hosts, died).await == 60).await;
    let log = together.log();
    assert_eq!(log.dead_count(DeadFilter::default()).await.unwrap().letters, 5);
    let (code, _, said) =
        together.command(&["dead", "drop", "--handler", "order", "--all", "--yes", "--url", &hosts[2].url]);
    assert_eq!(code, 0, "{said}");
    let left = async |_: &Process| log.dead_count(DeadFilter::default()).await.unwrap().letters == 0;
    hosts[0].until("those of all shards are dropped", left).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

/// Which of these holds the hosts' own handler; `None`: not all of them run it.
async fn delays(hosts: &[Process]) -> Option<usize> {
    let mut holder = None;
    for (at, host) in hosts.iter().enumerate() {
        let this = live(host).await.into_iter().find(|host| host["is_this"] == true)?;
        let own: Vec<Value> = this["handlers"].as_array()?.clone();
        let own = own.into_iter().find(|handler| handler["name"] == "_delay")?;
        if own["held"].as_array().is_some_and(|held| !held.is_empty()) {
            holder = Some(at);
        }
    }
    holder
}

async fn publish_later(host: &Process, delay: &str) -> (bool, String) {
    let request = host.client.post(format!("{}/v1/topics/later", host.url)).header("sluicebox-delay", delay);
    let answer = request.body("x").send().await.unwrap();
    (answer.status().is_success(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_host_takes_what_is_delayed_within_one_bound_and_it_comes_once_though_its_holder_dies() {
    let together = Together::new("1s").and("delayed = { max = 5 }", "", "");
    let mut hosts = together.start(3);
    together.until_shared(&hosts).await;
    let (taken, said) = publish_later(&hosts[1], "3s").await;
    assert!(taken, "{said}");
    hosts[0].until("all run the handler for it", async |_| delays(&hosts).await.is_some()).await;
    let holder = delays(&hosts).await.unwrap();
    hosts.remove(holder).kill();
    let log = together.log();
    hosts[0].until("it is published", async |_| count_on(&*log, "later").await > 0).await;
    hosts[0].until("another one holds it", async |_| delays(&hosts).await.is_some()).await;
    for _ in 0..5 {
        let (taken, said) = publish_later(&hosts[0], "1h").await;
        assert!(taken, "{said}");
    }
    let (taken, said) = publish_later(&hosts[0], "1h").await;
    assert!(!taken && said.contains("`delayed` in [host] allows 5"), "{said}");
    let held = async |_: &Process| {
        let status = log.status().await.unwrap();
        status.iter().any(|status| status.shard.handler.is_reserved() && status.delayed == 5)
    };
    hosts[0].until("all are held", held).await;
    let (taken, said) = publish_later(&hosts[1], "1h").await;
    assert!(!taken && said.contains("`delayed` in [host] allows 5"), "{said}");
    assert_eq!(count_on(&*log, "later").await, 1);
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_settings_differ_from_the_log_leaves_the_handler_to_the_others_and_says_so() {
    let together = Together::new("1s");
    together.differs(2, "shards = 3");
    let hosts = together.start(3);
    together.until_shared(&hosts).await;
    assert_eq!(held_by(&hosts[2]).await, 0);
    let shown: Value = serde_json::from_str(&hosts[2].get("/v1/handlers/order").await).unwrap();
    let problem = shown["running"]["problem"].as_str().unwrap();
    assert!(problem.contains(&format!("shards = {SHARDS}, the settings now say 3")), "{problem}");
    // It takes messages all the same.
    let publishing = together.publish(&hosts[2..]);
    publishing.go_on(50).await;
    together.check_each_once(publishing.end().await).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_messages_go_once_and_only_what_all_hosts_have_settled() {
    let together = Together::new("1s").and("", "retain = { age = \"1s\" }", "");
    let hosts = together.start(3);
    together.until_shared(&hosts).await;
    let publishing = together.publish(&hosts);
    publishing.go_on(300).await;
    let orders = publishing.end().await;
    let accepted = r#"messages_total{handler="order",outcome="done",topic="events.new_order"}"#;
    hosts[0].until("all are handled", async |_| sum(&hosts, accepted).await == orders as u64).await;
    let log = together.log();
    hosts[0].until("all are gone", async |_| everything(&*log).await.is_empty()).await;
    hosts[0]
        .until("they are counted", async |_| sum(&hosts, "trimmed_messages_total").await >= 2 * orders as u64)
        .await;
    assert_eq!(sum(&hosts, "trimmed_messages_total").await, 2 * orders as u64, "each message and its output");
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}
