//! `/v1/handlers/{name}/state`: which keys of a handler have state, and what is in it. Looks only; what is shown is up to
//! the handler's settings.

use super::error::ApiError;
use super::face::Face;
use super::handlers::Known;
use super::parameters::{Parameters, PathText, PathTexts};
use super::views::{StatePage, StateView, shown};
use crate::config::ShowState;
use crate::handler::HandlerName;
use crate::log::StateQuery;
use crate::message::Key;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

/// Keys of one page, unless asked otherwise and at most.
const KEYS_DEFAULT: usize = 100;
const KEYS_MAX: usize = 1000;

pub(super) async fn list(
    State(face): State<Arc<Face>>,
    PathText(name): PathText,
    mut parameters: Parameters,
) -> Result<Json<StatePage>, ApiError> {
    let prefix = parameters.take("prefix").unwrap_or_default();
    let after = parameters.parsed("after", |text| Key::try_from(text.to_owned()))?;
    let limit = parameters.number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(KEYS_MAX));
    parameters.finish()?;
    let (handler, _) = shown_of(&face, &name).await?;
    let keys_max = limit.unwrap_or(KEYS_DEFAULT).clamp(1, KEYS_MAX);
    Ok(Json(StatePage::of(&*face.log, StateQuery { handler, prefix, after, keys_max }).await?))
}

pub(super) async fn get(
    State(face): State<Arc<Face>>,
    PathTexts(name, key): PathTexts,
    parameters: Parameters,
) -> Result<Json<StateView>, ApiError> {
    parameters.finish()?;
    let key = Key::try_from(key).map_err(ApiError::bad_request)?;
    let (handler, shown) = shown_of(&face, &name).await?;
    let found = StateView::of(&*face.log, &handler, &key, shown).await?;
    found
        .map(Json)
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("key `{key}` of handler `{handler}` has no state")))
}

/// A handler that the log knows, and what may be shown of its state.
async fn shown_of(face: &Face, name: &str) -> Result<(HandlerName, ShowState), ApiError> {
    let known = Known::of(face).await?;
    let name = known.name(name)?;
    let shown = shown(&name, known.show_state(&name));
    shown.map(|shown| (name, shown)).map_err(|error| ApiError::new(StatusCode::FORBIDDEN, error.to_string()))
}
