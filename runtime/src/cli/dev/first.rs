//! The first build: nothing can run before it, so whoever wrote something broken mends it and is waited for.

use super::sources::{files_at_hand, sources};
use crate::blocking::blocking;
use crate::cli::build::{BuildError, Built, build_handlers};
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::registry::told;
use crate::watch::Watch;
use std::path::Path;

/// Builds until it is good. What no change of a source can mend is a failure.
pub(super) async fn first_build(dir: &Path) -> Result<Vec<Built>, Failure> {
    let mut watch = Watch::default();
    loop {
        // Before it is built: what changes meanwhile is seen.
        let of = dir.to_owned();
        let scope = blocking(move || sources(&of).or_else(|_| files_at_hand(&of))).await?;
        watch.follow(scope).await;
        let of = dir.to_owned();
        match blocking(move || build_handlers(&of)).await {
            Ok(built) => return Ok(built),
            Err(error @ BuildError::Failed { .. }) => {
                note(format!("error: {}; waiting for a source to change", told(&error)));
            }
            Err(error) => return Err(error.into()),
        }
        watch.changed().await;
        note("a source changed: building");
    }
}
