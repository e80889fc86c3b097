//! Deployed modules in hashes: the pieces of each in one of its own, and in `modules` how many there are and what is said of it,
//! which makes it whole.

use super::server::Server;
use crate::error::LogError;
use crate::modules::PIECE_BYTES_MAX;
use bytes::Bytes;
use redis::{FromRedisValue as _, Value};
use sluicebox_core::handler::{Digest, HandlerName};

fn field(handler: &HandlerName, digest: Digest) -> String {
    format!("{handler}/{digest}")
}

fn pieces_key(server: &Server, handler: &HandlerName, digest: Digest) -> String {
    server.key(&format!("module:{}", field(handler, digest)))
}

/// The number of pieces, 4 bytes, and then what is said.
fn split(stored: Vec<u8>) -> Option<(u32, Bytes)> {
    let pieces = u32::from_le_bytes(*stored.first_chunk::<4>()?);
    Some((pieces, Bytes::from(stored).slice(4..)))
}

pub(super) async fn put(
    server: &Server,
    handler: &HandlerName,
    digest: Digest,
    said: Bytes,
    module: Bytes,
) -> Result<(), LogError> {
    let name = field(handler, digest);
    // All of it in one life of the server: another one may be without the pieces that came first.
    let established = server.link.established()?;
    let mut pieces = 0_u32;
    for piece in module.chunks(PIECE_BYTES_MAX) {
        server.call_in(&established, "module_piece", |command| command.arg(&name).arg(pieces).arg(piece)).await?;
        pieces += 1;
    }
    let whole = [&pieces.to_le_bytes()[..], &said].concat();
    server.call_in(&established, "module_whole", |command| command.arg(&name).arg(pieces).arg(whole)).await?;
    Ok(())
}

pub(super) async fn get(server: &Server, handler: &HandlerName, digest: Digest) -> Result<Option<Bytes>, LogError> {
    let mut said = redis::cmd("HGET");
    let said = server.ask(said.arg(server.key("modules")).arg(field(handler, digest))).await?;
    let Value::BulkString(said) = said else { return Ok(None) };
    let Some((pieces, _)) = split(said) else { return Ok(None) };
    let key = pieces_key(server, handler, digest);
    let mut module = vec![];
    for piece in 0..pieces {
        match server.ask(redis::cmd("HGET").arg(&key).arg(piece)).await? {
            Value::BulkString(piece) => module.extend_from_slice(&piece),
            // It went meanwhile, unless it is damaged, which its digest shows.
            _ => {
                let mut said = redis::cmd("HEXISTS");
                let said = server.ask(said.arg(server.key("modules")).arg(field(handler, digest))).await?;
                return Ok((said == Value::Int(1)).then(|| module.into()));
            }
        }
    }
    Ok(Some(module.into()))
}

pub(super) async fn all(server: &Server) -> Result<Vec<(HandlerName, Digest, Bytes)>, LogError> {
    let found = server.ask(redis::cmd("HGETALL").arg(server.key("modules"))).await?;
    let found: Vec<(String, Vec<u8>)> = Vec::from_redis_value(found)
        .map_err(|error| LogError::Unavailable { reason: format!("the server answered something else: {error}") })?;
    let module = |(field, said): (String, Vec<u8>)| {
        let (handler, digest) = field.split_once('/')?;
        Some((HandlerName::parse(handler).ok()?, Digest::parse(digest)?, split(said)?.1))
    };
    Ok(found.into_iter().filter_map(module).collect())
}

pub(super) async fn delete(server: &Server, handler: &HandlerName, digest: Digest) -> Result<(), LogError> {
    server.call("module_drop", |command| command.arg(field(handler, digest))).await?;
    Ok(())
}
