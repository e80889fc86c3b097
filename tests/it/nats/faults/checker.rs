//! Says of a history whether each message came out once and in order. It knows nothing of records and terms.

use sluicebox::message::{Message, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was found in the log at the end, in its order, and what publishers were told.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Offset and key.
    pub inputs: Vec<(Offset, String)>,
    /// The input that each came of, and its key.
    pub outputs: Vec<(Offset, String)>,
    pub acknowledged: Vec<Offset>,
}

impl Account {
    pub fn of(messages: &[Arc<Message>], acknowledged: Vec<Offset>) -> Self {
        let mut account = Self { acknowledged, ..Self::default() };
        for message in messages {
            let key = message.key.as_ref().unwrap().as_str().to_owned();
            match message.topic.as_str() {
                "in" => account.inputs.push((message.offset, key)),
                _ => {
                    let source = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
                    account.outputs.push((Offset(source), key));
                }
            }
        }
        account
    }
}

/// The first broken promise, in words.
pub fn check(account: &Account) -> Result<(), String> {
    let inputs: BTreeMap<Offset, &str> = account.inputs.iter().map(|(offset, key)| (*offset, key.as_str())).collect();
    if let Some(lost) = account.acknowledged.iter().find(|offset| !inputs.contains_key(offset)) {
        return Err(format!("message {lost} was acknowledged and is not in the log"));
    }
    let mut last: BTreeMap<&str, Offset> = BTreeMap::new();
    let mut came = BTreeSet::new();
    for (source, key) in &account.outputs {
        match inputs.get(source) {
            None => return Err(format!("something came out of {source}, which is no message")),
            Some(of) if of != key => return Err(format!("what came out of {source} has another key")),
            Some(_) => {}
        }
        if !came.insert(*source) {
            return Err(format!("message {source} came out twice"));
        }
        if last.insert(key, *source).is_some_and(|before| before > *source) {
            return Err(format!("message {source} came out of order"));
        }
    }
    match inputs.keys().find(|offset| !came.contains(offset)) {
        Some(lost) => Err(format!("message {lost} was lost")),
        None => Ok(()),
    }
}

#[test]
fn the_checker_catches_every_lie() {
    let key = |number: u64| (number % 3).to_string();
    let all: Vec<(Offset, String)> = (1..=30).map(|number| (Offset(number), key(number))).collect();
    let acknowledged = all.iter().map(|(offset, _)| *offset).step_by(2).collect();
    let honest = Account { inputs: all.clone(), outputs: all, acknowledged };
    assert_eq!(check(&honest), Ok(()));
    #[track_caller]
    fn caught(honest: &Account, word: &str, lie: impl FnOnce(&mut Account)) {
        let mut account = honest.clone();
        lie(&mut account);
        let said = check(&account).expect_err(word);
        assert!(said.contains(word), "{said}");
    }
    caught(&honest, "is not in the log", |account| drop(account.inputs.remove(2)));
    caught(&honest, "lost", |account| drop(account.outputs.remove(7)));
    caught(&honest, "lost", |account| drop(account.outputs.pop()));
    caught(&honest, "twice", |account| account.outputs.push(account.outputs[29].clone()));
    caught(&honest, "twice", |account| account.outputs.insert(5, account.outputs[4].clone()));
    caught(&honest, "out of order", |account| account.outputs.swap(3, 6));
    caught(&honest, "another key", |account| account.outputs[3].1 = key(5));
    caught(&honest, "no message", |account| account.outputs.push((Offset(99), key(99))));
}
