//! `GET /v1/hosts`: who works on the log.

use super::error::ApiError;
use super::face::Face;
use super::parameters::Parameters;
use super::views::HostPage;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

pub(super) async fn list(State(face): State<Arc<Face>>, parameters: Parameters) -> Result<Json<HostPage>, ApiError> {
    parameters.finish()?;
    let hosts = face.running.get().map(|running| running.hosts()).unwrap_or_default();
    Ok(Json(HostPage { hosts }))
}
