//! What a server answers when it does not do what it is asked, each provoked on a real one: nothing that was acknowledged goes
//! without a word, and whoever runs the host is told what happened and what to do.

use super::{refused, says};
use crate::harness::everything;
use crate::harness::logs::{commit, message, shard};
use crate::harness::nats::{OwnServer, fresh_namespace, open_nats, options, url};
use crate::harness::nats_cluster::until;
use crate::harness::proxy::{Direction, Proxy};
use async_nats::jetstream::{self, Context, stream};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{CommitError, Committed, ShardCommit};
use sluicebox::effects::EFFECTS_BYTES_MAX;
use sluicebox::log::nats::{Login, NatsLog, Options};
use sluicebox::log::{Log, LogError, Trim};
use sluicebox::message::{BODY_BYTES_MAX, Offset};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

async fn context(url: &str) -> Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

/// What it says once it is in nobody's service any more, or not ready.
async fn until_it_says(log: &NatsLog, part: &str) -> String {
    let mut said = String::new();
    until(part, async || {
        said = log.end().await.err().map(|error| error.to_string()).unwrap_or_default();
        said.contains(part)
    })
    .await;
    said
}

#[tokio::test]
async fn who_has_not_heard_that_its_shard_was_taken_over_is_refused_by_the_server() {
    let server = OwnServer::start();
    let proxy = Proxy::to(server.port());
    let late = open_nats(Options::new(proxy.url(), "t")).unwrap();
    let other = open_nats(Options::new(server.url(), "t")).unwrap();
    let id = shard("h", 0);
    let claim = late.claim(id.clone(), Offset::START).await.unwrap();
    proxy.delay(Direction::ToClient, Duration::from_millis(500));
    other.claim(id.clone(), Offset::START).await.unwrap();
    assert_eq!(late.status().await.unwrap()[0].term, claim.term, "it has heard of it");
    let outputs = vec![message("a", "late")];
    let answer = late.commit(ShardCommit { outputs, ..commit(&id, claim.term, 1) }).await;
    assert_eq!(answer, Err(CommitError::Fenced { shard: id }));
    assert_eq!(everything(&*other).await, []);
}

