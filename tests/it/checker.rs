//! Reads an independent history (inputs, outputs, dead letters, states as the log holds them at the end) and says
//! whether the promise was kept: every accepted message has exactly one effect, order per key holds, state equals the
//! fold of the commits.
//!
//! It knows nothing of lanes or records, and what is one message and what belongs together it decides itself (`own`). The
//! handler under test must, per handled message, add one to the state entry `n` of its key, if it has one, and publish
//! `{"source": <offset of the input>, "n": <the new n>}` under that key. For a body that begins with `later` it also
//! publishes, with a delay, the offset of the input on `later.<handler>`.

pub mod own;

use self::own::Identity;
use sluicebox::clock::Timestamp;
use sluicebox::commit::DeadLetter;
use sluicebox::handler::{HandlerName, Policy};
use sluicebox::message::{Key, Message, Offset};
use sluicebox::routing::Routing;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// On a dead letter that returned: the offset that it had.
const OFFSET_HEADER: &str = "_offset";

/// One handler and what it left behind.
#[derive(Clone)]
pub struct Handler {
    pub routing: Routing,
    pub policy: Policy,
    /// Where it publishes; nobody else publishes there.
    pub output: String,
    /// The entry `n` of every key that ever occurred.
    pub state: BTreeMap<Key, u64>,
    /// False when the handler gives order up on failure.
    pub ordered: bool,
    pub life: Life,
}

/// What a handler of this name that was forgotten leaves to the next one.
#[derive(Clone, Copy, Default)]
pub struct Life {
    /// What is on its own topics up to here is of an earlier one.
    pub born: Offset,
    /// The oldest message that was still in the log when it began. What a host had in memory it may handle all the same.
    pub earliest: Offset,
}

/// All there is to know at the end, when nothing is left to do.
#[derive(Clone, Default)]
pub struct History {
    /// The whole log, in order.
    pub messages: Vec<Arc<Message>>,
    pub dead: Vec<DeadLetter>,
    pub handlers: Vec<Handler>,
    /// Inputs whose completion was shown to the outside, at the time it was shown: true if it was durable by then.
    pub shown: Vec<(Offset, bool)>,
    /// Sum of the guest counter that counts one per handled message, over the whole run.
    pub counted: Option<u64>,
    /// Dead letters that operators retried or dropped, by handler and offset.
    pub removed: BTreeSet<(HandlerName, Offset)>,
    /// Of these, those that were retried and not dropped: each must have come back.
    pub retried: BTreeSet<(HandlerName, Offset)>,
    /// Delayed messages that operators cancelled, by handler and the offset of the input: they may be missing.
    pub cancelled: BTreeSet<(HandlerName, Offset)>,
    /// When messages really came, where the log's clock was set; elsewhere their times say it.
    pub came: BTreeMap<Offset, Timestamp>,
}

#[derive(serde::Deserialize)]
struct Output {
    source: u64,
    n: u64,
}

/// The first broken promise, in words.
pub fn check(history: &History) -> Result<(), String> {
    let mut handled = 0;
    for handler in &history.handlers {
        handled += check_handler(history, handler).map_err(|why| format!("{}: {why}", handler.routing.handler))?;
    }
    if let Some((offset, _)) = history.shown.iter().find(|(_, durable)| !durable) {
        return Err(format!("the completion of {offset} was shown before it was durable"));
    }
    match history.counted {
        Some(counted) if counted > handled => Err(format!("{counted} runs were counted, {handled} were committed")),
        _ => Ok(()),
    }
}

