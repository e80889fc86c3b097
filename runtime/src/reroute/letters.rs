//! Dead letters: each to the shard of its message, which is where one of the same message would die again.

use super::Change;
use crate::commit::{DeadFilter, DeadOrder, DeadQuery};
use crate::log::{Log, LogError, MovedLetter};
use crate::message::Offset;
use crate::routing::Router;
use std::collections::HashSet;

/// Letters read at a time, and bytes of them.
const LETTERS_MAX: usize = 256;
const LETTER_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Letters {
    pub(super) moved: Vec<MovedLetter>,
    /// Where their messages are: they were not done.
    pub(super) offsets: HashSet<Offset>,
}

pub(super) async fn read(log: &dyn Log, change: &Change) -> Result<Letters, LogError> {
    let router = Router::new([&change.to]);
    let filter = DeadFilter { handler: Some(change.from.handler.clone()), ..DeadFilter::default() };
    let (mut letters, mut above) = (Letters::default(), 0);
    loop {
        let order = DeadOrder::Oldest { above };
        let (letters_max, bytes_max) = (LETTERS_MAX, LETTER_BYTES_MAX);
        let page = log.dead(DeadQuery { filter: filter.clone(), order, letters_max, bytes_max }).await?;
        let Some(last) = page.last() else { return Ok(letters) };
        above = last.number;
        for numbered in page {
            let letter = &numbered.letter;
            let routed = router.message(&letter.message).to(0);
            let identity = match change.keeps_marks() {
                true => letter.identity,
                // One that was no other's twin before, by its topic or for want of an id, does not become one.
                false => letter.identity.and_then(|_| routed.id_hash()),
            };
            letters.offsets.insert(letter.message.offset);
            letters.moved.push(MovedLetter {
                number: numbered.number,
                shard: routed.shard(change.to.shards),
                identity,
            });
        }
    }
}
