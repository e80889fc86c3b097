//! Commits that leave a trace of their number in every table, and a look at whether all of it is there.

use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Head, HeadScope, KeyWrites, Mark, ShardCommit, Term};
use sluicebox::effects::StateWrite;
use sluicebox::handler::ShardId;
use sluicebox::log::Log;
use sluicebox::message::{IdHash, Offset};

/// The commit of this number.
pub fn numbered(id: &ShardId, term: Term, number: u64) -> ShardCommit {
    let text = number.to_string();
    let head = |number| Head {
        offset: Offset(number),
        key: None,
        attempt: 0,
        due: Timestamp(number),
        error: "".into(),
        digest: None,
        scope: HeadScope::Message,
    };
    ShardCommit {
        read: Offset(number),
        open_put: vec![head(number)],
        open_drop: vec![Offset(number - 1)],
        marks: vec![Mark { id: IdHash::of(None, &text), time: Timestamp(number) }],
        state: vec![KeyWrites {
            key: key(&format!("shard {}", id.index)),
            writes: vec![StateWrite { entry: "number".into(), value: Some(text.clone().into()) }],
        }],
        outputs: (0..number % 5).map(|at| message("out", output(id.index, number, at))).collect(),
        ..commit(id, term, number)
    }
}

fn output(shard: u16, number: u64, at: u64) -> String {
    format!("{shard}:{number}:{at}")
}

/// The bodies of all outputs of a shard whose last commit had this number.
pub fn outputs(shard: u16, last: u64) -> Vec<String> {
    (1..=last).flat_map(|number| (0..number % 5).map(move |at| output(shard, number, at))).collect()
}

/// Claims the shard of `h` and holds everything of its record and state to the number of its last commit. Returns the
/// term and the number.
pub async fn claim_whole(log: &dyn Log, index: u16) -> (Term, u64) {
    let id = shard("h", index);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let (record, term) = (claim.record, claim.term);
    let last = record.commit_number;
    assert_eq!(record.read, Offset(last));
    let open: Vec<_> = record.open.iter().map(|head| head.offset.0).collect();
    assert_eq!(open, (last..=last).filter(|number| *number > 0).collect::<Vec<_>>());
    let mark = |number: u64| Mark { id: IdHash::of(None, &number.to_string()), time: Timestamp(number) };
    assert_eq!(record.marks, (1..=last).map(mark).collect::<Vec<_>>());
    let state = log.load(id, vec![key(&format!("shard {index}"))]).await.unwrap();
    let number = state[0].get("number").map(|value| String::from_utf8(value.to_vec()).unwrap());
    assert_eq!(number, (last > 0).then(|| last.to_string()));
    (term, last)
}
