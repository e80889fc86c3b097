//! Reading: by pattern, within bounds, and honest about how far it got.

use crate::harness::everything;
use crate::harness::logs::{message, read_all};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sluicebox::clock::Timestamp;
use sluicebox::log::{Batch, Log, ReadRequest};
use sluicebox::message::{Message, Offset};
use sluicebox::topic::Pattern;
use std::sync::Arc;

/// Checks one batch against the whole log.
fn check(all: &[Arc<Message>], request: &ReadRequest, batch: &Batch) {
    let end = all.last().map_or(Offset::START, |message| message.offset);
    assert!(batch.upto <= end.max(request.after), "{batch:?} reaches beyond what is durable");
    assert!(batch.upto >= request.after, "{batch:?} goes back");
    let expected: Vec<_> = all
        .iter()
        .filter(|message| message.offset > request.after && message.offset <= batch.upto.min(request.upto))
        .filter(|m| request.patterns.is_empty() || request.patterns.iter().any(|pattern| pattern.matches(&m.topic)))
        .cloned()
        .collect();
    assert_eq!(batch.messages, expected, "for {request:?} up to {}", batch.upto);
    assert!(batch.messages.len() <= request.messages_max);
    if let Some((_, but_last)) = batch.messages.split_last() {
        let bytes: usize = but_last.iter().map(|message| message.bytes()).sum();
        assert!(but_last.is_empty() || bytes < request.bytes_max, "{bytes} bytes before the last message");
    }
}

/// Reads until nothing more comes, checking every batch.
async fn read_to_end(log: &dyn Log, all: &[Arc<Message>], mut request: ReadRequest) {
    let goal = request.upto.min(log.end().await.unwrap());
    while request.after < goal {
        let batch = log.read(request.clone()).await.unwrap();
        check(all, &request, &batch);
        assert!(batch.upto > request.after, "no progress from {}", request.after);
        request.after = batch.upto;
    }
    let batch = log.read(request.clone()).await.unwrap();
    assert_eq!((batch.messages.len(), batch.upto), (0, request.after), "something after the end");
}

fn request() -> impl Strategy<Value = (usize, usize, Vec<Pattern>, usize, usize)> {
    let pattern =
        prop_oneof!["[ab]", "[ab]\\.[ab]", Just("a.>".to_owned()), Just("*.b".to_owned()), Just("c".to_owned())];
    let pattern = pattern.prop_map(|text| Pattern::parse(&text).unwrap());
    (0..220usize, 0..220usize, prop::collection::vec(pattern, 0..3), 1..40usize, 1..4000usize)
}

on_every_kind! {
    async fn a_read_yields_exactly_what_matches_within_its_bounds(log) {
        let topics = ["a", "b", "a.a", "a.b", "b.a", "b.b"];
        let list = (0..200).map(|at| message(topics[at * 7 % 6], vec![0; at % 50])).collect();
        log.append(list).await.unwrap();
        let all = everything(&*log).await;
        let at = |index: usize| all.get(index).map_or(Offset::END, |message| message.offset);
        tokio::task::block_in_place(|| {
            let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
            let run = runner.run(&request(), |(after, upto, patterns, messages_max, bytes_max)| {
                // A start beyond the end is nobody's to ask for.
                let after = if after < all.len() { at(after) } else { Offset::START };
                let request = ReadRequest { after, upto: at(upto), patterns, messages_max, bytes_max };
                tokio::runtime::Handle::current().block_on(read_to_end(&*log, &all, request));
                Ok(())
            });
            run.unwrap();
        });
    }

    async fn a_read_gets_past_messages_that_nobody_asked_for(log) {
        for _ in 0..9 {
            log.append(vec![message("other", ""); 5_000]).await.unwrap();
        }
        let last = log.append(vec![message("wanted", "")]).await.unwrap()[0];
        let mut request = read_all("wanted");
        request.messages_max = 1;
        let found = loop {
            let batch = log.read(request.clone()).await.unwrap();
            assert!(batch.upto > request.after, "stuck at {}", request.after);
            request.after = batch.upto;
            if !batch.messages.is_empty() {
                break batch;
            }
        };
        assert_eq!((found.messages[0].offset, found.upto), (last, last));
    }

    async fn a_read_of_an_empty_log_stays_at_its_start(log) {
        let batch = log.read(read_all(">")).await.unwrap();
        assert_eq!((batch.messages.len(), batch.upto), (0, Offset::START));
    }

    async fn a_read_sees_all_that_was_acknowledged_before_it(log) {
        let writers = (0..4u8).map(|who| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut after = Offset::START;
                for _ in 0..30 {
                    let offset = log.append(vec![message("a", vec![who])]).await.unwrap()[0];
                    assert!(log.end().await.unwrap() >= offset);
                    let batch = log.read(ReadRequest { after, ..read_all("a") }).await.unwrap();
                    assert!(batch.upto >= offset, "{} is behind {offset}", batch.upto);
                    assert!(batch.messages.iter().any(|message| message.offset == offset));
                    after = offset;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    }

    async fn a_fetch_answers_in_the_order_asked(log) {
        let offsets = log.append((0..5u8).map(|at| message("a", vec![at])).collect()).await.unwrap();
        let asked = vec![offsets[3], Offset::END, offsets[0], Offset::START, offsets[3]];
        let found = log.fetch(asked).await.unwrap();
        let bodies: Vec<_> = found.iter().map(|found| found.as_ref().map(|message| message.body[0])).collect();
        assert_eq!(bodies, [Some(3), None, Some(0), None, Some(3)]);
        assert_eq!(found[0].as_ref().unwrap().offset, offsets[3]);
    }

    async fn a_time_leads_to_the_last_message_before_it(log) {
        assert_eq!(log.offset_before(Timestamp(u64::MAX / 4)).await.unwrap(), Offset::START);
        for _ in 0..40 {
            log.append(vec![message("a", ""), message("a", "")]).await.unwrap();
        }
        let all = everything(&*log).await;
        let times = all.iter().flat_map(|message| [message.time.0 - 1, message.time.0, message.time.0 + 1]);
        for time in times.chain([0]).map(Timestamp) {
            let expected = all.iter().rfind(|message| message.time < time).map_or(Offset::START, |m| m.offset);
            assert_eq!(log.offset_before(time).await.unwrap(), expected, "at {time}");
        }
    }
}
