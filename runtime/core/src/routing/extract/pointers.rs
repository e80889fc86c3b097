//! A set of JSON pointers (RFC 6901) as a tree by their tokens, so that one pass over a body serves all.

use super::text::{Text, of_raw, scalar};
use super::{Found, NotJson};
use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// A pointer with more tokens is looked for alone: how deep the parser goes must not depend on the others.
const SHARED_TOKENS_MAX: usize = 64;

/// Pointers by number, in the order in which they were added.
#[derive(Default)]
pub(in crate::routing) struct Pointers {
    numbers: HashMap<Box<str>, usize>,
    /// All that share a pass.
    tree: Node,
    /// By number: a tree of this one alone.
    alone: Vec<Node>,
    /// Some pointer is not in the shared tree.
    has_loner: bool,
}

/// A place in a body and what is wanted at it and below.
#[derive(Default)]
struct Node {
    /// Pointers that end here.
    wanted: Option<usize>,
    /// By token, ascending.
    parts: Vec<(Box<str>, Node)>,
    /// Places in `parts` whose token is an index, ascending by index.
    elements: Vec<(usize, usize)>,
}

impl Pointers {
    /// The number of a pointer; a new one if it is not yet there.
    pub(super) fn add(&mut self, pointer: &str) -> usize {
        if let Some(number) = self.numbers.get(pointer) {
            return *number;
        }
        let number = self.alone.len();
        self.numbers.insert(pointer.into(), number);
        let mut alone = Node::default();
        alone.insert(pointer, number);
        self.alone.push(alone);
        if pointer.matches('/').count() <= SHARED_TOKENS_MAX {
            self.tree.insert(pointer, number);
        } else {
            self.has_loner = true;
        }
        number
    }

    pub(super) fn len(&self) -> usize {
        self.alone.len()
    }

    /// What each pointer yields, by number; `None` when that cannot be told in one pass.
    pub(super) fn all<'b>(&self, body: &'b [u8]) -> Option<Vec<Found<'b>>> {
        if self.has_loner {
            return None;
        }
        let mut found = vec![None; self.len()];
        self.tree.read(body, &mut found).ok()?;
        Some(found)
    }

    /// What one pointer yields.
    pub(super) fn alone<'b>(&self, number: usize, body: &'b [u8]) -> Result<Found<'b>, NotJson> {
        let mut found = vec![None; number + 1];
        self.alone[number].read(body, &mut found)?;
        Ok(found.swap_remove(number))
    }
}

impl Node {
    fn insert(&mut self, pointer: &str, number: usize) {
        if pointer.is_empty() {
            self.wanted = Some(number);
            return;
        }
        // What does not begin with a slash names nothing, but the body has to be JSON all the same.
        let Some(rest) = pointer.strip_prefix('/') else { return };
        let (token, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let token = token.replace("~1", "/").replace("~0", "~");
        let at = match self.find(&token) {
            Ok(at) => at,
            Err(at) => {
                self.parts.insert(at, (token.into(), Node::default()));
                let elements = self.parts.iter().enumerate();
                self.elements = elements.filter_map(|(at, (token, _))| Some((index(token)?, at))).collect();
                self.elements.sort_unstable();
                at
            }
        };
        self.parts[at].1.insert(rest, number);
    }

    fn find(&self, token: &str) -> Result<usize, usize> {
        self.parts.binary_search_by(|(name, _)| (**name).cmp(token))
    }

    /// Reads the whole body: whether a message is valid must not depend on where its key stands.
    fn read<'b>(&self, body: &'b [u8], found: &mut [Found<'b>]) -> Result<(), NotJson> {
        let mut parser = serde_json::Deserializer::from_slice(body);
        let read = Pass { node: self, found }.deserialize(&mut parser).and_then(|()| parser.end());
        read.map_err(|error| NotJson(error.to_string()))
    }

    /// Forgets what was found here and below.
    fn clear(&self, found: &mut [Found<'_>]) {
        if let Some(number) = self.wanted {
            found[number] = None;
        }
        self.parts.iter().for_each(|(_, node)| node.clear(found));
    }
}

/// RFC 6901: an index is digits without leading zeros; anything else names no element.
fn index(token: &str) -> Option<usize> {
    let is_index = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    token.parse().ok().filter(|_| is_index)
}

/// Visits the value at a node.
struct Pass<'p, 'f, 'b> {
    node: &'p Node,
    /// By number of the pointer.
    found: &'f mut [Found<'b>],
}

impl<'de> DeserializeSeed<'de> for Pass<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(number) = self.node.wanted else {
            return deserializer.deserialize_any(self);
        };
        if self.node.parts.is_empty() {
            self.found[number] = scalar(deserializer)?;
            return Ok(());
        }
        // One pointer ends here and another goes on: what the value is decides which of them yields.
        let raw = <&RawValue>::deserialize(deserializer)?;
        self.found[number] = of_raw(raw).map_err(serde::de::Error::custom)?;
        serde_json::Deserializer::from_str(raw.get()).deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for Pass<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            let Ok(at) = self.node.find(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let node = &self.node.parts[at].1;
            // As in serde_json's tree, the last of several equal names wins, and nothing of the others stays.
            node.clear(self.found);
            map.next_value_seed(Pass { node, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        let mut next = 0;
        for &(index, at) in &self.node.elements {
            for _ in next..index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
            }
            if seq.next_element_seed(Pass { node: &self.node.parts[at].1, found: &mut *self.found })?.is_none() {
                return Ok(());
            }
            next = index + 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    // The pointers go on and the value has no parts.
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
