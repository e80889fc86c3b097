//! What must come of what was published. Plain texts and numbers: nothing of the program is used here.

use std::collections::{BTreeMap, BTreeSet};

/// A message as its publisher knows it. Its place in the list is its number.
#[derive(Clone, Debug)]
pub struct Published {
    /// What the publisher gave with it.
    pub key: Option<String>,
    pub id: Option<Id>,
    /// What is in its body.
    pub user: Option<String>,
    pub field: Option<String>,
    /// The handler `own` gives it up.
    pub bad: bool,
    /// So large is what else its body holds.
    pub pad: usize,
}

/// What a handler made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    pub of: usize,
    /// As large as the handler saw it.
    pub pad: usize,
}

/// Two ids are one only if all of it is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    Plain(String),
    /// Of a CloudEvent: its source, and its id there.
    Event(String, String),
}

/// How a handler tells messages from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The publisher's key and id.
    Own,
    /// A user and an id in the body; without a user it is given up.
    Fields,
    /// No key; the id in the body.
    Unordered,
    /// The publisher's key; every message is another one.
    Every,
}

/// What a handler did between two times that it was forgotten.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// How many messages were published when it ended.
    pub published: usize,
    /// How many were when dead letters were returned.
    pub returned: Vec<usize>,
    /// Of the messages it handled, in order.
    pub effects: Vec<Effect>,
}

/// A time for which a handler was paused, while others published and all else was settled.
#[derive(Clone, Debug)]
pub struct Paused {
    pub name: &'static str,
    /// Its effects when every shard had heard of it, and when it was to go on.
    pub effects: [usize; 2],
}

/// A time for which the handler `own` could not be done with one key.
#[derive(Clone, Debug)]
pub struct Failing {
    /// Messages of other keys that were published meanwhile, and of these the ones that had no effect.
    pub others: usize,
    pub left: usize,
    /// How often the key was tried meanwhile.
    pub tries: usize,
}

/// A dead letter that was there at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Letter {
    /// The message that was given up first.
    pub first: usize,
    pub deaths: usize,
    pub returns: usize,
}

/// One handler as it was seen.
#[derive(Clone, Debug)]
pub struct Handler {
    pub name: &'static str,
    pub rule: Rule,
    pub lives: Vec<Life>,
    pub letters: Vec<Letter>,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub published: Vec<Published>,
    pub handlers: Vec<Handler>,
    pub paused: Vec<Paused>,
    pub failing: Vec<Failing>,
    /// When everything that is in the log came, in milliseconds, in the order of the log.
    pub times: Vec<u64>,
}

/// No story takes longer, however slow the machine; the steps of its clock are longer.
const STORY_MS: u64 = 6 * 3_600_000;
/// The key that fails is tried a few times for each message of another key, and not for ever.
const TRIES_A_MESSAGE: usize = 10_000;

impl Rule {
    fn key(self, message: &Published) -> Option<&str> {
        match self {
            Rule::Own | Rule::Every => message.key.as_deref(),
            Rule::Fields => message.user.as_deref(),
            Rule::Unordered => None,
        }
    }

    fn id(self, message: &Published) -> Option<Id> {
        match self {
            Rule::Own => message.id.clone(),
            Rule::Fields | Rule::Unordered => message.field.clone().map(Id::Plain),
            Rule::Every => None,
        }
    }

    fn gives_up(self, message: &Published) -> bool {
        match self {
            Rule::Own => message.bad,
            Rule::Fields => message.user.is_none(),
            Rule::Unordered | Rule::Every => false,
        }
    }

    /// Messages that are one message, in the order in which they were published.
    fn groups(self, published: &[Published]) -> Vec<Vec<usize>> {
        let mut same: BTreeMap<(Option<&str>, Id), Vec<usize>> = BTreeMap::new();
        let mut groups = vec![];
        for (number, message) in published.iter().enumerate() {
            // Without the user nothing is known of a message of `fields`, not even its id.
            match self.id(message).filter(|_| self != Rule::Fields || message.user.is_some()) {
                Some(id) => same.entry((self.key(message), id)).or_default().push(number),
                None => groups.push(vec![number]),
            }
        }
        groups.extend(same.into_values());
        groups
    }
}

