//! Everything that ever was in a log whose host deletes what is old.
//!
//! Nothing may be deleted unseen, however slow the machine is. So a handler that runs nothing keeps the messages, the
//! *keeper*: it is paused in front of a mark, and only while no host runs the archive reads the log, puts up the next mark
//! and moves the keeper in front of it.

use crate::checker::History;
use crate::harness::everything;
use crate::harness::logs::{commit, message, shard};
use crate::harness::process::Place;
use sluicebox::commit::{Committed, Control, ShardCommit};
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::message::{Message, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const KEEPER_NAME: &str = "keeper";
pub const KEEPER: &str = r#"
[handlers.keeper]
module = "ledger.wasm"
subscribe = ["mark"]
start = "earliest"
publish = ["out"]
shards = 1
"#;

/// From the next start on the host deletes what is older than a second and nobody needs.
pub fn delete_what_is_old(place: &Place) {
    let text = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    let path = "path = \"data\"\n";
    assert!(text.contains(path));
    place.put("sluicebox.toml", text.replace(path, &format!("{path}retain = {{ age = \"1s\" }}\n")));
}

#[derive(Clone, Default)]
pub struct Archive {
    messages: BTreeMap<Offset, Arc<Message>>,
    /// The first message that was there at the last look.
    first: Offset,
}

impl Archive {
    /// Reads what there is, which may be deleted from then on. No host may run.
    pub async fn look(&mut self, place: &Place) {
        let log = EmbeddedLog::open(&place.data(), Options::default()).unwrap();
        let found = everything(&log).await;
        self.first = found.first().map_or(Offset::START, |first| first.offset);
        self.add(found);
        let seen = log.end().await.unwrap();
        log.append(vec![message("mark", "")]).await.unwrap();
        let keeper = shard(KEEPER_NAME, 0);
        let claim = log.claim(keeper.clone(), Offset::START).await.unwrap();
        let before_the_mark = ShardCommit {
            read: seen,
            controlled: seen,
            control: Some(Control { paused: true, ..Control::default() }),
            ..commit(&keeper, claim.term, claim.record.commit_number + 1)
        };
        assert_eq!(log.commit(before_the_mark).await, Ok(Committed::default()));
    }

    fn add(&mut self, messages: Vec<Arc<Message>>) {
        self.messages.extend(messages.into_iter().map(|message| (message.offset, message)));
    }

    /// The history of what is there, with the messages that are not there any more.
    pub fn complete(&self, history: History) -> History {
        let mut all = self.clone();
        all.add(history.messages);
        History { messages: all.messages.into_values().collect(), ..history }
    }

    /// The messages that were gone at the last look.
    pub fn deleted(&self) -> Vec<Arc<Message>> {
        self.messages.range(..self.first).map(|(_, message)| message.clone()).collect()
    }
}
