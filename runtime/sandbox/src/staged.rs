//! What a run asked for so far: checked against the limits of a run as it comes, dropped or handed over whole.

use bytes::Bytes;
use sluicebox_core::effects::{
    EFFECTS_BYTES_MAX, EFFECTS_MAX, ENTRIES_BYTES_MAX, ENTRIES_MAX, ENTRY_NAME_BYTES_MAX, Effects, Entries, Outgoing,
    StateWrite, VALUE_BYTES_MAX,
};
use std::sync::Arc;

/// Most names one run may count under.
pub const COUNTERS_MAX: usize = 64;

/// Why an effect was not staged. The guest is told and may go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("a run may have at most {EFFECTS_MAX} effects")]
    Effects,
    #[error("the effects of a run may have at most {EFFECTS_BYTES_MAX} bytes")]
    Bytes,
    #[error("the name of an entry has 1 to {ENTRY_NAME_BYTES_MAX} bytes, not {bytes}")]
    EntryName { bytes: usize },
    #[error("`{entry}` would have {bytes} bytes, at most {VALUE_BYTES_MAX} are allowed")]
    Value { entry: String, bytes: usize },
    #[error("the key already has {ENTRIES_MAX} entries")]
    Entries,
    #[error("the key's entries would have more than {ENTRIES_BYTES_MAX} bytes")]
    EntriesBytes,
    #[error("a run may count under at most {COUNTERS_MAX} names")]
    Counters,
}

/// The effects of one run and the state it sees: its own writes over the key's entries.
#[derive(Default)]
pub(super) struct Staged {
    effects: Effects,
    entries: Entries,
    /// Of all outputs and writes.
    bytes: usize,
    /// Of all entries, names included.
    entries_bytes: usize,
}

impl Staged {
    pub(super) fn new(entries: Entries) -> Self {
        let entries_bytes = entries.bytes();
        Self { effects: Effects::default(), entries, bytes: 0, entries_bytes }
    }

    /// The entries as the run sees them.
    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    pub(super) fn publish(&mut self, outgoing: Outgoing) -> Result<(), Refused> {
        let bytes = outgoing_bytes(&outgoing);
        self.room(1, bytes)?;
        self.bytes += bytes;
        self.effects.outputs.push(outgoing);
        Ok(())
    }

    pub(super) fn set(&mut self, entry: &str, value: Bytes) -> Result<(), Refused> {
        if entry.is_empty() || entry.len() > ENTRY_NAME_BYTES_MAX {
            return Err(Refused::EntryName { bytes: entry.len() });
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refused::Value { entry: entry.to_owned(), bytes: value.len() });
        }
        let old = self.entries.get(entry).map(|old| entry.len() + old.len());
        if old.is_none() && self.entries.len() >= ENTRIES_MAX {
            return Err(Refused::Entries);
        }
        let entries_bytes = self.entries_bytes - old.unwrap_or(0) + entry.len() + value.len();
        if entries_bytes > ENTRIES_BYTES_MAX {
            return Err(Refused::EntriesBytes);
        }
        self.write(entry, Some(value))?;
        self.entries_bytes = entries_bytes;
        Ok(())
    }

    /// Deleting what is not there is no effect.
    pub(super) fn delete(&mut self, entry: &str) -> Result<(), Refused> {
        let Some(old) = self.entries.get(entry).map(|old| entry.len() + old.len()) else { return Ok(()) };
        self.write(entry, None)?;
        self.entries_bytes -= old;
        Ok(())
    }

    pub(super) fn count(&mut self, name: &str, by: u64) -> Result<(), Refused> {
        if let Some((_, sum)) = self.effects.counts.iter_mut().find(|(known, _)| **known == *name) {
            *sum = sum.saturating_add(by);
            return Ok(());
        }
        if self.effects.counts.len() >= COUNTERS_MAX {
            return Err(Refused::Counters);
        }
        self.effects.counts.push((name.into(), by));
        Ok(())
    }

    pub(super) fn into_effects(self) -> Effects {
        self.effects
    }

    /// Replaces the run's earlier write to the entry, if there is one: the last write wins.
    fn write(&mut self, entry: &str, value: Option<Bytes>) -> Result<(), Refused> {
        let bytes = |value: &Option<Bytes>| entry.len() + value.as_ref().map_or(0, Bytes::len);
        let earlier = self.effects.writes.iter().position(|write| *write.entry == *entry);
        let write = match earlier {
            Some(at) => {
                let freed = bytes(&self.effects.writes[at].value);
                self.room(0, bytes(&value).saturating_sub(freed))?;
                self.bytes = self.bytes - freed + bytes(&value);
                self.effects.writes[at].value = value;
                &self.effects.writes[at]
            }
            None => {
                self.room(1, bytes(&value))?;
                self.bytes += bytes(&value);
                self.effects.writes.push(StateWrite { entry: Arc::from(entry), value });
                self.effects.writes.last().expect("pushed above")
            }
        };
        self.entries.apply(write);
        Ok(())
    }

    fn room(&self, effects: usize, bytes: usize) -> Result<(), Refused> {
        if self.effects.outputs.len() + self.effects.writes.len() + effects > EFFECTS_MAX {
            return Err(Refused::Effects);
        }
        if self.bytes + bytes > EFFECTS_BYTES_MAX {
            return Err(Refused::Bytes);
        }
        Ok(())
    }
}

