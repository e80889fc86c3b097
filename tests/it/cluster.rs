//! Several hosts as processes on one server, NATS mostly: they share the shards, and whatever happens to one of them, each message is
//! handled once and in the order of its key.

mod handlers;
mod together;

use crate::harness::nats::{OwnServer, fresh_namespace};
use crate::harness::process::Process;
use crate::harness::redis;
use std::time::Instant;
use together::{SHARDS, Together, held_by, held_most, sum};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_host_that_is_killed_are_taken_over_and_each_message_is_handled_once() {
    one_is_killed(Together::new("1s")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_host_that_is_killed_on_redis_are_taken_over_too() {
    one_is_killed(Together::on(&redis::url(), &fresh_namespace(), "1s")).await;
}

async fn one_is_killed(together: Together) {
    let mut hosts = together.start(3);
    together.until_shared(&hosts).await;
    let (code, table, said) = together.command(&["hosts", "--url", &hosts[0].url]);
    assert_eq!(code, 0, "{said}");
    assert!(table.contains("host-0") && table.contains("host-2") && table.matches(" live ").count() == 3, "{table}");
    let (_, status, _) = together.command(&["status", "--shards", "--url", &hosts[1].url]);
    assert_eq!(status.matches("on host-").count(), SHARDS, "{status}");

    let publishing = together.publish(&hosts);
    publishing.go_on(100).await;
    let (most, held) = held_most(&hosts).await;
    let began = Instant::now();
    hosts.remove(most).kill();
    together.until_shared(&hosts).await;
    println!("{held} of {SHARDS} shards were taken over {:?} after SIGKILL, with a lease of 1s", began.elapsed());
    assert_eq!(sum(&hosts, "takeovers_total").await, held as u64, "these and no others");
    publishing.go_on(100).await;
    together.check_each_once(publishing.end().await).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_sleeps_past_its_lease_commits_nothing_more_and_leaves_what_others_took() {
    let together = Together::new("1s");
    let hosts = together.start(3);
    together.until_shared(&hosts).await;
    let publishing = together.publish(&hosts);
    publishing.go_on(100).await;
    let (most, held) = held_most(&hosts).await;
    let (sleeper, others): (&Process, Vec<&Process>) =
        (&hosts[most], hosts.iter().enumerate().filter(|(at, _)| *at != most).map(|(_, host)| host).collect());
    let began = Instant::now();
    sleeper.sleep();
    publishing.leave_out(sleeper);
    together.until_shared(&others).await;
    println!("{held} of {SHARDS} shards were taken over {:?} after SIGSTOP, with a lease of 1s", began.elapsed());
    publishing.go_on(100).await;
    let began = Instant::now();
    sleeper.wake();
    together.until_shared(&hosts).await;
    sleeper.until("it has its share again", async |host| held_by(host).await > 0).await;
    together.until_shared(&hosts).await;
    println!("it had its share again {:?} after SIGCONT", began.elapsed());
    publishing.go_on(100).await;
    together.check_each_once(publishing.end().await).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_hands_its_shards_over_before_it_ends_and_one_that_comes_gets_its_share() {
    // Nobody waits for a lease: it is longer than the test may take.
    let together = Together::new("120s");
    // The first one listens for a moment, which is a part of the lease.
    let mut hosts = together.start(2);
    together.until_shared(&hosts).await;
    let publishing = together.publish(&hosts);
    publishing.go_on(100).await;
    let began = Instant::now();
    publishing.leave_out(&hosts[0]);
    assert!(hosts.remove(0).stop().success());
    together.until_shared(&hosts).await;
    println!("the shards were handed over {:?} after SIGTERM", began.elapsed());
    assert_eq!(held_by(&hosts[0]).await, SHARDS);
    publishing.go_on(100).await;
    assert_eq!(sum(&hosts, "takeovers_total").await, 0, "nothing was taken that was not given");
    assert_eq!(sum(&hosts, r#"shard_commits_total{result="fenced"}"#).await, 0);
    together.check_each_once(publishing.end().await).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_lose_their_server_keep_what_they_have_and_go_on_when_it_is_back() {
    let mut server = OwnServer::start();
    let together = Together::on(&server.url(), "t", "1s");
    let hosts = together.start(2);
    together.until_shared(&hosts).await;
    let publishing = together.publish(&hosts);
    publishing.go_on(100).await;
    server.kill();
    for host in &hosts {
        host.until("it is not ready", async |host| host.get("/readyz").await.contains("no connection")).await;
        assert_eq!(host.get("/livez").await, "alive\n");
    }
    server.start_again();
    let began = Instant::now();
    for host in &hosts {
        host.until("it is ready", async |host| host.get("/readyz").await == "ready\n").await;
    }
    together.until_shared(&hosts).await;
    println!("the hosts went on {:?} after the server was back", began.elapsed());
    publishing.go_on(100).await;
    together.check_each_once(publishing.end().await).await;
    hosts.into_iter().for_each(|host| assert!(host.stop().success()));
}
