//! The tail: every message once, in order, or an honest word about what is missing.

use crate::harness::everything;
use crate::harness::logs::{commit, message, shard};
use futures_util::FutureExt as _;
use sluicebox::commit::Committed;
use sluicebox::log::{Lagged, Tail};
use sluicebox::message::{Message, Offset};
use std::sync::Arc;

/// What comes out of a tail until it reached `end`.
async fn drain(tail: &mut dyn Tail, end: Offset) -> Vec<Arc<Message>> {
    let mut messages: Vec<Arc<Message>> = vec![];
    let mut upto = tail.start();
    while upto < end {
        let batch = tail.next().await.unwrap().unwrap();
        assert!(!batch.messages.is_empty(), "an empty batch");
        assert_eq!(batch.upto, batch.messages.last().unwrap().offset);
        upto = batch.upto;
        messages.extend(batch.messages.iter().cloned());
    }
    messages
}

on_every_kind! {
    async fn tails_neither_skip_nor_repeat_while_others_append(log) {
        let appenders: Vec<_> = (0..4u8)
            .map(|who| {
                let log = log.clone();
                tokio::spawn(async move {
                    for round in 0..100u8 {
                        log.append(vec![message("a", vec![who, round]), message("b", "")]).await.unwrap();
                    }
                })
            })
            .collect();
        // Registered one after the other while the appends go on.
        let mut tails = vec![];
        for _ in 0..20 {
            tails.push(log.tail().await.unwrap());
            log.append(vec![message("c", "")]).await.unwrap();
        }
        for appender in appenders {
            appender.await.unwrap();
        }
        let all = everything(&*log).await;
        let end = all.last().unwrap().offset;
        for mut tail in tails {
            let expected: Vec<_> = all.iter().filter(|message| message.offset > tail.start()).cloned().collect();
            assert_eq!(drain(&mut *tail, end).await, expected);
        }
    }

    async fn a_tail_also_delivers_the_outputs_of_commits(log) {
        let shard = shard("h", 0);
        let claim = log.claim(shard.clone(), Offset::START).await.unwrap();
        let mut tail = log.tail().await.unwrap();
        let mut first = commit(&shard, claim.term, 1);
        first.outputs = vec![message("out", "1"), message("out", "2")];
        assert_eq!(log.commit(first).await, Ok(Committed::default()));
        let end = log.end().await.unwrap();
        let bodies: Vec<_> = drain(&mut *tail, end).await.iter().map(|message| message.body.clone()).collect();
        assert_eq!(bodies, ["1", "2"]);
    }

    async fn a_tail_that_falls_behind_says_so_and_goes_on(log) {
        let mut tail = log.tail().await.unwrap();
        // More than any kind may keep for a tail.
        let list = vec![message("a", vec![0; 512 * 1024]); 16];
        for _ in 0..12 {
            log.append(list.clone()).await.unwrap();
        }
        let all = everything(&*log).await;
        let mut upto = tail.start();
        let mut lagged = 0;
        while upto < all.last().unwrap().offset {
            match tail.next().await.unwrap() {
                Ok(batch) => {
                    let first = batch.messages[0].offset;
                    let missing = all.iter().filter(|m| m.offset > upto && m.offset < first).count();
                    assert!(missing == 0 || lagged > 0, "{missing} messages are missing without a word");
                    upto = batch.upto;
                }
                Err(Lagged) => lagged += 1,
            }
        }
        assert_eq!(lagged, 1);
        log.append(vec![message("a", "after")]).await.unwrap();
        assert_eq!(tail.next().await.unwrap().unwrap().messages[0].body, "after");
    }

    async fn giving_up_waiting_loses_nothing(log) {
        let mut tail = log.tail().await.unwrap();
        for round in 0..20u8 {
            assert!(tail.next().now_or_never().is_none());
            log.append(vec![message("a", vec![round])]).await.unwrap();
            assert_eq!(tail.next().await.unwrap().unwrap().messages[0].body[..], [round]);
        }
    }
}
