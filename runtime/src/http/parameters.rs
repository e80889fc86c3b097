//! Parts of a request that may be wrong, with errors as JSON.

use super::error::ApiError;
use crate::config::nearest;
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

/// The two variable parts of the path, percent-decoded.
pub(super) struct PathTexts(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathTexts {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((first, second)) = path.map_err(ApiError::bad_request)?;
        Ok(Self(first, second))
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
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(given) = query.map_err(ApiError::bad_request)?;
        let mut left = HashMap::with_capacity(given.len());
        for (name, value) in given {
            // Which of the two would count?
            if left.contains_key(&name) {
                let shown: String = name.chars().take(100).collect();
                return Err(ApiError::bad_request(format!("the parameter `{shown}` is there twice")));
            }
            left.insert(name, value);
        }
        Ok(Self { left, known: vec![] })
    }
}

impl Parameters {
    pub(super) fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.left.remove(name)
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let bad = |_| ApiError::bad_request(format!("`{name}` must be a whole number, not `{text}`"));
        text.parse().map(Some).map_err(bad)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, ApiError> {
        match self.take(name).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(ApiError::bad_request(format!("`{name}` must be true or false, not `{other}`"))),
        }
    }

    /// Text that `parse` understands.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        let parsed = self.take(name).map(|text| parse(&text)).transpose();
        parsed.map_err(|error| ApiError::bad_request(format!("`{name}`: {error}")))
    }

    /// Refuses what nobody took: a mistyped filter must not show everything.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(100).collect();
                let error = match (nearest(&shown, &self.known), &self.known[..]) {
                    (_, []) => format!("unknown parameter `{shown}`, there is none here"),
                    (_, [only]) => format!("unknown parameter `{shown}`, there is {only}"),
                    (Some(near), known) => {
                        format!("unknown parameter `{shown}`, did you mean `{near}`? There is {}", known.join(", "))
                    }
                    (None, known) => format!("unknown parameter `{shown}`, there is {}", known.join(", ")),
                };
                Err(ApiError::bad_request(error))
            }
        }
    }
}
