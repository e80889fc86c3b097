//! Several hosts on one log: each works on the shards that it owns, and gains and loses them while messages flow.

use crate::checker::{self, History};
use crate::harness::native::{Native, count};
use crate::harness::{PATIENCE, counts, dead_letters, everything, watch};
use futures_util::FutureExt;
use sluicebox::clock::Timestamp;
use sluicebox::cluster::{About, Cluster};
use sluicebox::commit::{Over, Pin};
use sluicebox::config::Start;
use sluicebox::control::Command;
use sluicebox::handler::{Digest, HandlerName, Policy, ShardId};
use sluicebox::host::{Handler, Host, Owned};
use sluicebox::log::memory::MemoryLog;
use sluicebox::log::{Heartbeat, HostId, Log, Routings, Runs};
use sluicebox::message::{Key, NewMessage, Offset};
use sluicebox::reader::Options;
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Span};
use sluicebox::telemetry::Metrics;
use sluicebox::topic::{Pattern, Topic};
use sluicebox::vital::Vital;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KEYS: usize = 64;

fn name() -> HandlerName {
    HandlerName::parse("order").unwrap()
}

fn key(number: usize) -> Key {
    Key::parse(&format!("k{number}")).unwrap().unwrap()
}

/// Messages for every key in turn.
fn messages(count: usize) -> Vec<NewMessage> {
    messages_on("in", count)
}

fn messages_on(topic: &str, count: usize) -> Vec<NewMessage> {
    let topic = Topic::parse(topic).unwrap();
    let message = |number| NewMessage { key: Some(key(number % KEYS)), ..NewMessage::new(topic.clone(), "") };
    (0..count).map(message).collect()
}

fn owned(indices: impl IntoIterator<Item = u16>) -> Owned {
    Owned::Only(indices.into_iter().map(|index| ShardId { handler: name(), index }).collect())
}

/// A host and the keys that it handled.
struct Working {
    host: Host,
    handled: Arc<Mutex<BTreeSet<Key>>>,
    handler: Handler,
}

impl Working {
    async fn start(log: &Arc<dyn Log>, owned: Owned) -> Self {
        let handled = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = handled.clone();
        let invoke = Native::new(move |call| {
            seen.lock().unwrap().extend(call.key.clone());
            async move {
                tokio::task::yield_now().await;
                Ok(count(&call, "out"))
            }
        });
        let handler = Handler {
            name: name(),
            subscribe: vec![Pattern::parse("in").unwrap()],
            key: KeyFrom::Message,
            id: IdFrom::Message,
            shards: 8,
            start: Start::Earliest,
            policy: Policy::default(),
            invoke,
        };
        let (handlers, metrics) = (vec![handler.clone()], Arc::new(Metrics::new()));
        let options = Options { inbox_messages_max: 16, ..Options::default() };
        let host = Host::start_as_owner(log.clone(), handlers, metrics, options, owned).await.unwrap();
        Self { host, handled, handler }
    }

    fn handled(&self) -> BTreeSet<Key> {
        self.handled.lock().unwrap().clone()
    }
}

async fn routing(log: &dyn Log) -> Routing {
    log.routings().await.unwrap().routings.remove(0)
}

fn keys_of(routing: &Routing, shards: &[u16]) -> BTreeSet<Key> {
    (0..KEYS).map(key).filter(|key| shards.contains(&routing.shard_of(key))).collect()
}

/// Waits until every key of these shards was handled `times`.
async fn until_handled(log: &dyn Log, routing: &Routing, shards: &[u16], times: usize) {
    let expected: BTreeMap<Key, usize> = keys_of(routing, shards).into_iter().map(|key| (key, times)).collect();
    let mut handled = BTreeMap::<Key, usize>::new();
    watch(log, |message| {
        if message.topic.as_str() == "out" {
            *handled.entry(message.key.clone().unwrap()).or_default() += 1;
        }
        expected.iter().all(|(key, times)| handled.get(key).is_some_and(|handled| handled >= times))
    })
    .await;
}

