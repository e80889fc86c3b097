//! A handler or a key stands still until it is told to go on.

use super::{attempts, handled_keys, outcome, place, publish, typed, until, until_applied};
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;

#[tokio::test]
async fn a_paused_handler_runs_nothing_until_it_is_resumed_whatever_dies_meanwhile() {
    let place = place("");
    let host = place.start();
    publish(&host, "a", "ok").await;
    until(&host, "done", 1).await;
    typed(&place, &host, &["handlers", "pause", "first"]);
    // The command is durable when it was answered: the shards may hear it after the kill.
    host.kill();
    let host = place.start();
    host.until("every shard has it on record", async |_| {
        let status = EmbeddedLog::open_read_only(&place.data()).unwrap().status().await.unwrap();
        status.iter().all(|shard| shard.control.paused)
    })
    .await;
    for number in 0..100 {
        publish(&host, &format!("k{number}"), "ok").await;
    }
    host.kill();
    let host = place.start();
    assert!(typed(&place, &host, &["handlers", "show", "first"]).contains("paused"));
    assert_eq!((outcome(&host, "done").await, attempts(&host).await), (0, 0));
    typed(&place, &host, &["handlers", "resume", "first"]);
    until(&host, "done", 100).await;
    host.stop();
    assert_eq!(handled_keys(&place).await.len(), 101);
}

#[tokio::test]
async fn a_paused_key_waits_and_the_others_go_on() {
    let place = place("");
    let host = place.start();
    typed(&place, &host, &["handlers", "pause", "first", "--key", "ada"]);
    until_applied(&host, 1).await;
    for number in 0..300 {
        publish(&host, "ada", &format!("ok {number}")).await;
        publish(&host, &format!("k{number}"), "ok").await;
    }
    until(&host, "done", 300).await;
    host.kill();
    let host = place.start();
    publish(&host, "bob", "ok").await;
    until(&host, "done", 1).await;
    assert!(!handled_keys(&place).await.iter().any(|key| key == "ada"));
    typed(&place, &host, &["handlers", "resume", "first", "--key", "ada"]);
    until(&host, "done", 301).await;
    host.stop();
    let ada = handled_keys(&place).await.iter().filter(|key| *key == "ada").count();
    assert_eq!(ada, 300);
}
