//! `/v1/handlers/{name}/waiting`: what of a handler waits and why; and what an operator does about one of it: `retry-now`
//! and `cancel`, which are commands like the others.

use super::commands::{Answer, command, read};
use super::error::ApiError;
use super::face::Face;
use super::handlers::Known;
use super::parameters::{Parameters, PathText};
use super::views::{Cursor, WaitingPage, WaitingQuery};
use crate::control::Command;
use crate::handler::HandlerName;
use crate::log::{DelayedFilter, DelayedQuery, HeadFilter, HeadQuery};
use crate::message::{Key, Offset};
use crate::topic::Pattern;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Messages of one page, unless asked otherwise and at most.
const MESSAGES_DEFAULT: usize = 100;
const MESSAGES_MAX: usize = 1000;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    /// Only what waits under this key.
    key: Option<Key>,
    /// Only the message at this offset.
    offset: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    shard: u16,
    number: u64,
}

pub(super) async fn list(
    State(face): State<Arc<Face>>,
    PathText(name): PathText,
    mut parameters: Parameters,
) -> Result<Json<WaitingPage>, ApiError> {
    let name = HandlerName::parse(&name).map_err(ApiError::bad_request)?;
    let filter = HeadFilter {
        offset: parameters.number("offset")?.map(Offset),
        key: parameters.parsed("key", |text| Key::try_from(text.to_owned()))?,
        topic: parameters.parsed("topic", Pattern::parse)?,
        error: parameters.take("error"),
        attempts_min: parameters
            .parsed("attempts", |text| text.parse().map_err(|_| format!("`{text}` is not a number of tries")))?
            .unwrap_or(0),
    };
    let after: Option<Cursor> = parameters.parsed("after", str::parse)?;
    let limit = parameters.number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(MESSAGES_MAX));
    parameters.finish()?;
    let limit = limit.unwrap_or(MESSAGES_DEFAULT).clamp(1, MESSAGES_MAX);
    let running = face.running.get().map(|running| &**running);
    let page = WaitingPage::of(&*face.log, &name, &WaitingQuery { filter, after, limit }, running).await?;
    match page {
        Some(page) => Ok(Json(page)),
        // It says which handlers there are.
        None => Err(Known::of(&face).await?.name(name.as_str()).err().unwrap_or_else(|| gone(&name))),
    }
}

fn gone(name: &HandlerName) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no handler `{name}`"))
}

pub(super) async fn retry_now(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let Which { key, offset } = read(&face, request).await?;
    if key.is_some() || offset.is_some() {
        let handler = HandlerName::parse(&name).map_err(ApiError::bad_request)?;
        let filter =
            HeadFilter { key: key.clone(), offset: offset.map(Offset), attempts_min: 1, ..HeadFilter::default() };
        let query = HeadQuery { handler, filter, after: Offset::START, heads_max: 1 };
        if face.log.heads(query).await?.is_empty() {
            let named =
                [key.map(|key| format!(" under key `{key}`")), offset.map(|offset| format!(" at offset {offset}"))];
            let named: String = named.into_iter().flatten().collect();
            let error = format!("no message of handler `{name}`{named} failed and waits for its retry");
            return Err(ApiError::new(StatusCode::NOT_FOUND, error));
        }
    }
    command(&face, &name, |_| Ok(Command::RetryNow { key, offset })).await
}

pub(super) async fn cancel(State(face): State<Arc<Face>>, PathText(name): PathText, request: Request) -> Answer {
    let One { shard, number } = read(&face, request).await?;
    let handler = HandlerName::parse(&name).map_err(ApiError::bad_request)?;
    let filter = DelayedFilter { shard: Some(shard), number: Some(number), ..DelayedFilter::default() };
    let found = face.log.delayed(DelayedQuery { handler, filter, after: None, delayed_max: 1 }).await?.pop();
    let Some(found) = found else {
        let error =
            format!("handler `{name}` has no delayed message {shard}/{number}: it was sent, or never was there");
        return Err(ApiError::new(StatusCode::NOT_FOUND, error));
    };
    command(&face, &name, |_| Ok(Command::CancelDelayed { shard, number, id: found.id.as_deref().map(str::to_owned) }))
        .await
}
