//! The whole way of a message over the in-memory log with native handlers: reader, shards, committer.

use crate::checker::{self, History};
use crate::harness::native::{Native, count};
use crate::harness::{counts, dead_letters, everything, watch};
use sluicebox::config::Start;
use sluicebox::handler::{HandlerName, OnFailure, Policy, Retry};
use sluicebox::host::{Handler, Host, StartError};
use sluicebox::invoke::{Failure, Invoke};
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{Key, NewMessage};
use sluicebox::reader::Options;
use sluicebox::routing::{IdFrom, KeyFrom};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::{Pattern, Topic};
use std::sync::Arc;
use std::time::Duration;

fn handler(name: &str, subscribe: &str, invoke: Arc<dyn Invoke>) -> Handler {
    Handler {
        name: HandlerName::parse(name).unwrap(),
        subscribe: vec![Pattern::parse(subscribe).unwrap()],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards: 4,
        start: Start::Earliest,
        policy: Policy {
            retry: Retry { attempts: 3, min: Duration::from_millis(1), max: Duration::from_millis(5) },
            ..Policy::default()
        },
        invoke,
    }
}

fn message(topic: &str, key: usize, id: Option<String>, body: &str) -> NewMessage {
    let mut message = NewMessage::new(Topic::parse(topic).unwrap(), body.to_owned());
    message.key = Key::parse(&format!("k{key}")).unwrap();
    message.id = id.map(Into::into);
    message
}

