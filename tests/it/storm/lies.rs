//! A true history with one thing in it that is not: the checker must see each. It would be worthless otherwise.

use super::checker::{Account, Entry, check};

/// Tells each lie about a history in which something came out of several keys, more than once.
pub fn check_each_is_caught(truth: &Account) {
    assert_eq!(check(truth), Ok(()));
    for topic in &truth.topics[1..] {
        let of_topic: Vec<usize> = (0..truth.entries.len()).filter(|at| truth.entries[*at].topic == *topic).collect();
        let (middle, last) = (of_topic[of_topic.len() / 2], of_topic[of_topic.len() - 1]);
        let next_of = |at: usize, same_key: bool| {
            let entry = &truth.entries[at];
            let is_it = |other: &&usize| **other != at && (truth.entries[**other].key == entry.key) == same_key;
            *of_topic.iter().find(is_it).expect("a lie needs another output")
        };
        for at in [middle, last] {
            // What nobody noticed would have counted on in the same way.
            caught(truth, "was lost", |entries| {
                let gone = entries.remove(at);
                entries.iter_mut().filter(|entry| is_later(entry, &gone)).for_each(|entry| change(entry, |n| n - 1));
            });
            caught(truth, "says that it is", |entries| drop(entries.remove(at.min(next_of(at, true)))));
        }
        caught(truth, "came out twice", |entries| {
            let mut again = entries[middle].clone();
            change(&mut again, |n| n + 1);
            again.offset = entries[last].offset + 1;
            entries.push(again);
        });
        caught(truth, "came out of order", |entries| {
            let other = next_of(middle, true);
            let (one, two) = (entries[middle].fact.unwrap(), entries[other].fact.unwrap());
            (entries[middle].fact, entries[other].fact) = (Some((two.0, one.1)), Some((one.0, two.1)));
        });
        caught(truth, "says that it is", |entries| change(&mut entries[middle], |n| n + 1));
        caught(truth, "another key", |entries| entries[middle].key = truth.entries[next_of(middle, false)].key.clone());
        caught(truth, "which is no message", |entries| entries[last].fact = Some((u64::MAX, 1)));
    }
    let (key, ids) = truth.published.iter().next().unwrap();
    let lie = |change: &dyn Fn(&mut Account)| {
        let mut account = truth.clone();
        change(&mut account);
        account
    };
    expect(
        "was acknowledged and is not in the log",
        &lie(&|account| {
            account.entries.retain(|entry| entry.topic != account.topics[0] || entry.id != ids[0]);
        }),
    );
    expect("never acknowledged", &lie(&|account| drop(account.published.get_mut(key).unwrap().pop())));
    expect("which nobody published", &lie(&|account| drop(account.published.remove(key))));
    expect("the state of", &lie(&|account| *account.state.get_mut(key).unwrap() += 1));
}

fn is_later(entry: &Entry, gone: &Entry) -> bool {
    (&entry.topic, &entry.key) == (&gone.topic, &gone.key) && entry.offset > gone.offset
}

fn change(entry: &mut Entry, of: impl FnOnce(u64) -> u64) {
    entry.fact = entry.fact.map(|(source, n)| (source, of(n)));
}

#[track_caller]
fn caught(truth: &Account, expected: &str, lie: impl FnOnce(&mut Vec<Entry>)) {
    let mut account = truth.clone();
    lie(&mut account.entries);
    expect(expected, &account);
}

#[track_caller]
fn expect(expected: &str, account: &Account) {
    match check(account) {
        Ok(()) => panic!("went unnoticed: {expected}"),
        Err(why) => assert!(why.contains(expected), "{why:?}, not {expected:?}"),
    }
}

#[test]
fn the_checker_catches_every_lie() {
    let topics: Vec<String> = ["in", "one", "two"].map(str::to_owned).into();
    let mut truth = Account { topics: topics.clone(), ..Account::default() };
    for round in 1..=10u64 {
        for key in ["a", "b", "c"] {
            let mut source = 0;
            for (stage, topic) in topics.iter().enumerate() {
                let offset = truth.entries.len() as u64 + 1;
                let fact = (stage > 0).then_some((source, round));
                let (topic, key, id) = (topic.clone(), key.to_owned(), format!("{key}{round}"));
                truth.entries.push(Entry { offset, topic, key, id, fact, version: 0 });
                source = offset;
            }
            truth.published.entry(key.into()).or_default().push(format!("{key}{round}"));
            truth.state.insert(key.into(), round);
        }
    }
    check_each_is_caught(&truth);
}
