//! What streams and subjects are called. Nothing but hosts may publish below `sb.`.

use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::Key;
use std::fmt::Write as _;

/// The names of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// The stream of all that happens, in one order.
    pub(super) fn log_stream(&self) -> String {
        format!("sluicebox-{}", self.namespace)
    }

    /// The stream of what is looked up by name: of each subject the last entry.
    pub(super) fn state_stream(&self) -> String {
        format!("sluicebox-{}-state", self.namespace)
    }

    /// The stream that plain clients publish to.
    pub(super) fn ingress_stream(&self) -> String {
        format!("sluicebox-{}-in", self.namespace)
    }

    pub(super) fn log_subjects(&self) -> Vec<String> {
        vec![self.messages(), self.control(), self.part(), format!("{}.journal.>", self.root())]
    }

    pub(super) fn state_subjects(&self) -> Vec<String> {
        ["value", "letter", "snapshot", "module", "piece"].map(|kind| format!("{}.{kind}.>", self.root())).to_vec()
    }

    /// Appended messages.
    pub(super) fn messages(&self) -> String {
        format!("{}.messages", self.root())
    }

    /// What concerns more than one shard: routings, forgetting, trimming.
    pub(super) fn control(&self) -> String {
        format!("{}.control", self.root())
    }

    /// Pieces of entries that are larger than a message of the server may be.
    pub(super) fn part(&self) -> String {
        format!("{}.part", self.root())
    }

    /// Heartbeats of hosts, which no stream takes.
    pub(super) fn members(&self) -> String {
        format!("{}.members", self.root())
    }

    /// What a connection sends to itself; no stream takes it.
    pub(super) fn echo(&self, number: u64) -> String {
        format!("{}.echo.{number:016x}", self.root())
    }

    /// Claims and commits of a shard.
    pub(super) fn journal(&self, shard: &ShardId) -> String {
        format!("{}.journal.{}.{}", self.root(), shard.handler, shard.index)
    }

    /// The value of one entry of a key's state. Keys and entries are any text, so their bytes are written as digits.
    pub(super) fn value(&self, handler: &HandlerName, key: &Key, entry: &str) -> String {
        format!("{}.x{}", self.key(handler, key), digits(entry))
    }

    /// Of all entries of a key.
    pub(super) fn values(&self, handler: &HandlerName, key: &Key) -> String {
        format!("{}.*", self.key(handler, key))
    }

    /// Of all keys of a handler.
    pub(super) fn all_values(&self, handler: &HandlerName) -> String {
        format!("{}.value.{handler}.>", self.root())
    }

    fn key(&self, handler: &HandlerName, key: &Key) -> String {
        format!("{}.value.{handler}.x{}", self.root(), digits(key.as_str()))
    }

    /// A dead letter whose frame is gone.
    pub(super) fn letter(&self, handler: &HandlerName, number: u64) -> String {
        format!("{}.letter.{handler}.{number}", self.root())
    }

    pub(super) fn all_letters(&self) -> String {
        format!("{}.letter.>", self.root())
    }

    /// The letter that a subject is of.
    pub(super) fn letter_of(subject: &str) -> Option<(HandlerName, u64)> {
        let mut tokens = subject.rsplit('.');
        let number = tokens.next()?.parse().ok()?;
        Some((HandlerName::parse(tokens.next()?).ok()?, number))
    }

    /// A module of a handler: what is said of it, and how many pieces it has.
    pub(super) fn module(&self, handler: &HandlerName, digest: Digest) -> String {
        format!("{}.module.{handler}.{digest}", self.root())
    }

    pub(super) fn all_modules(&self) -> String {
        format!("{}.module.>", self.root())
    }

    /// The module that a subject is of, or a piece of.
    pub(super) fn module_of(subject: &str) -> Option<(HandlerName, Digest)> {
        let mut tokens = subject.split('.').skip(3);
        Some((HandlerName::parse(tokens.next()?).ok()?, Digest::parse(tokens.next()?)?))
    }

    pub(super) fn piece(&self, handler: &HandlerName, digest: Digest, piece: usize) -> String {
        format!("{}.piece.{handler}.{digest}.{piece}", self.root())
    }

    pub(super) fn pieces(&self, handler: &HandlerName, digest: Digest) -> String {
        format!("{}.piece.{handler}.{digest}.*", self.root())
    }

    pub(super) fn all_pieces(&self) -> String {
        format!("{}.piece.>", self.root())
    }

    /// Which snapshot is the newest.
    pub(super) fn snapshot(&self) -> String {
        format!("{}.snapshot.newest", self.root())
    }

    /// An entry that is always there: an answer without it is from a copy that is behind.
    pub(super) fn always(&self) -> String {
        format!("{}.snapshot.always", self.root())
    }

    /// A piece of the snapshot that this writer took at an entry.
    pub(super) fn snapshot_part(&self, sequence: u64, writer: u64, part: usize) -> String {
        format!("{}.snapshot.at.{sequence}.{writer:016x}.{part}", self.root())
    }

    pub(super) fn snapshot_parts_of_all(&self) -> String {
        format!("{}.snapshot.at.>", self.root())
    }

    /// Everything of the namespace.
    pub(super) fn all(&self) -> String {
        format!("{}.>", self.root())
    }

    /// A subject of each kind to which entries of the log are published.
    pub(super) fn samples(&self) -> [String; 4] {
        [self.messages(), self.control(), self.part(), format!("{}.journal.none.0", self.root())]
    }

    /// A subject of no stream.
    pub(super) fn nothing(&self) -> String {
        format!("{}.nothing", self.root())
    }

    fn root(&self) -> String {
        format!("sb.{}", self.namespace)
    }
}

fn digits(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_key_or_an_entry_breaks_out_of_its_subject() {
        let names = Names::new("shop");
        let handler = HandlerName::parse("h").unwrap();
        let key = |text: &str| Key::parse(text).unwrap().unwrap();
        assert_eq!(names.value(&handler, &key("a.*>"), ""), "sb.shop.value.h.x612e2a3e.x");
        let longest = names.value(&handler, &key(&"k".repeat(256)), &"e".repeat(256));
        assert!(longest.len() < 2048 && longest.split('.').count() == 6);
    }
}
