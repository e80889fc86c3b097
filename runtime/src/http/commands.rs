//! `POST /v1/handlers/{name}/…`: what an operator asks of a handler.
//!
//! A command is a message in the log, durable when it is answered (202, with its offset); the handler's shards execute it
//! in their commits. `forget` is no command: there is nobody left to execute it.

use super::body;
use super::error::ApiError;
use super::face::Face;
use super::handlers::{Commanded, Known};
use super::parameters::PathText;
use super::running::{ForgetError, RunningHandler};
use crate::commit::{Over, Pin};
use crate::control::{Command, PAUSED_KEYS_MAX};
use crate::handler::{Digest, HandlerName};
use crate::message::{Key, Offset};
use crate::routing::{KeyFrom, Routing};
use crate::telemetry::events;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// Fewer digits of a digest are too easily mistyped.
const DIGITS_MIN: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    /// Only the messages of this key.
    key: Option<Key>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct To {
    /// The version's digest or its first digits; absent: the one before that in force.
    digest: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Confirmed {
    /// The handler's name once more: everything of it will be gone.
    confirm: Option<String>,
}

pub(super) type Answer = Result<Response, ApiError>;

pub(super) async fn pause(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Which { key } = read(&face, request).await?;
    steer(&face, &name, |handler| match key {
        None => Ok(Command::Pause),
        Some(key) => check_key(handler, &key).map(|()| Command::PauseKey { key }),
    })
    .await
}

pub(super) async fn resume(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Which { key } = read(&face, request).await?;
    steer(&face, &name, |_| Ok(key.map_or(Command::Resume, |key| Command::ResumeKey { key }))).await
}

pub(super) async fn trip(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Nothing {} = read(&face, request).await?;
    steer(&face, &name, |_| Ok(Command::Trip)).await
}

pub(super) async fn reset(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Nothing {} = read(&face, request).await?;
    steer(&face, &name, |_| Ok(Command::Reset)).await
}

pub(super) async fn rollback(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let To { digest } = read(&face, request).await?;
    let modules = face.log.modules().await?;
    steer(&face, &name, |handler| {
        let mut running = handler.running.clone();
        running.add_deployed(modules.get(&running.name).map_or(&[], Vec::as_slice));
        Ok(Command::Rollback { pin: pin(&running, digest.as_deref())? })
    })
    .await
}

pub(super) async fn unpin(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Nothing {} = read(&face, request).await?;
    steer(&face, &name, |_| Ok(Command::Unpin)).await
}

pub(super) async fn forget(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Confirmed { confirm } = read(&face, request).await?;
    refuse_forget(&name)?;
    let known = Known::of(&face).await?;
    let name = known.name(&name)?;
    if known.is_in_settings(&name) {
        let error = format!(
            "handler `{name}` is in the settings: take it out of the settings file, and forget it once the host no \
             longer runs it"
        );
        return Err(ApiError::new(StatusCode::CONFLICT, error));
    }
    if confirm.as_deref() != Some(name.as_str()) {
        let error = format!(
            "forgetting deletes the state, marks, delayed messages and dead letters of `{name}`: send \
             {{\"confirm\": \"{name}\"}} if that is meant"
        );
        return Err(ApiError::bad_request(error));
    }
    let running = face.running.get().ok_or_else(|| ApiError::unavailable("the host is starting: ask again"))?;
    running.forget(face.log.clone(), name.clone()).await.map_err(|error| match error {
        ForgetError::Runs { .. } | ForgetError::RunsElsewhere { .. } => {
            ApiError::new(StatusCode::CONFLICT, error.to_string())
        }
        ForgetError::Versions { .. } => ApiError::unavailable(error.to_string()),
        ForgetError::Log(error) => error.into(),
    })?;
    events::handler_forgotten(&face.counts, &name);
    Ok(Json(json!({ "handler": name, "forgotten": true })).into_response())
}

pub(super) async fn read<T: serde::de::DeserializeOwned>(face: &Face, request: Request) -> Result<T, ApiError> {
    let (parts, sent) = request.into_parts();
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(ApiError::bad_request("there are no parameters here: what is asked for stands in the body"));
    }
    body::command(face, &parts.headers, sent).await
}