async fn history(log: &dyn Log, handlers: &[Handler], outputs: &[&str], keys: usize) -> History {
    let routings = log.routings().await.unwrap().routings;
    let keys: Vec<Key> = (0..keys).filter_map(|key| Key::parse(&format!("k{key}")).unwrap()).collect();
    let mut checked = vec![];
    for (handler, output) in handlers.iter().zip(outputs) {
        let routing = routings.iter().find(|routing| routing.handler == handler.name).unwrap();
        checked.push(checker::Handler {
            state: counts(log, routing, &keys).await,
            routing: routing.clone(),
            policy: handler.policy.clone(),
            output: (*output).into(),
            ordered: handler.policy.on_failure == OnFailure::Park,
            life: Default::default(),
        });
    }
    History { messages: everything(log).await, dead: dead_letters(log).await, handlers: checked, ..History::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_handlers_handles_each_message_once_and_in_order() {
    const MESSAGES: usize = 20_000;
    const KEYS: usize = 200;
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let first = Native::new(|call| async move {
        match (&call.message.body[..], call.attempt) {
            (b"fail", 1..3) => Err(Failure::Retry { reason: "not yet".into(), after: None }),
            (b"reject", _) => Err(Failure::Reject { reason: "never".into() }),
            (b"wait", _) => {
                tokio::task::yield_now().await;
                Ok(count(&call, "out.first"))
            }
            _ => Ok(count(&call, "out.first")),
        }
    });
    let second = Native::new(|call| async move { Ok(count(&call, "out.second")) });
    let handlers = vec![handler("first", "in", first), handler("second", "out.first", second)];
    let metrics = Arc::new(Metrics::new());
    let options = Options { inbox_messages_max: 64, ..Options::default() };
    let host = Host::start(log.clone(), handlers.clone(), metrics.clone(), options).await.unwrap();
    let mut ids = 0;
    for chunk in 0..MESSAGES / 100 {
        let messages = (0..100).map(|number| {
            let body = match number % 50 {
                3 => "fail",
                4 => "reject",
                5..10 => "wait",
                _ => "ok",
            };
            ids += 1;
            // Every tenth message repeats an earlier id of the same key, so of the same shard.
            let id = if number % 10 == 9 { ids - 1 } else { ids };
            message("in", (chunk * 7 + number / 2) % KEYS, Some(format!("id{id}")), body)
        });
        log.append(messages.collect()).await.unwrap();
    }
    log.append(vec![message("in", 0, None, "last")]).await.unwrap();
    let mut outputs = 0;
    let log_in = log.clone();
    let expected = (MESSAGES / 100) * (100 - 2 - 10) + 1;
    watch(&*log_in, |message| {
        outputs += usize::from(message.topic.as_str() == "out.second");
        outputs == expected
    })
    .await;
    host.stop().await;
    checker::check(&history(&*log, &handlers, &["out.first", "out.second"], KEYS).await).unwrap();
    let rendered = metrics.render();
    assert!(
        rendered.contains(r#"sluicebox_messages_total{handler="first",outcome="duplicate",topic="in"} 2000"#),
        "{rendered}"
    );
}

#[tokio::test]
async fn every_run_of_a_repeated_id_reaches_the_next_handler() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let first = Native::new(|call| async move { Ok(count(&call, "out.first")) });
    let second = Native::new(|call| async move { Ok(count(&call, "out.second")) });
    let mut handlers = vec![handler("first", "in.>", first), handler("second", "out.first", second)];
    handlers[0].policy.dedup = None;
    let host = Host::start(log.clone(), handlers, Arc::new(Metrics::new()), Options::default()).await.unwrap();
    let same = |topic: &str| message(topic, 1, Some("same".into()), "ok");
    log.append(vec![same("in.a"), same("in.a"), same("in.b")]).await.unwrap();
    let mut outputs = 0;
    watch(&*log, |message| {
        outputs += usize::from(message.topic.as_str() == "out.second");
        outputs == 3
    })
    .await;
    host.stop().await;
}

#[tokio::test]
async fn retry_of_one_key_does_not_delay_another() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let invoke = Native::new(|call| async move {
        match &call.message.body[..] {
            b"fail" => Err(Failure::Retry { reason: "down".into(), after: Some(Duration::from_secs(3600)) }),
            _ => Ok(count(&call, "out")),
        }
    });
    let handlers = vec![handler("h", "in", invoke)];
    let host = Host::start(log.clone(), handlers, Arc::new(Metrics::new()), Options::default()).await.unwrap();
    let mut messages = vec![message("in", 1, None, "fail"), message("in", 1, None, "behind it")];
    messages.extend((2..50).map(|key| message("in", key, None, "ok")));
    log.append(messages).await.unwrap();
    let mut done = 0;
    watch(&*log, |message| {
        done += usize::from(message.topic.as_str() == "out");
        done == 48
    })
    .await;
    host.stop().await;
    let status = log.status().await.unwrap();
    assert_eq!(status.iter().map(|shard| shard.open).sum::<u64>(), 1);
    assert!(
        everything(&*log)
            .await
            .iter()
            .all(|message| message.key.as_ref().unwrap().as_str() != "k1" || message.topic.as_str() == "in")
    );
}

#[tokio::test]
async fn attempts_and_waiting_keys_survive_a_restart() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let seen = Arc::new(std::sync::Mutex::new(vec![]));
    let make = |fail: bool| {
        let seen = seen.clone();
        Native::new(move |call| {
            seen.lock().unwrap().push((call.message.body.clone(), call.attempt));
            async move {
                match (&call.message.body[..], fail) {
                    (b"a", true) => {
                        Err(Failure::Retry { reason: "down".into(), after: Some(Duration::from_millis(300)) })
                    }
                    _ => Ok(count(&call, "out")),
                }
            }
        })
    };
    let host =
        Host::start(log.clone(), vec![handler("h", "in", make(true))], Arc::new(Metrics::new()), Options::default())
            .await;
    log.append(vec![message("in", 1, None, "a"), message("in", 1, None, "b"), message("in", 2, None, "c")])
        .await
        .unwrap();
    watch(&*log, |message| message.topic.as_str() == "out").await;
    host.unwrap().stop().await;
    let host =
        Host::start(log.clone(), vec![handler("h", "in", make(false))], Arc::new(Metrics::new()), Options::default())
            .await;
    let mut outputs = 0;
    watch(&*log, |message| {
        outputs += usize::from(message.topic.as_str() == "out");
        outputs == 3
    })
    .await;
    host.unwrap().stop().await;
    let seen = seen.lock().unwrap();
    let of = |body: &str| seen.iter().filter(|(b, _)| b == body).map(|(_, attempt)| *attempt).collect::<Vec<_>>();
    let tries: Vec<u32> = of("a");
    assert!(tries.len() >= 2 && tries.iter().copied().eq(1..=tries.len() as u32), "{tries:?}");
    assert_eq!((of("b"), of("c")), (vec![1], vec![1]));
}

#[tokio::test]
async fn changed_shards_of_a_known_handler_are_refused() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let invoke = Native::new(|call| async move { Ok(count(&call, "out")) });
    let original = handler("h", "in", invoke);
    let host =
        Host::start(log.clone(), vec![original.clone()], Arc::new(Metrics::new()), Options::default()).await.unwrap();
    host.stop().await;
    let changed = Handler { shards: 5, ..original };
    let Err(StartError::Routing(refused)) =
        Host::start(log, vec![changed], Arc::new(Metrics::new()), Options::default()).await
    else {
        panic!("it started");
    };
    assert!(refused[0].to_string().contains("shards = 4, the settings now say 5"), "{}", refused[0]);
}

/// A permit that goes from one waiting shard to the next, unused, would stop all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_shards_than_permits_share_them() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let invoke = Native::new(|call| async move {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        Ok(count(&call, "out"))
    });
    let mut limited = handler("h", "in", invoke);
    (limited.shards, limited.policy.concurrency) = (16, 2);
    let host = Host::start(log.clone(), vec![limited], Arc::new(Metrics::new()), Options::default()).await.unwrap();
    log.append((0..2000).map(|number| message("in", number, None, "ok")).collect()).await.unwrap();
    let mut done = 0;
    watch(&*log, |message| {
        done += usize::from(message.topic.as_str() == "out");
        done == 2000
    })
    .await;
    host.stop().await;
}
