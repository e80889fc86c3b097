//! An operator who gives orders about dead letters while hosts are killed, and what they come to.
//!
//! Whether an order was taken is not what its answer says, which may be lost with the host, but whether it is in the log.

use crate::checker::History;
use crate::harness::process::Process;
use serde_json::{Value, json};
use sluicebox::handler::HandlerName;
use sluicebox::message::{Message, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// Most letters that one order names.
const LETTERS_MAX: usize = 5;

#[derive(Default)]
pub struct Orders {
    /// Whose letter a number is, of those that were named. Each is named once.
    named: BTreeMap<u64, (HandlerName, Offset)>,
    /// Numbers of orders that were answered.
    answered: BTreeSet<u64>,
}

impl Orders {
    /// Orders some letters to be retried and some to be dropped, of the newest that nobody has named yet.
    pub async fn give(&mut self, host: &Process, round: usize) {
        let handler = ["first", "third"][round % 2];
        for action in ["retry", "drop"] {
            let Some(letters) = letters(host, handler).await else { return };
            let new = letters.into_iter().filter(|(number, _)| !self.named.contains_key(number));
            let chosen: Vec<(u64, Offset)> = new.take(LETTERS_MAX).collect();
            if chosen.is_empty() {
                continue;
            }
            let name = HandlerName::parse(handler).unwrap();
            self.named.extend(chosen.iter().map(|(number, offset)| (*number, (name.clone(), *offset))));
            let numbers: Vec<u64> = chosen.iter().map(|(number, _)| *number).collect();
            let order = json!({ "handler": handler, "numbers": numbers });
            let url = format!("{}/v1/dead/{action}", host.url);
            let answer = host.client.post(url).body(order.to_string()).header("content-type", "application/json");
            match answer.send().await {
                Ok(answer) if answer.status().as_u16() == 202 => self.answered.extend(numbers),
                // Letters that a twin took the place of meanwhile are not there any more.
                Ok(answer) => assert!(answer.status().is_success(), "{action}: {answer:?}"),
                Err(_) => return,
            }
        }
    }

    /// The history, with what orders did in it.
    pub fn tell(&self, mut history: History) -> History {
        for (is_retry, number) in taken(&history) {
            let letter = self.named[&number].clone();
            if is_retry {
                history.retried.insert(letter.clone());
            }
            history.removed.insert(letter);
        }
        history
    }

    /// What was answered is in the log, and it is enough to show something.
    pub fn check_taken(&self, history: &History) {
        let taken: BTreeMap<u64, bool> =
            taken(history).into_iter().map(|(is_retry, number)| (number, is_retry)).collect();
        let lost: Vec<&u64> = self.answered.iter().filter(|number| !taken.contains_key(number)).collect();
        assert!(lost.is_empty(), "orders about the letters {lost:?} were answered and are not in the log");
        let retried = taken.values().filter(|is_retry| **is_retry).count();
        assert!(retried > 10 && taken.len() - retried > 10, "too few orders: {} of {}", retried, taken.len());
    }
}

/// The newest dead letters of a handler: their numbers, and where the messages were. `None`: the host is gone.
async fn letters(host: &Process, handler: &str) -> Option<Vec<(u64, Offset)>> {
    let url = format!("{}/v1/dead?handler={handler}&limit=100", host.url);
    let page = host.client.get(url).send().await.ok()?.bytes().await.ok()?;
    let page: Value = serde_json::from_slice(&page).ok()?;
    let letter =
        |letter: &Value| (letter["number"].as_u64().unwrap(), Offset(letter["message"]["offset"].as_u64().unwrap()));
    Some(page["letters"].as_array()?.iter().map(letter).collect())
}

/// The numbers in the orders in the log: whether the letter is retried, and its number.
fn taken(history: &History) -> Vec<(bool, u64)> {
    let mut taken = vec![];
    for message in &history.messages {
        let Some((is_retry, numbers)) = order(message) else { continue };
        taken.extend(numbers.into_iter().map(|number| (is_retry, number)));
    }
    taken
}

fn order(message: &Message) -> Option<(bool, Vec<u64>)> {
    if !message.topic.as_str().starts_with("_control.") {
        return None;
    }
    let order: Value = serde_json::from_slice(&message.body).unwrap();
    let is_retry = match order["command"].as_str().unwrap() {
        "retry-dead" => true,
        "drop-dead" => false,
        _ => return None,
    };
    let numbers = order["filter"]["numbers"].as_array().unwrap().iter();
    Some((is_retry, numbers.map(|number| number.as_u64().unwrap()).collect()))
}
