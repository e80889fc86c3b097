//! Snapshots in the stream of state: in pieces, since a message of the server is bounded, and a message that says which of
//! them is the newest.

use super::server::Server;
use crate::error::LogError;
use crate::frame::{FrameError, Reader, Writer};
use crate::replicated::engine::PublishError;
use crate::replicated::unreadable;
use bytes::Bytes;

const VERSION: u8 = 2;
/// How often the newest is looked for while others take the place of older ones.
const TRIES: usize = 5;

pub(super) async fn put(server: &Server, sequence: u64, snapshot: Bytes) -> Result<u64, LogError> {
    // Two hosts may write down the same place, each in an order of its own.
    let by: u64 = rand::random();
    let mut rest = snapshot;
    let mut parts = 0;
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(server.payload_bytes_max()));
        server.publish(server.names.snapshot_part(sequence, by, parts), part, None).await?;
        parts += 1;
    }
    let newest = server.last(&server.state, &server.names.snapshot()).await?;
    let (expected, there) = match newest {
        Some(stored) => (stored.sequence, decode_pointer(stored.payload).map_err(unreadable)?.sequence),
        None => (0, 0),
    };
    if there < sequence {
        let mut writer = Writer::default();
        writer.byte(VERSION);
        writer.number(sequence);
        writer.number(by);
        writer.count(parts);
        match server.publish(server.names.snapshot(), writer.finish(), Some(expected)).await {
            Ok(_) => {}
            // Another host's is there now.
            Err(PublishError::Stale) => return Ok(there),
            Err(error) => return Err(error.into()),
        }
    }
    let newest = there.max(sequence);
    drop_older(server, newest).await?;
    Ok(newest)
}

/// Pieces of snapshots before this one go; also those of a host that died while it wrote them.
async fn drop_older(server: &Server, newest: u64) -> Result<(), LogError> {
    let pattern = server.names.snapshot_parts_of_all();
    for subject in server.subjects(&server.state, &pattern).await? {
        let at = subject.rsplit('.').nth(2).and_then(|at| at.parse::<u64>().ok());
        if at.is_some_and(|at| at < newest) {
            server.purge_state(&subject).await?;
        }
    }
    Ok(())
}

/// Where the newest snapshot is.
struct Pointer {
    sequence: u64,
    by: u64,
    parts: usize,
}

fn decode_pointer(bytes: Bytes) -> Result<Pointer, FrameError> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        VERSION => {}
        version => return Err(FrameError::Version { version }),
    }
    let (sequence, by) = (reader.number()?, reader.number()?);
    let parts = usize::try_from(reader.number()?).map_err(|_| FrameError::Invalid("the number of parts"))?;
    Ok(Pointer { sequence, by, parts })
}

pub(super) async fn newest(server: &Server) -> Result<Option<Bytes>, LogError> {
    for _ in 0..TRIES {
        let Some(pointer) = server.last(&server.state, &server.names.snapshot()).await? else { return Ok(None) };
        let Pointer { sequence, by, parts } = decode_pointer(pointer.payload).map_err(unreadable)?;
        let mut whole = Vec::new();
        let mut is_whole = true;
        for part in 0..parts {
            match server.last(&server.state, &server.names.snapshot_part(sequence, by, part)).await? {
                Some(part) => whole.extend_from_slice(&part.payload),
                // A newer one took its place meanwhile.
                None => is_whole = false,
            }
        }
        if is_whole {
            return Ok(Some(whole.into()));
        }
    }
    Err(LogError::Unavailable { reason: "the newest snapshot is not whole".into() })
}
