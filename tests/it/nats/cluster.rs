//! Three servers, three copies: the log's contract holds there, and whichever of them is killed, also the leader in the middle
//! of it, nothing acknowledged is lost and nothing is there twice.

use crate::conformance;
use crate::harness::everything;
use crate::harness::guests::handler;
use crate::harness::logs::{commit, message, shard};
use crate::harness::nats::open_nats;
use crate::harness::nats_cluster::{Cluster, until};
use crate::harness::process::Place;
use async_nats::jetstream::stream;
use futures_util::future::join_all;
use sluicebox::commit::{CommitError, ShardCommit};
use sluicebox::log::Log;
use sluicebox::log::nats::{NatsLog, Options};
use sluicebox::message::Offset;
use std::collections::BTreeMap;
use std::sync::Arc;

fn open(cluster: &Cluster, namespace: &str) -> Arc<NatsLog> {
    open_nats(Options { replicas: 3, ..Options::new(cluster.url(), namespace) }).unwrap()
}

/// One cluster for all: it takes seconds to start one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_copies_keep_the_contract_and_outlive_the_loss_of_any_server() {
    let mut cluster = Cluster::start().await;
    contract_holds(&cluster).await;
    writes_at_once_are_all_answered(&cluster).await;
    a_write_that_meets_another_one_is_tried_again(&cluster).await;
    outlives_kills(&mut cluster).await;
    program_outlives_kills(&mut cluster).await;
}

macro_rules! hold {
    ($cluster:expr, $($room:ident::$claim:ident),* $(,)?) => {{
        let mut number = 0;
        $(
            number += 1;
            let log: Arc<dyn Log> = open($cluster, &format!("c{number}"));
            conformance::$room::$claim::holds(log).await;
        )*
        println!("{number} claims of the contract hold on three copies");
    }};
}

/// Of each room of the contract what could differ where there are several copies.
async fn contract_holds(cluster: &Cluster) {
    hold!(
        cluster,
        append::offsets_rise_and_times_never_fall,
        append::appends_at_once_each_keep_their_order,
        append::a_message_at_the_limits_is_taken,
        commit::a_claim_raises_the_term_and_keeps_the_record,
        commit::a_fenced_commit_writes_nothing,
        commit::each_shard_is_answered_for_itself,
        commit::commits_of_one_shard_at_once_follow_each_other,
        commit::outputs_of_a_commit_are_adjacent_also_among_appends,
        commit::state_is_read_back_as_last_committed,
        commit::a_load_is_never_older_than_the_last_answered_commit,
        dead::the_oldest_letters_of_a_handler_beyond_the_maximum_go,
        forget::a_forgotten_handler_is_fenced_and_its_name_is_that_of_a_new_one,
        read::a_read_sees_all_that_was_acknowledged_before_it,
        record::a_claim_returns_what_commits_wrote_in_every_field,
        reroute::a_rerouted_handler_has_new_records_and_its_neighbours_theirs,
        routings::of_two_changes_to_one_version_one_wins,
        tail::tails_neither_skip_nor_repeat_while_others_append,
        trim::what_was_deleted_is_gone_and_its_offsets_are_not_used_again,
    );
    assert!(open(cluster, "c1").guarantees().summary.contains("most of 3 servers"));
}

