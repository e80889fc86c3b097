//! What metrics show, from the outside.

use super::*;
use crate::clock::Timestamp;
use crate::commit::{CommitError, DeadLetter, Deaths};
use crate::effects::COUNTERS_MAX;
use crate::handler::{Digest, ShardId};
use crate::message::{Message, NewMessage, Offset};
use crate::pipeline::Settled;
use crate::topic::Topic;

fn name(text: &str) -> HandlerName {
    HandlerName::parse(text).unwrap()
}

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

/// `line` is without the prefix that all metrics share.
#[track_caller]
fn check(metrics: &Metrics, line: &str) {
    let rendered = metrics.render();
    let line = &format!("sluicebox_{line}");
    assert!(rendered.lines().any(|shown| shown == line), "no line {line}\n{rendered}");
}

#[test]
fn messages_are_counted_by_handler_concrete_topic_and_outcome() {
    let metrics = Metrics::new();
    metrics.handler(&name("order")).count_message(&topic("events.new_order"), Settled::Duplicate);
    let line = r#"messages_total{handler="order",outcome="duplicate",topic="events.new_order"} 1"#;
    check(&metrics, line);
}

#[test]
fn staged_counts_show_once_and_not_before_their_commit_is_durable() {
    let metrics = Metrics::new();
    let mut staged = StagedCounts::new(metrics.handler(&name("order")));
    staged.messages(&topic("events.new_order"), [2, 0, 0, 0]);
    staged.guest(&"new_order_ok".into(), 2);
    assert!(!metrics.render().contains("new_order_ok"));
    staged.count();
    staged.count();
    check(&metrics, r#"messages_total{handler="order",outcome="done",topic="events.new_order"} 2"#);
    check(&metrics, r#"guest_count_total{handler="order",name="new_order_ok"} 2"#);
}

#[test]
fn topics_beyond_the_bound_share_one_label() {
    let metrics = Metrics::new();
    let handler = metrics.handler(&name("order"));
    let mut staged = StagedCounts::new(handler.clone());
    for number in 0..TOPICS_MAX + 50 {
        staged.messages(&topic(&format!("t.{number}")), [1, 0, 0, 0]);
    }
    staged.count();
    handler.count_message(&topic("t.too-late"), Settled::Done);
    check(&metrics, r#"messages_total{handler="order",outcome="done",topic="t.99"} 1"#);
    check(&metrics, r#"messages_total{handler="order",outcome="done",topic="_other"} 51"#);
    let labels = metrics.render().lines().filter(|line| line.starts_with("sluicebox_messages_total{")).count();
    assert_eq!(labels, (TOPICS_MAX + 1) * Settled::ALL.len());
}

#[test]
fn counters_of_handlers_are_one_family_and_bad_names_are_refused() {
    let metrics = Metrics::new();
    metrics.handler(&name("word-count")).count_guest("words", 3);
    metrics.handler(&name("word_count")).count_guest("words", 4);
    for bad in ["", "a b", "a-b", "é", &"x".repeat(65)] {
        metrics.handler(&name("odd")).count_guest(bad, 1);
    }
    metrics.handler(&name("odd")).count_guest("a b", 1);
    check(&metrics, r#"guest_count_total{handler="word-count",name="words"} 3"#);
    check(&metrics, r#"guest_count_total{handler="word_count",name="words"} 4"#);
    check(&metrics, r#"guest_counts_refused_total{handler="odd"} 6"#);
}

#[test]
fn a_guest_gets_a_bounded_number_of_counters() {
    let metrics = Metrics::new();
    let handler = metrics.handler(&name("order"));
    for number in 0..COUNTERS_MAX + 10 {
        handler.count_guest(&format!("n{number}"), 1);
    }
    check(&metrics, r#"guest_count_total{handler="order",name="n99"} 1"#);
    check(&metrics, r#"guest_counts_refused_total{handler="order"} 10"#);
}

#[test]
fn every_name_has_the_prefix_a_base_unit_and_says_when_it_only_rises() {
    let metrics = Metrics::new();
    let handler = metrics.handler(&name("order"));
    handler.count_guest("ok", 1);
    handler.count_message(&topic("a"), Settled::Done);
    let rendered = metrics.render();
    let kinds = rendered.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut seen = 0;
    for (family, kind) in kinds {
        seen += 1;
        assert!(family.starts_with("sluicebox_"), "{family}");
        assert_eq!(family.ends_with("_total"), kind == "counter", "{family} is a {kind}");
        for unit in ["_ms", "_millis", "_us", "_ns", "_kb", "_kib", "_mb", "_percent"] {
            assert!(!family.ends_with(unit), "{family}");
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn calls_commits_dead_letters_and_modules_are_shown() {
    let metrics = Metrics::new();
    let handler = metrics.handler(&name("order"));
    let mut calls = Calls::new(handler.clone());
    calls.ok(std::time::Duration::from_millis(2));
    calls.failed("trap", std::time::Duration::from_millis(2));
    calls.show();
    let commits = metrics.commits();
    commits.observe(std::time::Duration::from_millis(3), 100);
    let shard = ShardId { handler: name("order"), index: 0 };
    events::commit_answered(&commits, &Err(CommitError::Fenced { shard: shard.clone() }));
    events::module_in_force(&handler, Digest([1; 32]));
    events::module_in_force(&handler, Digest([2; 32]));
    let message = Message::from_new(NewMessage::new(topic("a"), ""), Offset(1), Timestamp(0));
    let letter = DeadLetter {
        shard,
        message: message.into(),
        key: None,
        attempts: 1,
        kind: "reject".into(),
        error: "no such user".into(),
        digest: None,
        time: Timestamp(0),
        identity: None,
        deaths: Deaths::first(Offset(1), Timestamp(0)),
    };
    events::dead_letter(&handler, &letter);
    events::marks_evicted(&handler, 7);
    check(&metrics, r#"attempts_total{handler="order",result="ok"} 1"#);
    check(&metrics, r#"attempts_total{handler="order",result="trap"} 1"#);
    check(&metrics, r#"call_duration_seconds_count{handler="order"} 2"#);
    check(&metrics, r#"commit_duration_seconds_bucket{le="0.005"} 1"#);
    check(&metrics, r#"commit_messages_sum 100"#);
    check(&metrics, r#"shard_commits_total{result="fenced"} 1"#);
    check(&metrics, &format!(r#"module_info{{digest="{}",handler="order"}} 1"#, Digest([2; 32])));
    assert!(!metrics.render().contains(&Digest([1; 32]).to_string()));
    check(&metrics, r#"dead_letters_total{handler="order",kind="reject"} 1"#);
    check(&metrics, r#"marks_evicted_total{handler="order"} 7"#);
}