async fn check_exactly_once(log: &dyn Log, handler: &Handler) {
    let (mut routing, keys) = (routing(log).await, (0..KEYS).map(key).collect::<Vec<_>>());
    if routing.start() > Offset::START {
        // The log forgets a subscription that no shard needs any more.
        routing.spans.insert(0, Span { after: Offset::START, subscribe: handler.subscribe.clone() });
    }
    let checked = checker::Handler {
        state: counts(log, &routing, &keys).await,
        routing,
        policy: handler.policy.clone(),
        output: "out".into(),
        ordered: true,
        life: Default::default(),
    };
    let history = History {
        messages: everything(log).await,
        dead: dead_letters(log).await,
        handlers: vec![checked],
        ..History::default()
    };
    checker::check(&history).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_handles_the_keys_of_its_shards_and_gains_and_loses_them_while_messages_flow() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let working = Working::start(&log, owned([3, 5])).await;
    let routing = routing(&*log).await;
    log.append(messages(KEYS * 4)).await.unwrap();
    until_handled(&*log, &routing, &[3, 5], 4).await;
    assert_eq!(working.handled(), keys_of(&routing, &[3, 5]));

    working.host.own(owned([1, 3, 5])).await;
    log.append(messages(KEYS * 4)).await.unwrap();
    // What was there before it was gained comes first.
    until_handled(&*log, &routing, &[1, 3, 5], 8).await;
    assert_eq!(working.handled(), keys_of(&routing, &[1, 3, 5]));

    let flow = async {
        for _ in 0..40 {
            log.append(messages(KEYS)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(flow, working.host.own(owned([1, 5])));
    until_handled(&*log, &routing, &[1, 5], 48).await;
    let status = |index| log.status().map(move |all| all.unwrap().into_iter().find(|one| one.shard.index == index));
    // It left at a message boundary: what it took up is settled, and what it wrote is what it read.
    let lost = status(3).await.unwrap();
    assert_eq!(lost.open, 0);
    log.append(messages(KEYS)).await.unwrap();
    until_handled(&*log, &routing, &[1, 5], 49).await;
    assert_eq!(status(3).await.unwrap().read, lost.read, "a lost shard moves no more");

    // Whoever gets the rest goes on where it stopped.
    let other = Working::start(&log, owned([0, 2, 3, 4, 6, 7])).await;
    until_handled(&*log, &routing, &[0, 1, 2, 3, 4, 5, 6, 7], 49).await;
    assert_eq!(other.handled(), keys_of(&routing, &[0, 2, 3, 4, 6, 7]));
    working.host.stop().await;
    other.host.stop().await;
    check_exactly_once(&*log, &working.handler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_handle_everything_once_and_both_hear_operators() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (even, odd) =
        (Working::start(&log, owned([0, 2, 4, 6])).await, Working::start(&log, owned([1, 3, 5, 7])).await);
    let none = Working::start(&log, owned([])).await;
    let routing = routing(&*log).await;
    let all: Vec<u16> = (0..8).collect();
    for _ in 0..20 {
        log.append(messages(KEYS)).await.unwrap();
    }
    until_handled(&*log, &routing, &all, 20).await;

    let pin = Pin { digest: Digest::of(b"old"), over: Over::File(Digest::of(b"new")) };
    let commands = [Command::Rollback { pin }, Command::Pause].map(|command| command.message(&name()));
    let offsets = log.append(commands.to_vec()).await.unwrap();
    for working in [&even, &odd, &none] {
        let mut pins = working.host.pins();
        let seen = pins.wait_for(|pins| pins.get(&name()) == Some(&pin));
        tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap();
    }
    let paused = async {
        while !log.status().await.unwrap().iter().all(|status| status.control.paused) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, paused).await.unwrap();
    for status in log.status().await.unwrap() {
        assert_eq!((status.control.pin, Offset(status.control.pin_command)), (Some(pin), offsets[0]));
    }

    log.append(messages(KEYS)).await.unwrap();
    log.append(vec![Command::Unpin.message(&name()), Command::Resume.message(&name())]).await.unwrap();
    until_handled(&*log, &routing, &all, 21).await;
    for working in [&even, &odd, &none] {
        let mut pins = working.host.pins();
        let seen = pins.wait_for(|pins| pins.is_empty());
        tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap();
    }
    assert_eq!(even.handled(), keys_of(&routing, &[0, 2, 4, 6]));
    assert_eq!(odd.handled(), keys_of(&routing, &[1, 3, 5, 7]));
    for working in [&even, &odd, &none] {
        working.host.stop().await;
    }
    check_exactly_once(&*log, &even.handler).await;
}

/// Waits until each of these messages was handled.
async fn until_done(log: &dyn Log, offsets: &[Offset]) {
    let mut left: BTreeSet<u64> = offsets.iter().map(|offset| offset.0).collect();
    watch(log, |message| {
        if message.topic.as_str() == "out" {
            let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            left.remove(&body["source"].as_u64().unwrap());
        }
        left.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_one_host_changes_holds_from_one_place_on_for_the_shards_of_all() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (even, odd) =
        (Working::start(&log, owned([0, 2, 4, 6])).await, Working::start(&log, owned([1, 3, 5, 7])).await);
    log.append([messages(KEYS), messages_on("more", KEYS)].concat()).await.unwrap();
    let flow = async {
        for _ in 0..100 {
            log.append([messages(KEYS), messages_on("more", KEYS)].concat()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let more = ["in", "more"].map(|pattern| Pattern::parse(pattern).unwrap()).to_vec();
    let changed = Handler { subscribe: more, ..odd.handler.clone() };
    let (applied, ()) = tokio::join!(odd.host.apply(vec![changed]), flow);
    applied.unwrap();
    // Nobody told the other host, and after a while it has nothing to do by which it would notice.
    let last = log.append(messages_on("more", KEYS)).await.unwrap();
    until_done(&*log, &last).await;
    let all = (0..KEYS).map(key).collect();
    assert_eq!(even.handled().union(&odd.handled()).cloned().collect::<BTreeSet<Key>>(), all);
    even.host.stop().await;
    odd.host.stop().await;
    check_exactly_once(&*log, &even.handler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_changes_of_a_handler_does_not_take_back_a_subscription_that_another_changed() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (even, odd) =
        (Working::start(&log, owned([0, 2, 4, 6])).await, Working::start(&log, owned([1, 3, 5, 7])).await);
    let more = ["in", "more"].map(|pattern| Pattern::parse(pattern).unwrap()).to_vec();
    odd.host.apply(vec![Handler { subscribe: more.clone(), ..odd.handler.clone() }]).await.unwrap();
    // Another module, by settings that are still those of before.
    let module = Native::new(|call| async move { Ok(count(&call, "out")) });
    even.host.apply(vec![Handler { invoke: module, ..even.handler.clone() }]).await.unwrap();
    assert_eq!(routing(&*log).await.spans.last().unwrap().subscribe, more);
    let last = log.append(messages_on("more", KEYS)).await.unwrap();
    until_done(&*log, &last).await;
    even.host.stop().await;
    odd.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_a_host_began_and_did_not_end_is_ended_by_another() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let (even, odd) =
        (Working::start(&log, owned([0, 2, 4, 6])).await, Working::start(&log, owned([1, 3, 5, 7])).await);
    let more = ["in", "more"].map(|pattern| Pattern::parse(pattern).unwrap()).to_vec();
    // As one does that dies in between.
    let Routings { version, mut routings } = log.routings().await.unwrap();
    routings[0].spans.push(Span { after: Offset::END, subscribe: more.clone() });
    log.put_routings(version, routings).await.unwrap();
    for index in 0..8 {
        log.claim(ShardId { handler: name(), index }, Offset::START).await.unwrap();
    }
    // Of these the others are nobody's: the change is not yet.
    log.append([messages(KEYS), messages_on("more", KEYS)].concat()).await.unwrap();
    odd.host.apply(vec![Handler { subscribe: more, ..odd.handler.clone() }]).await.unwrap();
    let last = log.append(messages_on("more", KEYS)).await.unwrap();
    until_done(&*log, &last).await;
    even.host.stop().await;
    odd.host.stop().await;
    check_exactly_once(&*log, &even.handler).await;
}

/// Waits until the host holds these shards of the handler and no others.
async fn until_held(host: &Host, indices: &[u16]) {
    let mut changes = host.holding().changes();
    let wait = async {
        while host.holding().held().keys().map(|shard| shard.index).collect::<Vec<_>>() != indices {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it holds other shards");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_another_host_claimed_is_left_and_not_claimed_again_before_that_one_gives_it_up_or_a_lease_is_over()
 {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let Working { host, handler, .. } = Working::start(&log, Owned::none()).await;
    let host = Arc::new(host);
    let (metrics, vital) = (Metrics::new(), Vital::default());
    let about = About { name: "a".into(), address: ([127, 0, 0, 1], 1).into(), lease: Duration::from_secs(3) };
    let cluster = Cluster::start(log.clone(), host.clone(), about, &metrics, &vital);
    let all: Vec<u16> = (0..8).collect();
    until_held(&host, &all).await;
    let routing = routing(&*log).await;
    log.append(messages(KEYS)).await.unwrap();
    until_handled(&*log, &routing, &all, 1).await;

    let other = |held: &[u16], sequence| Heartbeat {
        host: HostId(1),
        name: "b".into(),
        address: String::new(),
        version: String::new(),
        features: 1,
        started: Timestamp(0),
        runs: vec![Runs { handler: name(), shards: 0, held: held.iter().copied().collect() }],
        joining: false,
        leaving: false,
        sequence,
    };
    let claim = |index| log.claim(ShardId { handler: name(), index }, Offset::START);
    // One that has nothing to commit is told by what the other one says.
    claim(5).await.unwrap();
    log.beat(other(&[5], 1)).await.unwrap();
    until_held(&host, &[0, 1, 2, 3, 4, 6, 7]).await;
    // One that commits finds out by itself.
    claim(3).await.unwrap();
    log.append(messages(KEYS)).await.unwrap();
    until_held(&host, &[0, 1, 2, 4, 6, 7]).await;
    log.beat(other(&[], 2)).await.unwrap();
    until_held(&host, &[0, 1, 2, 4, 5, 6, 7]).await;
    until_held(&host, &all).await;
    until_handled(&*log, &routing, &all, 2).await;
    let terms: Vec<u64> = log.status().await.unwrap().iter().map(|status| status.term.0).collect();
    assert_eq!(terms, [1, 1, 1, 3, 1, 3, 1, 1], "each claim was one that was needed");
    cluster.leave().await;
    until_held(&host, &[]).await;
    host.stop().await;
    check_exactly_once(&*log, &handler).await;
}
