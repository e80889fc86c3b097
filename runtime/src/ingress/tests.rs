//! The intake over a log in memory and a source that delivers as badly as one may.

use super::*;
use crate::log::ReadRequest;
use crate::log::edges::Arrivals;
use crate::log::memory::MemoryLog;
use crate::telemetry::Metrics;
use crate::topic::Topic;

/// Holds the messages `0`, `1`, …, some of which can be none, and ends each reading after a few.
struct Double {
    messages: u64,
    at_once: u64,
    /// The position that was last told to be taken.
    told: std::sync::Mutex<Option<Position>>,
}

struct Reading {
    next: u64,
    messages: u64,
    left: u64,
}

impl Source for Double {
    fn name(&self) -> String {
        "the double".into()
    }

    fn read_after(&self, position: Option<Position>) -> BoxFuture<'_, Result<Box<dyn Arrivals>, LogError>> {
        let next = position.map_or(0, |position| position.0.parse::<u64>().unwrap() + 1);
        let reading = Reading { next, messages: self.messages, left: self.at_once };
        Box::pin(std::future::ready(Ok(Box::new(reading) as Box<dyn Arrivals>)))
    }

    fn taken(&self, position: Position) -> BoxFuture<'_, Result<(), LogError>> {
        *self.told.lock().unwrap() = Some(position);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Arrivals for Reading {
    fn next(&mut self) -> BoxFuture<'_, Result<Arrived, LogError>> {
        if self.left == 0 {
            return Box::pin(std::future::ready(Err(LogError::Unavailable { reason: "cut".into() })));
        }
        self.left -= 1;
        let messages: Vec<_> = (self.next..self.messages).take(3).map(message).collect();
        if messages.is_empty() {
            return Box::pin(std::future::pending());
        }
        self.next += messages.len() as u64;
        let upto = Position((self.next - 1).to_string());
        Box::pin(std::future::ready(Ok(Arrived { messages, upto, waiting: self.messages - self.next })))
    }
}

fn message(number: u64) -> Result<NewMessage, Unfit> {
    match number % 10 {
        9 => Err(Unfit { place: number.to_string(), subject: "a".into(), bytes: 1, reason: "bad".into() }),
        _ => Ok(NewMessage::new(Topic::parse("in").unwrap(), number.to_string())),
    }
}

async fn bodies(log: &MemoryLog) -> Vec<(String, String)> {
    let request = ReadRequest {
        after: Offset::START,
        upto: Offset::END,
        patterns: vec![],
        messages_max: 10_000,
        bytes_max: usize::MAX,
    };
    let read = log.read(request).await.unwrap().messages;
    read.iter().map(|m| (m.topic.to_string(), String::from_utf8(m.body.to_vec()).unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn two_who_take_one_source_up_commit_each_message_once_in_its_order() {
    const MESSAGES: u64 = 500;
    let log = Arc::new(MemoryLog::new());
    let stop = CancellationToken::new();
    let source = Arc::new(Double { messages: MESSAGES, at_once: 4, told: Default::default() });
    let both: Vec<_> = (0..2)
        .map(|_| {
            let intake = Arc::new(Intake::new(source.clone(), Metrics::new().ingress()));
            tokio::spawn(intake.run(log.clone(), Committer::new(log.clone()), Holding::default(), stop.clone()))
        })
        .collect();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while bodies(&log).await.len() < MESSAGES as usize {
        pace.tick().await;
    }
    // Once more around, in case one of them would take something twice.
    tokio::time::advance(Duration::from_secs(30)).await;
    stop.cancel();
    for one in both {
        one.await.unwrap();
    }
    let bodies = bodies(&log).await;
    assert_eq!(bodies.len() as u64, MESSAGES);
    for (number, (topic, body)) in bodies.iter().enumerate() {
        match number % 10 {
            9 => assert!(topic == "_ingress" && body.contains(&format!(r#""see":"{number}""#)), "{body}"),
            _ => assert_eq!((topic.as_str(), body), ("in", &number.to_string())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_fenced_leaves_to_the_placement_instead_of_taking_turns() {
    let log = Arc::new(MemoryLog::new());
    let stop = CancellationToken::new();
    let holding = Holding::default();
    holding.leave_to_placement();
    let source = Arc::new(Double { messages: 300, at_once: 1, told: Default::default() });
    let begin = || {
        let intake = Arc::new(Intake::new(source.clone(), Metrics::new().ingress()));
        tokio::spawn(intake.run(log.clone(), Committer::new(log.clone()), holding.clone(), stop.clone()))
    };
    let first = begin();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while bodies(&log).await.is_empty() {
        pace.tick().await;
    }
    let second = begin();
    assert_eq!(first.await.unwrap(), Some(Loss::Fenced));
    stop.cancel();
    assert_eq!(second.await.unwrap(), None);
    let terms: Vec<_> = log.status().await.unwrap().iter().map(|status| status.term).collect();
    assert_eq!(terms, [Term(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_source_is_told_how_far_it_was_taken_up_also_while_nothing_comes() {
    let log = Arc::new(MemoryLog::new());
    let stop = CancellationToken::new();
    let source = Arc::new(Double { messages: 5, at_once: u64::MAX, told: Default::default() });
    let intake = Arc::new(Intake::new(source.clone(), Metrics::new().ingress()));
    let runs = tokio::spawn(intake.run(log.clone(), Committer::new(log), Holding::default(), stop.clone()));
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    while source.told.lock().unwrap().as_ref() != Some(&Position("4".into())) {
        pace.tick().await;
    }
    stop.cancel();
    runs.await.unwrap();
}
