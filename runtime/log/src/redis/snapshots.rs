//! Snapshots in hashes, in pieces, and a field of the log that says which of them is the newest.

use super::server::Server;
use crate::error::LogError;
use bytes::Bytes;
use redis::Value;

/// Of a piece: so long the server does nothing else.
const PIECE_BYTES: usize = 1024 * 1024;
/// How often the newest is looked for while others take the place of older ones.
const TRIES: usize = 5;

pub(super) async fn put(server: &Server, sequence: u64, snapshot: Bytes) -> Result<u64, LogError> {
    // Two hosts may write down the same place.
    let name = format!("{sequence}:{:016x}", rand::random::<u64>());
    let mut rest = snapshot;
    let mut pieces = 0u64;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        let written = server.call("piece", |command| command.arg(&name).arg(sequence).arg(pieces).arg(&piece[..]));
        written.await?;
        pieces += 1;
    }
    let newest = server.call("snapshot", |command| command.arg(&name).arg(sequence).arg(pieces));
    match newest.await? {
        Value::Int(newest) => Ok(u64::try_from(newest).unwrap_or_default()),
        other => Err(LogError::Unavailable { reason: format!("the server answered {other:?} to a snapshot") }),
    }
}

pub(super) async fn newest(server: &Server) -> Result<Option<Bytes>, LogError> {
    let unreadable = || LogError::Refused { reason: "the log does not say where its newest snapshot is".into() };
    for _ in 0..TRIES {
        let mut which = redis::cmd("HGET");
        let Value::BulkString(which) = server.ask(which.arg(server.key("meta")).arg("snapshot")).await? else {
            return Ok(None);
        };
        let which = String::from_utf8(which).map_err(|_| unreadable())?;
        let mut words = which.split(' ').skip(1);
        let (Some(pieces), Some(name)) = (words.next().and_then(|count| count.parse::<u64>().ok()), words.next())
        else {
            return Err(unreadable());
        };
        let mut whole = Vec::new();
        let mut is_whole = true;
        for piece in 0..pieces {
            let mut command = redis::cmd("HGET");
            match server.ask(command.arg(server.key(&format!("snapshot:{name}"))).arg(piece)).await? {
                Value::BulkString(piece) => whole.extend_from_slice(&piece),
                // A newer one took its place meanwhile.
                _ => is_whole = false,
            }
        }
        if is_whole {
            return Ok(Some(whole.into()));
        }
    }
    Err(LogError::Unavailable { reason: "the newest snapshot is not whole".into() })
}
