//! What is counted, and what is said where counting ends.

use super::*;
use crate::commit::Head;
use crate::handler::HandlerName;
use crate::log::memory::MemoryLog;
use crate::message::NewMessage;
use crate::routing::{IdFrom, KeyFrom, Since, Span};
use crate::topic::{Pattern, Topic};

fn routing(shards: u16) -> Routing {
    let spans = vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("in").unwrap()] }];
    let handler = HandlerName::parse("h").unwrap();
    let (recorded, identity) = (Offset::START, Since::default());
    Routing { handler, key: KeyFrom::Message, id: IdFrom::Message, shards, recorded, identity, spans }
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap().unwrap()
}

/// Appends messages of these topics and keys; their offsets.
async fn filled(log: &MemoryLog, messages: impl IntoIterator<Item = (&str, &str)>) -> Vec<Offset> {
    let new = |(topic, text)| NewMessage { key: Some(key(text)), ..NewMessage::new(Topic::parse(topic).unwrap(), "x") };
    log.append(messages.into_iter().map(new).collect()).await.unwrap()
}

fn head(offset: Offset, text: &str, scope: HeadScope) -> OpenHead {
    let (attempt, due, error, digest) = (1, Timestamp(0), "".into(), None);
    let head = Head { offset, key: Some(key(text)), attempt, due, error, digest, scope };
    OpenHead { shard: 0, head, message: None }
}

#[tokio::test]
async fn only_messages_of_the_handler_that_their_own_shard_has_not_taken_up_are_counted() {
    let (log, routing) = (MemoryLog::new(), routing(2));
    let offsets = filled(&log, [("in", "a"), ("foreign", "a"), ("in", "b"), ("in", "a"), ("foreign", "b")]).await;
    let end = *offsets.last().unwrap();
    let shard = usize::from(routing.shard_of(&key("a")));
    for (read_of_a, expected) in [(Offset::START, 2), (offsets[0], 1), (offsets[3], 0)] {
        // Whoever has the other key is at the end, unless it is the same shard.
        let mut read = vec![end; 2];
        read[shard] = read_of_a;
        let of_b = u64::from(routing.shard_of(&key("b")) == shard as u16 && read_of_a < offsets[2]);
        let place = Place { read, open: 0 };
        let waiting = count(&log, &routing, &place, end, &mut Budget::default()).await.unwrap();
        assert_eq!((waiting.messages, waiting.at_least), (expected + of_b, false), "{read_of_a}");
    }
}

#[tokio::test]
async fn a_count_that_reaches_its_bound_says_so_and_leaves_reads_for_others() {
    let (log, routing) = (MemoryLog::new(), routing(1));
    let offsets = filled(&log, vec![("in", "a"); 3 * READ_MESSAGES_MAX]).await;
    let end = *offsets.last().unwrap();
    let place = Place { read: vec![Offset::START], open: 0 };
    let mut budget = Budget { reads: 5, reads_at_a_time: 2 };
    let waiting = count(&log, &routing, &place, end, &mut budget).await.unwrap();
    assert_eq!((waiting.messages, waiting.at_least, budget.reads), (2 * READ_MESSAGES_MAX as u64, true, 3));
    let waiting = count(&log, &routing, &place, end, &mut Budget::default()).await.unwrap();
    assert_eq!((waiting.messages, waiting.at_least), (3 * READ_MESSAGES_MAX as u64, false));
    let mut spent = Budget { reads: 0, reads_at_a_time: 2 };
    let waiting = count(&log, &routing, &place, end, &mut spent).await.unwrap();
    assert_eq!((waiting.messages, waiting.at_least), (0, true), "nothing is guessed");
}

#[tokio::test]
async fn later_messages_of_a_key_wait_behind_its_head_and_nothing_waits_behind_one_that_gave_its_place_up() {
    let (log, routing) = (MemoryLog::new(), routing(1));
    let offsets =
        filled(&log, [("in", "a"), ("in", "b"), ("in", "a"), ("foreign", "a"), ("in", "b"), ("in", "a")]).await;
    let heads = [head(offsets[0], "a", HeadScope::Lane), head(offsets[1], "b", HeadScope::Message)];
    let end = *offsets.last().unwrap();
    let behind = behind(&log, &routing, &heads, end, &mut Budget::default()).await.unwrap();
    assert_eq!(behind.get(&offsets[0]), Some(&Behind { messages: 2, at_least: false }));
    assert_eq!(behind.get(&offsets[1]), None);
}

#[tokio::test]
async fn what_is_not_taken_up_comes_a_page_at_a_time() {
    let (log, routing) = (MemoryLog::new(), routing(1));
    let offsets = filled(&log, [("in", "a"), ("foreign", "a"), ("in", "b"), ("in", "a"), ("in", "b")]).await;
    let (end, place) = (*offsets.last().unwrap(), Place { read: vec![offsets[0]], open: 0 });
    let page = async |after, max| {
        let budget = &mut Budget::default();
        let (found, reached) = unread(&log, &routing, &place, (after, end), |_| true, max, budget).await.unwrap();
        (found.into_iter().map(|unread| unread.offset).collect::<Vec<_>>(), reached)
    };
    assert_eq!(page(Offset::START, 2).await, (vec![offsets[2], offsets[3]], offsets[3]));
    assert_eq!(page(offsets[3], 2).await, (vec![offsets[4]], end));
    assert_eq!(page(Offset::END, 2).await, (vec![], end));
}
