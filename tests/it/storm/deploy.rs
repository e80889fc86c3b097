//! Versions of a module that are deployed through the log, under load, while two processes share the shards: each message is
//! handled once, by a version that was in force when it came, and after the swap by no other one.

use super::checker::{Account, check};
use super::hosts::Member;
use super::load::{Load, Told};
use super::observer::Observer;
use super::servers::Servers;
use super::{settled, still_settled};
use crate::harness::guests::ledger;
use crate::harness::nats_cluster::until;
use sluicebox::handler::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;

const HANDLER_TOPIC: &str = "out.first";
const VERSIONS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_on_nats_swap_what_is_deployed_and_handle_each_message_once() {
    deploys(Servers::one_nats()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_on_redis_swap_what_is_deployed_and_handle_each_message_once() {
    deploys(Servers::redis()).await;
}

async fn deploys(servers: Servers) {
    let told = Arc::<Told>::default();
    let mut hosts =
        vec![Member::start(0, &servers, told.clone()).await, Member::start(1, &servers, told.clone()).await];
    let observer = Observer::start(servers.open()).await;
    let load = Load::start(told.clone());
    // By version how many of each key there were when every host had it in force.
    let mut in_force: Vec<(u64, BTreeMap<String, usize>)> = vec![];
    for version in 1..=VERSIONS {
        let asked = version as usize % hosts.len();
        let process = hosts[asked].process();
        let url = format!("{}/v1/handlers/first/module", process.url);
        let answer = process.client.put(url).body(ledger(version)).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        if version % 3 == 0 {
            // Whoever was asked is gone before it can have done anything of its own.
            hosts[asked].kill().await;
            hosts[asked].start_again().await;
        }
        let digest = Digest::of(&ledger(version)).to_string();
        for host in &hosts {
            until("the version is in force", async || {
                let view: serde_json::Value =
                    serde_json::from_str(&host.process().get("/v1/handlers/first").await).unwrap_or_default();
                view["running"]["digest"] == *digest
            })
            .await;
        }
        let published = told.published();
        in_force.push((version, published.iter().map(|(key, ids)| (key.clone(), ids.len())).collect()));
        until("each key goes on", async || observer.each_goes_on_after(&published)).await;
    }
    load.end().await;
    let account = settled(&observer, &told).await;
    check_versions(&account, &in_force).unwrap();
    let late = Account {
        entries: account.entries.iter().cloned().map(|entry| super::checker::Entry { version: 1, ..entry }).collect(),
        ..account.clone()
    };
    assert_eq!(check(&late), Ok(()), "each is there once all the same");
    assert!(check_versions(&late, &in_force).unwrap_err().contains("is in force"), "what an old version did is seen");
    for host in &mut hosts {
        host.stop().await;
        host.check_said();
    }
    still_settled(&observer, &told).await;
    println!("{} messages, {VERSIONS} versions", account.published.values().map(Vec::len).sum::<usize>());
}

/// The first message that a version handled which was not in force any more, in words.
fn check_versions(account: &Account, in_force: &[(u64, BTreeMap<String, usize>)]) -> Result<(), String> {
    let mut seen: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for entry in account.entries.iter().filter(|entry| entry.topic == HANDLER_TOPIC) {
        let (count, before) = seen.entry(&entry.key).or_default();
        let key = &entry.key;
        // One may have been on its way when the version came in force.
        let is_after = |marks: &BTreeMap<String, usize>| *count > marks.get(key).copied().unwrap_or(0);
        let due = in_force.iter().filter(|(_, marks)| is_after(marks)).map(|(version, _)| *version).max().unwrap_or(0);
        if entry.version < due {
            return Err(format!("version {} handled number {count} of {key} when {due} is in force", entry.version));
        }
        if entry.version < *before {
            return Err(format!("{key} went back from version {before} to {}", entry.version));
        }
        (*count, *before) = (*count + 1, entry.version);
    }
    Ok(())
}