fn check_handler(history: &History, handler: &Handler) -> Result<u64, String> {
    let name = &handler.routing.handler;
    let life = handler.life;
    let outputs = |topic: &str| -> Vec<&Arc<Message>> {
        let is_output = |message: &&Arc<Message>| message.offset > life.born && message.topic.as_str() == topic;
        history.messages.iter().filter(is_output).collect()
    };
    let had_an_effect: BTreeSet<u64> = {
        let source = |message: &&Arc<Message>| Some(serde_json::from_slice::<Output>(&message.body).ok()?.source);
        let handled = outputs(&handler.output).iter().filter_map(source).collect::<Vec<_>>();
        let dead = history.dead.iter().filter(|letter| letter.shard.handler == *name);
        let removed = history.removed.iter().filter(|(handler, _)| handler == name).map(|(_, offset)| offset.0);
        handled.into_iter().chain(dead.map(|letter| letter.message.offset.0)).chain(removed).collect()
    };
    let is_input = |message: &&Arc<Message>| {
        let was_there = message.offset >= life.earliest || had_an_effect.contains(&message.offset.0);
        was_there && own::subscribes(&handler.routing, message)
    };
    let inputs: Vec<&Arc<Message>> = history.messages.iter().filter(is_input).collect();
    let mut done: HashMap<u64, u64> = HashMap::new();
    let mut last: BTreeMap<Option<Key>, (u64, u64)> = BTreeMap::new();
    for message in outputs(&handler.output) {
        let output: Output =
            serde_json::from_slice(&message.body).map_err(|error| format!("an output is broken: {error}"))?;
        if done.insert(output.source, message.offset.0).is_some() {
            return Err(format!("message {} had its effect twice", output.source));
        }
        let (source, n) = last.get(&message.key).copied().unwrap_or((0, 0));
        if handler.ordered && message.key.is_some() && output.source <= source {
            return Err(format!("key {:?}: {} was handled after {source}", message.key, output.source));
        }
        if message.key.is_some() && output.n != n + 1 {
            return Err(format!("key {:?}: n went from {n} to {} at message {}", message.key, output.n, output.source));
        }
        last.insert(message.key.clone(), (output.source, output.n));
    }
    for (key, n) in &handler.state {
        let expected = last.get(&Some(key.clone())).map_or(0, |(_, n)| *n);
        if *n != expected {
            return Err(format!("key {key:?}: the state says {n}, the outputs say {expected}"));
        }
    }
    let mut dead = BTreeSet::new();
    let mut shards: BTreeMap<Identity, u16> = BTreeMap::new();
    for letter in history.dead.iter().filter(|letter| letter.shard.handler == *name) {
        if letter.kind == "gone" {
            return Err(format!("message {} was deleted before it was settled", letter.message.offset));
        }
        if !dead.insert(letter.message.offset.0) {
            return Err(format!("message {} is a dead letter twice", letter.message.offset));
        }
        if letter.attempts > handler.policy.retry.attempts {
            return Err(format!("message {} was tried {} times", letter.message.offset, letter.attempts));
        }
        let (key, shard) = (own::key(&handler.routing, &letter.message), letter.shard.index);
        if letter.key.as_ref().map(Key::as_str) != key {
            return Err(format!("message {} was handled under {:?}", letter.message.offset, letter.key));
        }
        let lane = own::lane(&handler.routing, &letter.message);
        let others = lane.map(|lane| *shards.entry(lane).or_insert(shard));
        if shard >= handler.routing.shards || others.is_some_and(|others| others != shard) {
            return Err(format!("message {} was on shard {shard}, not {others:?}", letter.message.offset));
        }
    }
    let mut removed: BTreeSet<u64> =
        history.removed.iter().filter(|(handler, _)| handler == name).map(|(_, offset)| offset.0).collect();
    // A letter of a message that was sent again under its id takes the place of the one before.
    let ever_dead: BTreeSet<u64> = dead.union(&removed).copied().collect();
    let mut returned = BTreeSet::new();
    for message in inputs.iter().filter(|message| message.topic.is_reserved()) {
        let was: u64 = message.headers.get(OFFSET_HEADER).and_then(|was| was.parse().ok()).unwrap_or(0);
        if !removed.contains(&was) {
            return Err(format!("message {was} came back as {} and its dead letter was kept", message.offset));
        }
        if !returned.insert(was) {
            return Err(format!("dead letter {was} came back twice"));
        }
    }
    let mut done_ids: BTreeMap<Identity, Vec<&Arc<Message>>> = BTreeMap::new();
    let window = handler.policy.dedup.as_ref().map(|dedup| dedup.window);
    let identity = |message: &Message| own::identity(&handler.routing, message).filter(|_| window.is_some());
    let within =
        |later: &Message, earlier: &Message| window.is_some_and(|window| later.time.since(earlier.time) < window);
    let came = |message: &Message| history.came.get(&message.offset).copied().unwrap_or(message.time);
    let really_within =
        |later: &Message, earlier: &Message| window.is_some_and(|window| came(later).since(came(earlier)) < window);
    for message in &inputs {
        if let (true, Some(identity)) = (done.contains_key(&message.offset.0), identity(message)) {
            let others = done_ids.entry(identity).or_default();
            if let Some(other) = others.iter().find(|other| really_within(message, other)) {
                let (other, this) = (other.offset, message.offset);
                return Err(format!("messages {other} and {this} have one id and were both handled within the window"));
            }
            others.push(message);
        }
    }
    let dead_inputs = inputs.iter().filter(|message| ever_dead.contains(&message.offset.0));
    let mut dead_ids: BTreeMap<Identity, usize> = BTreeMap::new();
    for identity in dead_inputs.filter_map(|message| identity(message)) {
        *dead_ids.entry(identity).or_default() += 1;
    }
    let retried = history.retried.iter().filter(|(handler, _)| handler == name).map(|(_, offset)| offset.0);
    for offset in retried.filter(|offset| !returned.contains(offset)) {
        // One that was joined by the letter of its twin meanwhile returns as that one.
        let message = inputs.iter().find(|message| message.offset.0 == offset);
        let letters = message.and_then(|message| dead_ids.get(&identity(message)?)).copied().unwrap_or(1);
        if letters < 2 {
            return Err(format!("dead letter {offset} was retried and did not come back"));
        }
    }
    for message in &inputs {
        let offset = message.offset.0;
        let identity = identity(message);
        let twins = identity.as_ref().and_then(|identity| done_ids.get(identity));
        let twin = twins.and_then(|twins| twins.iter().find(|twin| within(message, twin)));
        let gone = removed.remove(&offset);
        match (done.contains_key(&offset), dead.contains(&offset), twin) {
            (false, false, _) if gone => {}
            (true, _, _) | (_, true, _) if gone => return Err(format!("message {offset} was given up and is not")),
            (true, false, _) | (false, true, _) | (false, false, Some(_)) => {}
            (false, false, None) if identity.is_some_and(|id| dead_ids.contains_key(&id)) => {}
            (true, true, _) => return Err(format!("message {offset} was handled and is a dead letter")),
            (false, false, None) => return Err(format!("message {offset} was lost")),
        }
    }
    if let Some(stray) = removed.first() {
        return Err(format!("dead letter {stray} was removed and is not an input"));
    }
    let known: BTreeSet<u64> = inputs.iter().map(|message| message.offset.0).collect();
    if let Some(stray) = done.keys().chain(&dead).find(|offset| !known.contains(offset)) {
        return Err(format!("message {stray} had an effect and is not an input"));
    }
    check_delayed(history, handler, &inputs, &done, &outputs(&format!("later.{name}")))?;
    Ok(done.len() as u64)
}