/// Where there are copies, a write that meets another one under way is refused for that; it is sent again.
async fn writes_at_once_are_all_answered(cluster: &Cluster) {
    let logs = [open(cluster, "once"), open(cluster, "once")];
    let tasks = (0..8u16).map(|task| {
        let (log, id) = (logs[usize::from(task % 2)].clone(), shard("h", task / 4));
        tokio::spawn(async move {
            let mut written = 0;
            while written < 5 {
                let claim = log.claim(id.clone(), Offset::START).await.unwrap();
                let number = claim.record.commit_number + 1;
                let outputs = vec![message("a", format!("{}/{number}", id.index))];
                match log.commit(ShardCommit { outputs, ..commit(&id, claim.term, number) }).await {
                    Ok(_) => written += 1,
                    Err(CommitError::Fenced { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for message in everything(&*logs[0]).await {
        *counts.entry(String::from_utf8(message.body.to_vec()).unwrap()).or_default() += 1;
    }
    assert_eq!((counts.len(), counts.values().copied().max()), (40, Some(1)));
}

/// The server refuses a second write behind the same fence while the first is on its way to the copies, with another word than
/// that of the fence (10164): nobody knows yet whether it is stale.
async fn a_write_that_meets_another_one_is_tried_again(cluster: &Cluster) {
    let context = cluster.context().await;
    let client = context.client();
    let subjects = vec!["meets".into()];
    let config = stream::Config { name: "meets".into(), subjects, num_replicas: 3, ..Default::default() };
    context.create_stream(config).await.unwrap();
    let mut codes: BTreeMap<u64, usize> = BTreeMap::new();
    let mut last = 0;
    while codes.get(&10164).is_none_or(|met| *met < 10) && codes.values().sum::<usize>() < 10_000 {
        let writes = (0..8).map(|_| {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
            let request = async_nats::Request::new().headers(headers).payload("x".into());
            client.send_request("meets", request)
        });
        for answer in join_all(writes).await {
            let answer: serde_json::Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
            *codes.entry(answer["error"]["err_code"].as_u64().unwrap_or(0)).or_default() += 1;
            last = last.max(answer["seq"].as_u64().unwrap_or(0));
        }
    }
    println!("answers to writes that meet, by code: {codes:?}");
    assert!(
        codes.get(&10164).is_some_and(|met| *met >= 10) && codes.keys().all(|code| [0, 10071, 10164].contains(code))
    );

    // Two hosts with the same claim: of two commits at once one is there, and the other one is fenced and nothing else.
    let (logs, id) = ([open(cluster, "meets"), open(cluster, "meets")], shard("h", 0));
    let claim = logs[0].claim(id.clone(), Offset::START).await.unwrap();
    for number in 1..=30 {
        until("both know the last", async || {
            let known = join_all(logs.iter().map(|log| log.status())).await;
            known.iter().all(|known| {
                known.as_ref().is_ok_and(|known| {
                    known.first().is_some_and(|known| known.term == claim.term && known.commit_number == number - 1)
                })
            })
        })
        .await;
        let commits = logs.iter().zip(["first", "second"]).map(|(log, body)| {
            let outputs = vec![message("a", format!("{number} {body}"))];
            log.commit(ShardCommit { outputs, ..commit(&id, claim.term, number) })
        });
        let answers = join_all(commits).await;
        let fenced = |answer: &Result<_, _>| matches!(answer, Err(CommitError::Fenced { .. }));
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| fenced(answer)).count(), 1, "{answers:?}");
    }
    assert_eq!(everything(&*logs[0]).await.len(), 30);
}

/// Appends and commits while each server is killed, the leader first, then whoever leads next, then any.
async fn outlives_kills(cluster: &mut Cluster) {
    let (log, id) = (open(cluster, "kills"), shard("h", 0));
    let (mut appended, mut committed) = (vec![], vec![]);
    for round in 0..3u64 {
        let killed = cluster.leader_of("sluicebox-kills").await;
        cluster.servers[killed].kill();
        let body = format!("appended {round}");
        until("it is appended", async || log.append(vec![message("a", body.clone())]).await.is_ok()).await;
        appended.push(body);
        let body = format!("committed {round}");
        until("it is committed", async || {
            let Ok(claim) = log.claim(id.clone(), Offset::START).await else { return false };
            // What was of unknown fate may be there.
            if claim.record.commit_number > round {
                return true;
            }
            let outputs = vec![message("b", body.clone())];
            log.commit(ShardCommit { outputs, ..commit(&id, claim.term, round + 1) }).await.is_ok()
        })
        .await;
        committed.push(body);
        cluster.servers[killed].start_again();
        cluster.until_whole("sluicebox-kills").await;
    }
    for log in [log, open(cluster, "kills")] {
        let all = everything(&*log).await;
        let bodies = |topic: &str| -> Vec<String> {
            let of_topic = all.iter().filter(|message| message.topic.as_str() == topic);
            of_topic.map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
        };
        assert_eq!(bodies("b"), committed);
        // What was not acknowledged may be there as well.
        let mut once = bodies("a");
        once.dedup();
        assert_eq!(once, appended);
    }
}

/// The program with a client that sends again what was not acknowledged: what comes out is one for each order.
async fn program_outlives_kills(cluster: &mut Cluster) {
    let place = Place::new("", &[&handler("order")]);
    place.put(
        "sluicebox.toml",
        format!(
            "namespace = \"program\"\n[log]\nkind = \"nats\"\nreplicas = 3\nurl = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [handlers.order]\nmodule = \"order.wasm\"\nsubscribe = [\"events.*\"]\nstart = \"earliest\"\n\
             publish = [\"orders.*\"]\nkey = [\"/args/user\"]\nid = \"/id\"\n",
            cluster.url()
        ),
    );
    let host = place.start();
    let mut sent = vec![];
    for round in 0..3 {
        let killed = if round == 0 { cluster.leader_of("sluicebox-program").await } else { round };
        cluster.servers[killed].kill();
        for number in 0..20 {
            let id = format!("{round}-{number}");
            let user = number % 5;
            let body = format!(r#"{{"type":"new_order","id":"{id}","args":{{"user":"{user}","amount_cents":1}}}}"#);
            until("it is taken", async || host.publish("events.new_order", None, None, &body).await).await;
            sent.push(id);
        }
        cluster.servers[killed].start_again();
        cluster.until_whole("sluicebox-program").await;
    }
    let log = open(cluster, "program");
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    until("all are handled", async || {
        accepted.clear();
        for message in everything(&*log).await.iter().filter(|m| m.topic.as_str() == "orders.accepted") {
            let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            *accepted.entry(body["order"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        accepted.len() == sent.len()
    })
    .await;
    assert!(accepted.values().all(|count| *count == 1), "{accepted:?}");
    assert!(host.stop().success());
}