/// As [`command`], for what changes how a handler of the settings runs.
async fn steer(face: &Face, name: &str, make: impl FnOnce(&Commanded<'_>) -> Result<Command, ApiError>) -> Answer {
    if HandlerName::parse(name).is_ok_and(|name| name == HandlerName::ingress() || name == HandlerName::intake()) {
        let error = format!(
            "handler `{name}` is the host's own and always runs: what plain clients send is taken up until `ingress` in \
             [log] no longer names its subjects"
        );
        return Err(ApiError::new(StatusCode::CONFLICT, error));
    }
    refuse_delay(name)?;
    command(face, name, make).await
}

/// Handlers of the host's own have no module to change.
pub(super) fn refuse_own(name: &str) -> Result<(), ApiError> {
    if !HandlerName::parse(name).is_ok_and(|name| name.is_reserved()) {
        return Ok(());
    }
    let error = format!("handler `{name}` is the host's own and has no module to go back to, nor to replace");
    Err(ApiError::new(StatusCode::CONFLICT, error))
}

/// Whatever held this handler would hold what publishers rely on.
fn refuse_delay(name: &str) -> Result<(), ApiError> {
    if !HandlerName::parse(name).is_ok_and(|name| name.is_delay()) {
        return Ok(());
    }
    let error = format!(
        "handler `{name}` is the host's own and always runs: it holds what was published with a delay, and one message of \
         it is cancelled with `sluicebox handlers cancel {name} SHARD/NUMBER`"
    );
    Err(ApiError::new(StatusCode::CONFLICT, error))
}

/// Without its position the host would take everything up again that plain clients sent.
fn refuse_forget(name: &str) -> Result<(), ApiError> {
    if !HandlerName::parse(name).is_ok_and(|name| name == HandlerName::intake()) {
        return refuse_delay(name);
    }
    let error = "it says how far the host has taken up what plain clients sent, and stays with the log".to_owned();
    Err(ApiError::new(StatusCode::CONFLICT, error))
}

/// Makes a command for a handler that executes commands and appends it.
pub(super) async fn command(
    face: &Face,
    name: &str,
    make: impl FnOnce(&Commanded<'_>) -> Result<Command, ApiError>,
) -> Answer {
    let known = Known::of(face).await?;
    let name = known.name(name)?;
    let command = make(&known.commanded(&name)?)?;
    let offsets = append(face, &[(&name, command)]).await?;
    let answer = json!({ "handler": name, "offset": offsets.first().map(|offset| offset.0) });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Brings commands into the log.
pub(super) async fn append(face: &Face, commands: &[(&HandlerName, Command)]) -> Result<Vec<Offset>, ApiError> {
    let messages = commands.iter().map(|(handler, command)| command.message(handler)).collect();
    // DURABLE: from here on every shard of the handlers will execute it.
    let offsets = face.log.append(messages).await?;
    for ((handler, command), offset) in commands.iter().zip(&offsets) {
        events::command_taken(&face.counts, handler, command, *offset);
    }
    Ok(offsets)
}

/// A key that can be paused.
fn check_key(handler: &Commanded<'_>, key: &Key) -> Result<(), ApiError> {
    let Routing { handler: name, key: from, .. } = handler.routing;
    let conflict = |error| Err(ApiError::new(StatusCode::CONFLICT, error));
    if *from == KeyFrom::None {
        return conflict(format!("handler `{name}` has no keys (`key = false`): pause the handler"));
    }
    let index = handler.routing.shard_of(key);
    let shard = handler.shards.iter().find(|shard| shard.shard.index == index);
    let paused = shard.map(|shard| &shard.control.paused_keys);
    if paused.is_some_and(|paused| paused.len() >= PAUSED_KEYS_MAX && !paused.contains(key)) {
        return conflict(format!("{PAUSED_KEYS_MAX} keys of this shard are paused: pause handler `{name}`"));
    }
    Ok(())
}

/// The version meant by an operator, and what it stands in for.
fn pin(running: &RunningHandler, wanted: Option<&str>) -> Result<Pin, ApiError> {
    let name = &running.name;
    let conflict = |error| ApiError::new(StatusCode::CONFLICT, error);
    refuse_own(name.as_str())?;
    let digest = match wanted {
        None => running.version_before().ok_or_else(|| {
            let error = format!("the host knows no version of handler `{name}` before the one in force");
            conflict(error).with("known", known_versions(running))
        })?,
        Some(text) => version(running, text)?,
    };
    if Some(digest) == running.digest {
        return Err(conflict(format!("version {digest} of handler `{name}` is in force already")));
    }
    if running.versions.iter().any(|version| version.digest == digest && version.deployed) {
        return Ok(Pin::deployed(digest));
    }
    let over = running
        .file_digest
        .ok_or_else(|| conflict(format!("the module file of handler `{name}` cannot be read: mend that first")))?;
    if digest == over {
        return Err(conflict(format!("version {digest} is the one in the file: use unpin")));
    }
    Ok(Pin { digest, over: Over::File(over) })
}

fn version(running: &RunningHandler, text: &str) -> Result<Digest, ApiError> {
    let good = (DIGITS_MIN..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !good {
        let shown: String = text.chars().take(100).collect();
        let error = format!("`{shown}` is not the beginning of a digest: write {DIGITS_MIN} to 64 hexadecimal digits");
        return Err(ApiError::bad_request(error));
    }
    let text = text.to_ascii_lowercase();
    let digests = running.versions.iter().map(|version| version.digest);
    let found: Vec<Digest> = digests.filter(|digest| digest.to_string().starts_with(&text)).collect();
    let name = &running.name;
    match found[..] {
        [digest] => Ok(digest),
        [] => {
            let error = format!("the host knows no version {text}… of handler `{name}`");
            Err(ApiError::new(StatusCode::NOT_FOUND, error).with("known", known_versions(running)))
        }
        _ => {
            let error = format!("{} versions of handler `{name}` begin with {text}: write more digits", found.len());
            Err(ApiError::bad_request(error).with("known", known_versions(running)))
        }
    }
}

fn known_versions(running: &RunningHandler) -> serde_json::Value {
    json!(running.versions)
}