fn outgoing_bytes(outgoing: &Outgoing) -> usize {
    let key = outgoing.key.as_ref().map_or(0, |key| key.as_str().len());
    let id = outgoing.id.as_ref().map_or(0, |id| id.len());
    outgoing.topic.as_str().len() + key + id + outgoing.headers.bytes() + outgoing.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_core::message::Headers;
    use sluicebox_core::topic::Topic;

    fn outgoing(body_bytes: usize) -> Outgoing {
        Outgoing {
            topic: Topic::parse("out").unwrap(),
            key: None,
            id: None,
            headers: Headers::default(),
            body: vec![0; body_bytes].into(),
            delay: None,
        }
    }

    fn value(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    #[test]
    fn a_run_reads_its_own_writes_and_the_last_write_wins() {
        let mut staged = Staged::new([("a".into(), value(1))].into_iter().collect());
        staged.set("a", value(2)).unwrap();
        staged.set("b", value(3)).unwrap();
        staged.delete("a").unwrap();
        staged.set("b", value(4)).unwrap();
        assert_eq!(staged.entries().get("a"), None);
        assert_eq!(staged.entries().get("b"), Some(&value(4)));
        let writes = staged.into_effects().writes;
        assert_eq!(writes.len(), 2);
        assert_eq!((&*writes[0].entry, &writes[0].value), ("a", &None));
        assert_eq!((&*writes[1].entry, &writes[1].value), ("b", &Some(value(4))));
    }

    #[test]
    fn deleting_what_is_not_there_is_no_effect() {
        let mut staged = Staged::default();
        staged.delete("a").unwrap();
        assert_eq!(staged.into_effects(), Effects::default());
    }

    #[test]
    fn the_number_of_effects_counts_outputs_and_written_entries_together() {
        let mut staged = Staged::default();
        for _ in 0..EFFECTS_MAX - 1 {
            staged.publish(outgoing(1)).unwrap();
        }
        staged.set("a", value(1)).unwrap();
        staged.set("a", value(2)).unwrap();
        assert_eq!(staged.publish(outgoing(1)), Err(Refused::Effects));
        assert_eq!(staged.set("b", value(1)), Err(Refused::Effects));
        assert_eq!(staged.entries().get("b"), None, "a refused write must not be seen");
    }

    #[test]
    fn the_bytes_of_a_run_are_bounded_and_an_overwrite_gives_bytes_back() {
        let mut staged = Staged::default();
        for _ in 0..7 {
            staged.publish(outgoing(VALUE_BYTES_MAX)).unwrap();
        }
        for _ in 0..10 {
            staged.set("a", value(VALUE_BYTES_MAX - 100)).unwrap();
        }
        assert_eq!(staged.publish(outgoing(VALUE_BYTES_MAX)), Err(Refused::Bytes));
        staged.delete("a").unwrap();
        staged.publish(outgoing(VALUE_BYTES_MAX - 100)).unwrap();
    }

    #[test]
    fn the_entries_of_a_key_are_bounded() {
        let full: Entries = (0..ENTRIES_MAX).map(|n| (Arc::from(n.to_string()), Bytes::new())).collect();
        let mut staged = Staged::new(full);
        assert_eq!(staged.set("one more", value(1)), Err(Refused::Entries));
        staged.set("0", value(1)).unwrap();
        staged.delete("1").unwrap();
        staged.set("one more", value(1)).unwrap();

        let mut staged = Staged::default();
        staged.set("a", value(VALUE_BYTES_MAX)).unwrap();
        assert_eq!(staged.set("b", value(VALUE_BYTES_MAX)), Err(Refused::EntriesBytes));
        staged.set("b", value(VALUE_BYTES_MAX - 2)).unwrap();
        assert!(matches!(staged.set("c", value(VALUE_BYTES_MAX + 1)), Err(Refused::Value { .. })));
        assert!(matches!(staged.set("", value(1)), Err(Refused::EntryName { bytes: 0 })));
        assert!(matches!(staged.set(&"n".repeat(257), value(1)), Err(Refused::EntryName { bytes: 257 })));
    }

    #[test]
    fn counts_of_one_name_are_summed() {
        let mut staged = Staged::default();
        staged.count("a", u64::MAX).unwrap();
        staged.count("a", 1).unwrap();
        for n in 1..COUNTERS_MAX {
            staged.count(&format!("n{n}"), 1).unwrap();
        }
        assert_eq!(staged.count("one_more", 1), Err(Refused::Counters));
        let counts = staged.into_effects().counts;
        assert_eq!(counts[0], ("a".into(), u64::MAX));
    }
}