/// Appends until nothing more is taken, and returns the reason.
async fn fill(log: &NatsLog) -> String {
    for _ in 0..100 {
        match log.append(vec![message("a", vec![1; 200_000])]).await {
            Ok(_) => {}
            Err(LogError::Full { reason }) => return reason,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("it is never full")
}

#[tokio::test]
async fn a_full_stream_takes_nothing_says_how_to_make_room_and_goes_on_when_there_is_room() {
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let context = context(&url()).await;
    let mut stream = context.get_stream(format!("sluicebox-{namespace}")).await.unwrap();
    let discard = stream::DiscardPolicy::New;
    let limited = stream::Config { max_bytes: 1_000_000, discard, ..stream.info().await.unwrap().config.clone() };
    context.update_stream(limited.clone()).await.unwrap();
    says(&fill(&log).await, &["maximum bytes", "raise `max_bytes` of the stream"]);
    let taken = everything(&*log).await;
    assert_eq!(taken.len(), 4);
    let outputs = vec![message("b", vec![2; 200_000])];
    let large = ShardCommit { outputs, ..commit(&id, claim.term, 1) };
    match log.commit(large.clone()).await {
        Err(CommitError::Unavailable { reason, .. }) => says(&reason, &["maximum bytes"]),
        other => panic!("{other:?}"),
    }
    // Who starts now finds all that was acknowledged.
    assert_eq!(everything(&*open_nats(options(&namespace)).unwrap()).await, taken);
    context.update_stream(stream::Config { max_bytes: 10_000_000, ..limited }).await.unwrap();
    assert_eq!(log.commit(large).await, Ok(Committed::default()));
    log.append(vec![message("a", "x")]).await.unwrap();
    assert_eq!(everything(&*log).await.len(), 6);
}

#[tokio::test]
async fn a_full_stream_goes_on_settling_hears_operators_and_lets_old_messages_go() {
    let namespace = fresh_namespace();
    drop(open_nats(options(&namespace)).unwrap());
    let context = context(&url()).await;
    let mut stream = context.get_stream(format!("sluicebox-{namespace}")).await.unwrap();
    let config = stream.info().await.unwrap().config.clone();
    let discard = stream::DiscardPolicy::New;
    context.update_stream(stream::Config { max_bytes: 4_000_000, discard, ..config }).await.unwrap();
    let log = open_nats(options(&namespace)).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    // As many writers at once as fill the reserve, if each looked for itself.
    let writers = (0..8).map(|_| {
        let log = log.clone();
        tokio::spawn(async move { fill(&log).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        says(&writer.await.unwrap(), &["kept for the work under way", "raise `max_bytes`"]);
    }
    let mut number = 0;
    let mut settle = async |more: u64| {
        for _ in 0..more {
            number += 1;
            let outputs = vec![message("b", vec![2; 10_000])];
            let settled = log.commit(ShardCommit { outputs, ..commit(&id, claim.term, number) }).await;
            assert_eq!(settled, Ok(Committed::default()), "{number}");
        }
    };
    settle(20).await;
    log.append(vec![message("_control.h", "resume")]).await.unwrap();
    assert!(matches!(log.append(vec![message("a", "x")]).await, Err(LogError::Full { .. })));
    // Until nothing is left but what makes room.
    loop {
        number += 1;
        let outputs = vec![message("b", vec![2; 10_000])];
        match log.commit(ShardCommit { outputs, ..commit(&id, claim.term, number) }).await {
            Ok(_) => {}
            Err(CommitError::Unavailable { reason, .. }) => break says(&reason, &["raise `max_bytes`"]),
            Err(other) => panic!("{other:?}"),
        }
    }
    number -= 1;
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let older_than = Some(Timestamp(u64::MAX));
    let trim = Trim { older_than, bytes_max: None, holders: vec![], messages_max: 10_000 };
    assert!(log.trim(trim).await.unwrap().deleted > 0);
    log.append(vec![message("a", "x")]).await.unwrap();
    assert_eq!(log.commit(commit(&id, claim.term, number + 1)).await, Ok(Committed::default()));
}

#[tokio::test]
async fn a_server_that_takes_smaller_messages_from_now_on_is_not_ready_until_it_takes_larger_ones_again() {
    let settings = |bytes: usize| format!("jetstream: enabled\nmax_payload: {bytes}");
    let server = OwnServer::configured(&settings(1_048_576));
    let log = open_nats(Options::new(server.url(), "t")).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    server.reconfigure(&settings(4096));
    let large = || vec![message("a", vec![1; 100_000])];
    until("it is refused", async || log.append(large()).await.is_err()).await;
    says(&until_it_says(&log, "raise `max_payload`").await, &["takes messages of 4096 bytes", "589824 are needed"]);
    // It connects anew again and again, so that it hears when larger ones are taken; some answers are lost by that.
    let kept = async || {
        let mut kept = 0;
        until("it answers", async || log.entries_kept().await.map(|found| kept = found).is_ok()).await;
        kept
    };
    let before = kept().await;
    match log.append(large()).await {
        Err(LogError::Unavailable { reason }) => says(&reason, &["raise `max_payload`"]),
        other => panic!("{other:?}"),
    }
    let outputs = large();
    match log.commit(ShardCommit { outputs, ..commit(&id, claim.term, 1) }).await {
        Err(CommitError::Unavailable { reason, .. }) => says(&reason, &["raise `max_payload`"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(kept().await, before, "it writes what nobody can use");
    server.reconfigure(&settings(1_048_576));
    until("it is ready", async || log.end().await.is_ok()).await;
    until("it is taken", async || log.append(large()).await.is_ok()).await;
}

#[tokio::test]
async fn a_full_account_and_a_full_server_take_nothing_and_say_so() {
    let account = OwnServer::configured(
        "jetstream: enabled\naccounts { A { jetstream: { max_file: 1MB, max_mem: 1MB }, users: [ { user: a, password: x } ] } }",
    );
    let login = Login::User { user: "a".into(), password: "x".into() };
    let of_account = Options { login, ..Options::new(account.url(), "t") };
    let server = OwnServer::configured("jetstream { max_file_store: 1MB }");
    for options in [of_account, Options::new(server.url(), "t")] {
        let log = open_nats(options.clone()).unwrap();
        says(&fill(&log).await, &["raise", "the limits of its account or server"]);
        let taken = everything(&*log).await;
        assert!(!taken.is_empty());
        drop(log);
        assert_eq!(everything(&*open_nats(options).unwrap()).await, taken);
    }
}

#[tokio::test]
async fn a_server_that_takes_just_enough_takes_the_largest_effects() {
    let server = OwnServer::configured("jetstream: enabled\nmax_payload: 589824");
    let log = open_nats(Options::new(server.url(), "t")).unwrap();
    log.append(vec![message("a", vec![1; BODY_BYTES_MAX]), message("a", vec![2; BODY_BYTES_MAX])]).await.unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let outputs: Vec<_> =
        (0..EFFECTS_BYTES_MAX / BODY_BYTES_MAX).map(|at| message("b", vec![at as u8; BODY_BYTES_MAX])).collect();
    let large = ShardCommit { outputs, ..commit(&id, claim.term, 1) };
    assert_eq!(log.commit(large).await, Ok(Committed::default()));
    assert_eq!(everything(&*log).await.len(), 2 + EFFECTS_BYTES_MAX / BODY_BYTES_MAX);
}

#[tokio::test]
async fn a_stream_that_was_removed_under_a_host_is_missed_and_one_made_anew_is_not_taken_for_it() {
    let context = context(&url()).await;
    for end in ["", "-state"] {
        let namespace = fresh_namespace();
        let log = open_nats(options(&namespace)).unwrap();
        log.append(vec![message("a", "x")]).await.unwrap();
        let name = format!("sluicebox-{namespace}{end}");
        let config = context.get_stream(&name).await.unwrap().cached_info().config.clone();
        context.delete_stream(&name).await.unwrap();
        says(&until_it_says(&log, "was removed").await, &[&name, "nats stream restore"]);
        if end.is_empty() {
            assert!(matches!(log.append(vec![message("a", "y")]).await, Err(LogError::Unavailable { .. })));
        }
        says(&refused(options(&namespace)), &[&format!("stream {name} is not"), "what was acknowledged is lost"]);
        // Removed and made again: another stream of the name.
        context.create_stream(config).await.unwrap();
        says(&until_it_says(&log, "made again").await, &[&name, "what was acknowledged is lost"]);
        assert!(log.append(vec![message("a", "z")]).await.is_err());
    }
}

#[tokio::test]
async fn a_stream_that_was_purged_or_lost_an_entry_ends_its_hosts_with_the_reason() {
    let context = context(&url()).await;
    for part in [false, true] {
        let namespace = fresh_namespace();
        let log = open_nats(options(&namespace)).unwrap();
        for _ in 0..5 {
            log.append(vec![message("a", "x")]).await.unwrap();
        }
        let stream = context.get_stream(format!("sluicebox-{namespace}")).await.unwrap();
        if part {
            stream.delete_message(3).await.unwrap();
        } else {
            stream.purge().await.unwrap();
        }
        let word = if part { "deleted out of the middle" } else { "were purged, and not by a host" };
        says(&until_it_says(&log, word).await, &["restore"]);
        assert!(log.append(vec![message("a", "y")]).await.is_err());
        says(&refused(options(&namespace)), &[word]);
    }
}

#[tokio::test]
async fn a_consumer_that_was_deleted_is_made_again_and_nothing_is_missed() {
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let mut tail = log.tail().await.unwrap();
    let context = context(&url()).await;
    let stream = context.get_stream(format!("sluicebox-{namespace}")).await.unwrap();
    let mut appended = vec![];
    for _ in 0..3 {
        appended.extend(log.append(vec![message("a", "x")]).await.unwrap());
        let names: serde_json::Value =
            context.request(format!("CONSUMER.NAMES.sluicebox-{namespace}"), &()).await.unwrap();
        let names = names["consumers"].as_array().unwrap();
        assert!(!names.is_empty());
        for name in names {
            stream.delete_consumer(name.as_str().unwrap()).await.unwrap();
        }
    }
    appended.extend(log.append(vec![message("a", "x")]).await.unwrap());
    let mut told = vec![];
    while told.len() < appended.len() {
        let batch: Arc<_> = tail.next().await.unwrap().unwrap();
        told.extend(batch.messages.iter().map(|message| message.offset));
    }
    assert_eq!(told, appended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_others_write_to_is_opened_without_waiting_for_an_answer_that_does_not_come() {
    const OPENED: u32 = 5;
    /// What the server may take to answer one question.
    const ANSWER: Duration = Duration::from_secs(10);
    let server = OwnServer::start();
    let busy = open_nats(Options::new(server.url(), "t")).unwrap();
    let writers = (0..8).map(|_| {
        let busy = busy.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { while busy.append(vec![message("a", "")]).await.is_ok() {} }))
    });
    let writers: Vec<AbortOnDropHandle<()>> = writers.collect();
    let began = Instant::now();
    for _ in 0..OPENED {
        drop(open_nats(Options::new(server.url(), "t")).unwrap());
    }
    assert!(began.elapsed() < ANSWER * OPENED, "{:?}", began.elapsed());
    assert!(writers.iter().all(|writer| !writer.is_finished()));
}