/// The first thing that is not as it must be.
pub fn check(facts: &Facts) -> Result<(), String> {
    for handler in &facts.handlers {
        for (number, life) in handler.lives.iter().enumerate() {
            let published = &facts.published[..life.published];
            check_effects(handler.rule, published, life)
                .map_err(|why| format!("{}, life {number}: {why}", handler.name))?;
        }
        let last = handler.lives.last().ok_or_else(|| format!("{} never lived", handler.name))?;
        check_letters(handler, &facts.published, last).map_err(|why| format!("{}: {why}", handler.name))?;
    }
    if let Some(Paused { name, effects }) = facts.paused.iter().find(|paused| paused.effects[0] != paused.effects[1]) {
        return Err(format!("{name} was paused and had {effects:?} effects before and after"));
    }
    for Failing { others, left, tries } in &facts.failing {
        if *left > 0 || *tries > TRIES_A_MESSAGE * (others + 1) {
            return Err(format!("while a key failed {tries} times {left} of {others} messages of others were left"));
        }
    }
    // Whatever was done to the machine's clock.
    if let Some(pair) = facts.times.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(format!("time fell: {pair:?}"));
    }
    match (facts.times.first(), facts.times.last()) {
        (Some(first), Some(last)) if last - first > STORY_MS => Err(format!("time leapt: from {first} to {last}")),
        _ => Ok(()),
    }
}

fn check_effects(rule: Rule, published: &[Published], life: &Life) -> Result<(), String> {
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    for effect in &life.effects {
        *left.entry(effect.of).or_default() += 1;
        let pad = published.get(effect.of).map(|message| message.pad);
        if pad != Some(effect.pad) {
            return Err(format!("{effect:?} is of a message with {pad:?}"));
        }
    }
    for group in rule.groups(published) {
        let effects: usize = group.iter().filter_map(|number| left.remove(number)).sum();
        let expected = usize::from(!rule.gives_up(&published[group[0]]));
        if effects != expected {
            let message = &published[group[0]];
            return Err(format!(
                "{group:?}, which are one message, have {effects} effects, not {expected}: {message:?}"
            ));
        }
    }
    if !left.is_empty() {
        return Err(format!("{left:?} have effects and were not published"));
    }
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for effect in life.effects.iter().map(|effect| effect.of) {
        let Some(key) = rule.key(&published[effect]) else { continue };
        if let Some(before) = last.insert(key, effect).filter(|before| *before > effect) {
            return Err(format!("of key {key} {effect} was handled after {before}"));
        }
    }
    Ok(())
}

fn check_letters(handler: &Handler, published: &[Published], life: &Life) -> Result<(), String> {
    let given_up =
        handler.rule.groups(published).into_iter().filter(|group| handler.rule.gives_up(&published[group[0]]));
    let expected = given_up.map(|group| {
        let returns = life.returned.iter().filter(|at| group[0] < **at).count();
        Letter { first: group[0], deaths: group.len() + returns, returns }
    });
    let expected: BTreeSet<Letter> = expected.collect();
    let mut found = handler.letters.clone();
    found.sort();
    if !found.iter().eq(&expected) {
        let all: BTreeSet<Letter> = found.iter().copied().collect();
        let (more, fewer) = (all.difference(&expected), expected.difference(&all));
        return Err(format!(
            "{} letters, not {}: too many are {:?}, missing are {:?}",
            found.len(),
            expected.len(),
            more.collect::<Vec<_>>(),
            fewer.collect::<Vec<_>>()
        ));
    }
    Ok(())
}

/// For lies.
impl Facts {
    fn of(&mut self, name: &str) -> &mut Handler {
        self.handlers.iter_mut().find(|handler| handler.name == name).unwrap()
    }

    pub fn effects_of(&mut self, name: &str) -> &mut Vec<Effect> {
        &mut self.of(name).lives.last_mut().unwrap().effects
    }

    /// Of a message as large as they may be.
    pub fn large_effect(&mut self) -> Option<&mut Effect> {
        let lives = self.handlers.iter_mut().flat_map(|handler| &mut handler.lives);
        lives.flat_map(|life| &mut life.effects).find(|effect| effect.pad > 100_000)
    }

    pub fn letters_of(&mut self, name: &str) -> &mut Vec<Letter> {
        &mut self.of(name).letters
    }

    /// A message that is the same as one before.
    pub fn repeated(&mut self, name: &str) -> Option<Effect> {
        let groups = self.of(name).rule.groups(&self.published);
        let of = groups.into_iter().find_map(|group| group.get(1).copied())?;
        Some(Effect { of, pad: self.published[of].pad })
    }

    /// Exchanges two messages of one key.
    pub fn swap_two_of_a_key(&mut self, name: &str) -> bool {
        let (rule, published) = (self.of(name).rule, self.published.clone());
        let effects = self.effects_of(name);
        let key = |effect: Effect| rule.key(&published[effect.of]);
        let pair = (0..effects.len()).find_map(|first| {
            let second = (first + 1..effects.len()).find(|second| key(effects[first]) == key(effects[*second]))?;
            key(effects[first]).map(|_| (first, second))
        });
        if let Some((first, second)) = pair {
            effects.swap(first, second);
        }
        pair.is_some()
    }
}