/// Delayed messages came once per handled `later`, unless an operator cancelled them.
fn check_delayed(
    history: &History,
    handler: &Handler,
    inputs: &[&Arc<Message>],
    done: &HashMap<u64, u64>,
    delayed: &[&Arc<Message>],
) -> Result<(), String> {
    let mut came = BTreeSet::new();
    for message in delayed {
        let source = std::str::from_utf8(&message.body).ok().and_then(|source| source.parse().ok());
        let source: u64 = source.ok_or("a delayed message is broken")?;
        if !came.insert(source) {
            return Err(format!("the delayed message of {source} came twice"));
        }
    }
    let is_later = |message: &&&Arc<Message>| message.body.starts_with(b"later");
    for offset in inputs.iter().filter(is_later).map(|message| message.offset) {
        let is_cancelled = history.cancelled.contains(&(handler.routing.handler.clone(), offset));
        match (done.contains_key(&offset.0), came.remove(&offset.0)) {
            (true, true) | (false, false) => {}
            (true, false) if is_cancelled => {}
            (true, false) => return Err(format!("the delayed message of {offset} did not come")),
            (false, true) => return Err(format!("{offset} was not handled, and its delayed message came")),
        }
    }
    came.first().map_or(Ok(()), |stray| Err(format!("a delayed message of {stray} came, which has none")))
}
