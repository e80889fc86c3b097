//! Deployed modules in the stream of state: in pieces, since a message of the server is bounded, and a message that says how many
//! there are and makes the module whole.

use super::names::Names;
use super::server::Server;
use crate::error::LogError;
use crate::frame::{FrameError, Reader, Writer};
use crate::modules::PIECE_BYTES_MAX;
use crate::replicated::unreadable;
use bytes::Bytes;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::handler::{Digest, HandlerName};
use std::collections::HashSet;
use std::time::Duration;

const VERSION: u8 = 1;
/// Pieces without a module are of one that is being put, or of a host that died meanwhile: nobody takes that long.
const LOOSE: Duration = Duration::from_secs(3600);
/// Not the whole of a stream at once.
const SCAN_BYTES: u64 = 4 * 1024 * 1024;

fn encode(pieces: usize, said: &Bytes) -> Bytes {
    let mut writer = Writer::default();
    writer.byte(VERSION);
    writer.count(pieces);
    writer.bytes(said);
    writer.finish()
}

fn decode(stored: Bytes) -> Result<(usize, Bytes), FrameError> {
    let mut reader = Reader::new(stored);
    match reader.byte()? {
        VERSION => {}
        version => return Err(FrameError::Version { version }),
    }
    let pieces = usize::try_from(reader.number()?).map_err(|_| FrameError::Invalid("the number of pieces"))?;
    Ok((pieces, reader.bytes()?))
}

pub(super) async fn put(
    server: &Server,
    handler: &HandlerName,
    digest: Digest,
    said: Bytes,
    module: Bytes,
) -> Result<(), LogError> {
    let mut pieces = 0;
    for piece in module.chunks(PIECE_BYTES_MAX.min(server.payload_bytes_max()).max(1)) {
        server.publish(server.names.piece(handler, digest, pieces), module.slice_ref(piece), None).await?;
        pieces += 1;
    }
    server.publish(server.names.module(handler, digest), encode(pieces, &said), None).await?;
    if let Err(error) = drop_loose(server).await {
        tracing::warn!(%error, "pieces of modules that nobody put together go later");
    }
    Ok(())
}

pub(super) async fn get(server: &Server, handler: &HandlerName, digest: Digest) -> Result<Option<Bytes>, LogError> {
    let Some(stored) = server.last(&server.state, &server.names.module(handler, digest)).await? else {
        return Ok(None);
    };
    let (pieces, _) = decode(stored.payload).map_err(unreadable)?;
    let mut module = vec![];
    for piece in 0..pieces {
        match server.last(&server.state, &server.names.piece(handler, digest, piece)).await? {
            Some(piece) => module.extend_from_slice(&piece.payload),
            // It went meanwhile.
            None => return Ok(None),
        }
    }
    Ok(Some(module.into()))
}

pub(super) async fn all(server: &Server) -> Result<Vec<(HandlerName, Digest, Bytes)>, LogError> {
    let (name, subjects) = (server.names.state_stream(), server.names.all_modules());
    let (mut sequence, mut modules) = (1, vec![]);
    loop {
        let question = serde_json::json!({
            "seq": sequence, "next_by_subj": subjects, "batch": 1024, "max_bytes": SCAN_BYTES
        });
        let many = server.get_many(&name, &question.to_string()).await?;
        let Some(last) = many.entries.last() else { return Ok(modules) };
        sequence = last.sequence + 1;
        for stored in many.entries {
            let (_, said) = decode(stored.payload).map_err(unreadable)?;
            if let Some((handler, digest)) = Names::module_of(&stored.subject) {
                modules.push((handler, digest, said));
            }
        }
    }
}

/// Out of everyone's sight first.
pub(super) async fn delete(server: &Server, handler: &HandlerName, digest: Digest) -> Result<(), LogError> {
    server.purge_state(&server.names.module(handler, digest)).await?;
    server.purge_state(&server.names.pieces(handler, digest)).await
}

/// Pieces go that nobody makes a module of.
async fn drop_loose(server: &Server) -> Result<(), LogError> {
    let module_of = |subject: &String| Names::module_of(subject);
    let pieces = server.subjects(&server.state, &server.names.all_pieces()).await?;
    let pieces: HashSet<(HandlerName, Digest)> = pieces.iter().filter_map(module_of).collect();
    let whole = server.subjects(&server.state, &server.names.all_modules()).await?;
    let whole: HashSet<(HandlerName, Digest)> = whole.iter().filter_map(module_of).collect();
    let now: Timestamp = clock::steady();
    for (handler, digest) in pieces.difference(&whole) {
        let first = server.last(&server.state, &server.names.piece(handler, *digest, 0)).await?;
        if first.is_none_or(|first| first.time.after(LOOSE) < now) {
            server.purge_state(&server.names.pieces(handler, *digest)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_its_subjects() {
        let names = Names::new("shop");
        let (handler, digest) = (HandlerName::parse("order").unwrap(), Digest::of(b"a"));
        for subject in [names.module(&handler, digest), names.piece(&handler, digest, 12)] {
            assert_eq!(Names::module_of(&subject), Some((handler.clone(), digest)), "{subject}");
        }
        assert_eq!(decode(encode(300, &Bytes::from_static(b"said"))), Ok((300, Bytes::from_static(b"said"))));
    }
}
