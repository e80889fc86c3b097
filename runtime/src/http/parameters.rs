//! Parts of a request that may be wrong, with errors as JSON.

use super::error::ApiError;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use std::collections::HashMap;

/// The one variable part of the path, percent-decoded.
pub(super) struct PathText(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(ApiError::bad_request)?;
        Ok(Self(text))
    }
}

/// What stands after `?`. Each is taken once; [`Parameters::finish`] refuses the rest.
pub(super) struct Parameters {
    left: HashMap<String, String>,
    known: Vec<&'static str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Query(left) = query.map_err(ApiError::bad_request)?;
        Ok(Self { left, known: vec![] })
    }
}

impl Parameters {
    pub(super) fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.left.remove(name)
    }

    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let bad = |_| ApiError::bad_request(format!("`{name}` must be a whole number, not `{text}`"));
        text.parse().map(Some).map_err(bad)
    }

    /// Refuses what nobody took: a mistyped filter must not show everything.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => {
                let error = format!("unknown parameter `{name}`, there is {}", self.known.join(", "));
                Err(ApiError::bad_request(error))
            }
        }
    }
}
