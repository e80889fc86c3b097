//! Question: what does a shard itself cost per message, from taking it up until its commit is answered?
//! Expected: below a microsecond; it is the serial part of a shard's task, beside the call.
//!
//! 10,000 keys with their state cached, 100-byte bodies, ids; each run writes state and publishes once; commits of about
//! 256 messages that are answered at once. No log and no sandbox: what remains is lanes, admission, staging.
//!
//! Run with `cargo bench -p sluicebox-core --bench shard`. For instructions, which other work on the machine does not
//! change: `valgrind --tool=callgrind --toggle-collect='shard::drive' BINARY`, divided by the messages printed (the first of each key included).

use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{Claim, LogId, Record, Term};
use sluicebox_core::effects::{Effects, Entries, Outgoing, StateWrite};
use sluicebox_core::handler::{HandlerName, Policy, ShardId};
use sluicebox_core::message::{Headers, Key, Message, NewMessage, Offset};
use sluicebox_core::routing::{IdFrom, KeyFrom, Routed, Routing, Since, Span};
use sluicebox_core::shard::{Bounds, Caution, Setup, Shard};
use sluicebox_core::topic::{Pattern, Topic};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: usize = 10_000;
const MESSAGES: usize = 200_000;
const BATCH: usize = 500;
const COMMIT_MESSAGES: usize = 256;
const NOW: Timestamp = Timestamp(1_000_000);

fn setup() -> Setup {
    let handler = HandlerName::parse("bench").expect("a valid name");
    Setup {
        id: ShardId { handler: handler.clone(), index: 0 },
        routing: Arc::new(Routing {
            handler,
            key: KeyFrom::Message,
            id: IdFrom::Message,
            shards: 1,
            recorded: Offset::START,
            identity: Since::default(),
            spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::from(&topic("in"))] }],
        }),
        policy: Arc::new(Policy::default()),
        uses_state: true,
        digest: None,
        bounds: Bounds { state_bytes_max: usize::MAX, ..Bounds::default() },
        remembered: Default::default(),
    }
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).expect("a valid topic")
}

fn messages(setup: &Setup, first: usize, count: usize) -> Vec<Routed> {
    let input = topic("in");
    let message = |number: usize| {
        let mut new = NewMessage::new(input.clone(), "x".repeat(100));
        new.key = Key::parse(&format!("user-{}", number.wrapping_mul(7919) % KEYS)).expect("short");
        new.id = Some(format!("id-{number}").into());
        setup.routing.route(&Arc::new(Message::from_new(new, Offset(number as u64 + 1), NOW)))
    };
    (first..first + count).map(message).collect()
}

/// Takes all messages up, a few at a time, and works them off.
#[inline(never)]
fn drive(shard: &mut Shard, messages: Vec<Routed>, output: &Topic) {
    for routed in messages {
        let body = routed.message.body.clone();
        shard.offer(routed);
        let needs = shard.take_needs();
        if !needs.load.is_empty() {
            shard.loaded(needs.load.into_iter().map(|key| (key, Entries::default())).collect());
        }
        while let Some(run) = shard.next_run(NOW) {
            // As a sandbox does: nothing of the call outlives it.
            let key = run.call.key.clone();
            drop(run.call);
            let output = Outgoing {
                topic: output.clone(),
                key,
                id: None,
                headers: Headers::default(),
                body: body.clone(),
                delay: None,
            };
            let write = StateWrite { entry: "totals".into(), value: Some(body.slice(0..16)) };
            let effects = Effects { outputs: vec![output], writes: vec![write], counts: vec![] };
            shard.finish(run.lane, Ok(effects), None, 0.0, NOW);
        }
        if shard.read().0.is_multiple_of(COMMIT_MESSAGES as u64) && shard.stage().is_some() {
            shard.committed();
        }
    }
}

fn main() {
    let (setup, output) = (setup(), topic("out"));
    let claim = Claim { log: LogId::default(), term: Term(1), record: Record::default() };
    let mut shard = Shard::new(setup.clone(), claim, Caution::default());
    let mut took = Duration::ZERO;
    for first in (0..KEYS + MESSAGES).step_by(BATCH) {
        // As the reader delivers them: not long before they are taken up.
        let batch = messages(&setup, first, BATCH);
        let began = Instant::now();
        drive(&mut shard, batch, &output);
        // Before, every key comes for the first time.
        if first >= KEYS {
            took += began.elapsed();
        }
    }
    println!(
        "{} messages of {KEYS} keys, the last {MESSAGES} in {} ns each",
        KEYS + MESSAGES,
        took.as_nanos() / MESSAGES as u128
    );
}
