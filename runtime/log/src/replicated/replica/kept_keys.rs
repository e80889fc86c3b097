//! Keys of which the engine may have state: who has a key that is not among them need not ask.
//!
//! A set of hashes that forgets which they are (a Bloom filter): whoever was added is always found, and of others a few
//! in a hundred, which costs a question in vain. So its memory has a bound whatever the number of keys: it grows by parts, each
//! four times as large as the one before, up to 5.3 MiB, which is good for 3.7 million keys; with more of them the last part
//! fills, and more is asked in vain.

use bytes::Bytes;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;
use std::sync::Arc;
use xxhash_rust::xxh3;

/// Words of 64 bits of the first part, of a part to the one before, and of the largest.
const WORDS_MIN: usize = 2 * 1024;
const GROWTH: usize = 4;
const WORDS_MAX: usize = WORDS_MIN * GROWTH.pow(4);
/// Bits for each key, of which so many are set: less than one other key in a hundred has the same in a part that is full.
const KEY_BITS: usize = 12;
const PROBES: usize = 7;
/// All bits of a key are in one line of the processor's cache, of so many words.
const LINE_WORDS: usize = 8;

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::replicated) struct KeptKeys {
    parts: Vec<Part>,
    /// Some are missing that were added by a version which did not count them, so every key may be one.
    incomplete: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    /// A copy shares them until they change.
    words: Arc<Vec<u64>>,
    keys: usize,
}

impl KeptKeys {
    /// Nothing is known of the keys: every one may be among them.
    pub(in crate::replicated) fn unknown() -> Self {
        Self { parts: vec![], incomplete: true }
    }

    pub(super) fn add(&mut self, handler: &HandlerName, key: &Key) {
        let hash = hash(handler, key);
        if self.incomplete || self.parts.iter().any(|part| part.has(hash)) {
            return;
        }
        let last = self.parts.last();
        if last.is_none_or(|last| last.is_full() && last.words.len() < WORDS_MAX) {
            let words = last.map_or(WORDS_MIN, |last| last.words.len() * GROWTH);
            self.parts.push(Part { words: Arc::new(vec![0; words]), keys: 0 });
        }
        if let Some(last) = self.parts.last_mut() {
            last.add(hash);
        }
    }

    /// `false`: this key was certainly not added.
    pub(super) fn may_have(&self, handler: &HandlerName, key: &Key) -> bool {
        let hash = hash(handler, key);
        self.incomplete || self.parts.iter().any(|part| part.has(hash))
    }

    /// To be written down: of each part its keys and its bits; nothing where nothing is known.
    pub(in crate::replicated) fn parts(&self) -> Option<impl Iterator<Item = (usize, Bytes)>> {
        let bits = |part: &Part| part.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        (!self.incomplete).then(|| self.parts.iter().map(move |part| (part.keys, bits(part))))
    }

    /// What was written down; `None` if it is not that.
    pub(in crate::replicated) fn from_parts(parts: Option<Vec<(usize, Bytes)>>) -> Option<Self> {
        let Some(parts) = parts else { return Some(Self::unknown()) };
        let part = |(keys, bits): (usize, Bytes)| {
            let (words, rest) = bits.as_chunks();
            let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let is_whole = rest.is_empty() && !words.is_empty() && words.len().is_multiple_of(LINE_WORDS);
            is_whole.then(|| Part { words: Arc::new(words), keys })
        };
        Some(Self { parts: parts.into_iter().map(part).collect::<Option<_>>()?, incomplete: false })
    }
}

impl Part {
    fn is_full(&self) -> bool {
        self.keys.saturating_mul(KEY_BITS) >= self.words.len() * 64
    }

    fn add(&mut self, hash: u64) {
        let line = self.line(hash);
        let words = Arc::make_mut(&mut self.words);
        bits(hash).for_each(|(word, bit)| words[line + word] |= bit);
        self.keys += 1;
    }

    fn has(&self, hash: u64) -> bool {
        let line = self.line(hash);
        bits(hash).all(|(word, bit)| self.words[line + word] & bit != 0)
    }

    /// Its first word.
    fn line(&self, hash: u64) -> usize {
        // By the upper half; the lower one says which bits.
        let lines = self.words.len() / LINE_WORDS;
        (((hash >> 32) as usize * lines) >> 32) * LINE_WORDS
    }
}

/// The bits of a key in its line: word and bit.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // Spread anew: nine bits for each probe are more than the half of the hash that is left.
    let spread = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..PROBES).map(move |probe| {
        let at = (spread >> (probe * 9)) as usize;
        (at % LINE_WORDS, 1 << (at / LINE_WORDS % 64))
    })
}

/// The same on every host and in every version: it is in snapshots.
fn hash(handler: &HandlerName, key: &Key) -> u64 {
    xxh3::xxh3_64_with_seed(key.as_str().as_bytes(), xxh3::xxh3_64(handler.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::parse(&format!("user-{number}")).unwrap().unwrap()
    }

    fn with(keys: usize) -> KeptKeys {
        let mut kept = KeptKeys::default();
        (0..keys).for_each(|number| kept.add(&handler(), &key(number)));
        kept
    }

    fn handler() -> HandlerName {
        HandlerName::parse("order").unwrap()
    }

    #[test]
    fn what_was_added_is_found_and_of_other_keys_few_are() {
        for keys in [0, 1, 1_000, 100_000] {
            let kept = with(keys);
            assert!((0..keys).all(|number| kept.may_have(&handler(), &key(number))));
            let in_vain = (keys..keys + 10_000).filter(|number| kept.may_have(&handler(), &key(*number))).count();
            assert!(in_vain < 10_000 / 20, "{in_vain} of 10,000 beside {keys}");
        }
        let other = HandlerName::parse("notify").unwrap();
        let in_vain = (0..1_000).filter(|number| with(1_000).may_have(&other, &key(*number))).count();
        assert!(in_vain < 100, "{in_vain} of another handler");
    }

    #[test]
    fn its_memory_has_a_bound_and_beyond_it_nothing_that_was_added_is_missed() {
        let mut kept = with(1_000);
        // As with millions of keys.
        kept.parts = vec![Part { words: Arc::new(vec![0; WORDS_MAX]), keys: usize::MAX / KEY_BITS }];
        kept.parts[0].keys -= 2_000;
        (0..1_000).for_each(|number| kept.add(&handler(), &key(number)));
        assert_eq!(kept.parts.len(), 1);
        assert!((0..1_000).all(|number| kept.may_have(&handler(), &key(number))));
    }

    #[test]
    fn what_is_written_down_is_the_same_and_other_bytes_are_none() {
        let kept = with(20_000);
        assert!(kept.parts.len() > 1);
        let parts: Vec<_> = kept.parts().unwrap().collect();
        assert_eq!(KeptKeys::from_parts(Some(parts)), Some(kept));
        for bytes in [0, 7, 8, 65] {
            assert_eq!(KeptKeys::from_parts(Some(vec![(1, vec![0; bytes].into())])), None, "{bytes}");
        }
        let unknown = KeptKeys::from_parts(None).unwrap();
        assert!(unknown.may_have(&handler(), &key(1)) && unknown.parts().is_none());
    }
}
