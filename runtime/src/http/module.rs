//! `PUT /v1/handlers/{name}/module`: a module for every host that runs the handler.
//!
//! It is tried out here first, so what cannot run changes nothing. Then the log takes the bytes, and then a command says that
//! they are in force: 202, with the command's offset. A crash in between leaves a module that is not in force. Each host, this
//! one too, hears the command, has the bytes from the log, and swaps as for any change.

use super::body;
use super::commands::{Answer, append, refuse_own};
use super::error::ApiError;
use super::face::Face;
use super::handlers::Known;
use super::parameters::PathText;
use super::running::TryError;
use crate::commit::Pin;
use crate::control::Command;
use crate::handler::{Digest, HandlerName, MODULE_BYTES_MAX};
use crate::message::Offset;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;
use std::sync::Arc;
use tracing::Instrument as _;

pub(super) async fn put(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let (parts, sent) = request.into_parts();
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(ApiError::bad_request("there are no parameters here: the body is the module"));
    }
    refuse_own(&name)?;
    let (name, needed) = {
        let known = Known::of(&face).await?;
        let name = known.name(&name)?;
        let handler = known.commanded(&name)?;
        let pinned = handler.shards.iter().filter_map(|shard| Some(shard.control.pin?.digest));
        let needed: Vec<Digest> = pinned.chain(handler.running.digest).collect();
        (name, needed)
    };
    // Its room is its own until the log has it.
    let (module, room) = body::whole_with_room(&face, &parts.headers, sent, MODULE_BYTES_MAX).await?;
    if module.is_empty() {
        return Err(ApiError::bad_request("there is no body: send the bytes of the module, a WebAssembly component"));
    }
    let running = face.running.get().ok_or_else(|| ApiError::unavailable("the host is starting: try again"))?.clone();
    let (face, handler) = (face.clone(), name.clone());
    // A task of its own: a client that hangs up meanwhile leaves no half of it.
    let deploy = async move {
        let _room = room;
        running.try_module(handler.clone(), module.clone()).await?;
        in_force(&face, &handler, module, needed).await
    };
    let deployed = tokio::spawn(deploy.in_current_span()).await;
    let (digest, offset) = deployed.map_err(|panic| ApiError::unavailable(panic.to_string()))??;
    Ok((StatusCode::ACCEPTED, Json(json!({ "handler": name, "digest": digest, "offset": offset.0 }))).into_response())
}

/// Puts a module in force that can run. Modules of `needed` stay in the log.
async fn in_force(
    face: &Face,
    handler: &HandlerName,
    module: Bytes,
    needed: Vec<Digest>,
) -> Result<(Digest, Offset), ApiError> {
    // DURABLE: the bytes first, so that nobody hears of a module that is not there.
    let digest = face.log.put_module(handler.clone(), module, needed).await?;
    let offsets = append(face, &[(handler, Command::Rollback { pin: Pin::deployed(digest) })]).await?;
    let offset = offsets.first().copied().ok_or_else(|| ApiError::unavailable("the log gave the command no place"))?;
    Ok((digest, offset))
}

impl From<TryError> for ApiError {
    fn from(error: TryError) -> Self {
        match error {
            TryError::DoesNotRun { .. } => Self::unavailable(error),
            TryError::Refused { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        }
    }
}
