//! `GET /v1/handlers` and `GET /v1/handlers/{name}`: what the log says of handlers, what operators asked of them, and how
//! they fare on the running host. Also who may be commanded, for [`commands`](super::commands) and [`dead`](super::dead).

use super::error::ApiError;
use super::face::Face;
use super::named::unknown_handler;
use super::parameters::{Parameters, PathText};
use super::running::{Running, RunningHandler};
use super::views::{HandlerPage, HandlerView};
use crate::config::ShowState;
use crate::handler::HandlerName;
use crate::log::ShardStatus;
use crate::routing::Routing;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) async fn list(State(face): State<Arc<Face>>, parameters: Parameters) -> Result<Json<HandlerPage>, ApiError> {
    parameters.finish()?;
    Ok(Json(HandlerPage::of(all(&face).await?)))
}

pub(super) async fn show(
    State(face): State<Arc<Face>>,
    PathText(name): PathText,
    parameters: Parameters,
) -> Result<Json<HandlerView>, ApiError> {
    parameters.finish()?;
    let wanted = HandlerName::parse(&name).map_err(ApiError::bad_request)?;
    let handlers = all(&face).await?;
    let names: Vec<String> = handlers.iter().map(|handler| handler.name.clone()).collect();
    let found = handlers.into_iter().find(|handler| handler.name == wanted.as_str());
    found.map(Json).ok_or_else(|| unknown(&wanted, names.iter().map(String::as_str)))
}

async fn all(face: &Face) -> Result<Vec<HandlerView>, ApiError> {
    Ok(HandlerView::all(&*face.log, face.running.get().map(|running| &**running)).await?)
}

fn unknown<'n>(name: &HandlerName, known: impl Iterator<Item = &'n str>) -> ApiError {
    unknown_handler(name, known).into()
}

/// The handlers that the log knows, for one request.
pub(super) struct Known {
    routings: Vec<Routing>,
    shards: Vec<ShardStatus>,
    /// Those of the settings in force.
    running: Vec<RunningHandler>,
}

/// A handler that executes commands.
pub(super) struct Commanded<'k> {
    pub(super) routing: &'k Routing,
    /// Every shard of it.
    pub(super) shards: Vec<&'k ShardStatus>,
    pub(super) running: &'k RunningHandler,
}

impl Known {
    pub(super) async fn of(face: &Face) -> Result<Self, ApiError> {
        let running: &Arc<dyn Running> =
            face.running.get().ok_or_else(|| ApiError::unavailable("the host is starting: try again"))?;
        let (routings, shards) = (face.log.routings().await?.routings, face.log.status().await?);
        Ok(Self { routings, shards, running: running.handlers() })
    }

    /// Each once, in order.
    pub(super) fn names(&self) -> BTreeSet<&HandlerName> {
        let routed = self.routings.iter().map(|routing| &routing.handler);
        routed.chain(self.shards.iter().map(|shard| &shard.shard.handler)).collect()
    }

    /// A handler that the log knows.
    pub(super) fn name(&self, text: &str) -> Result<HandlerName, ApiError> {
        let name = HandlerName::parse(text).map_err(ApiError::bad_request)?;
        let names = self.names();
        if names.contains(&name) { Ok(name) } else { Err(unknown(&name, names.iter().map(|name| name.as_str()))) }
    }

    /// What its settings let be shown of its state; `None`: no settings name it.
    pub(super) fn show_state(&self, name: &HandlerName) -> Option<ShowState> {
        self.running.iter().find(|running| running.name == *name).map(|running| running.show_state)
    }

    pub(super) fn is_in_settings(&self, name: &HandlerName) -> bool {
        self.running.iter().any(|running| running.name == *name)
    }

    /// The handler, if somebody is there who executes commands.
    pub(super) fn commanded(&self, name: &HandlerName) -> Result<Commanded<'_>, ApiError> {
        let running = self.running.iter().find(|running| running.name == *name).ok_or_else(|| {
            let error = format!(
                "no settings name handler `{name}`, so nothing would execute it: put the handler back, or delete what is \
                 left of it with `sluicebox handlers forget {name}`"
            );
            ApiError::new(StatusCode::CONFLICT, error)
        })?;
        let routing = self.routings.iter().find(|routing| routing.handler == *name);
        let shards: Vec<_> = self.shards.iter().filter(|shard| shard.shard.handler == *name).collect();
        // A shard begins at the commands that come after its first claim, so an earlier one would be lost.
        let ready = routing.filter(|routing| shards.len() >= usize::from(routing.shards));
        let routing = ready.ok_or_else(|| ApiError::unavailable(format!("handler `{name}` is starting: try again")))?;
        Ok(Commanded { routing, shards, running })
    }
}
