//! Builds the handlers again whenever a source changes. The modules are put in their places, and the running host takes
//! them up from there like any changed module.

use super::sources::sources;
use crate::blocking::blocking;
use crate::cli::build::build_handlers;
use crate::cli::output::note;
use crate::clock;
use crate::registry::told;
use crate::watch::Watch;
use std::path::PathBuf;

/// Goes on until it is dropped.
pub(super) async fn rebuild(dir: PathBuf) {
    let mut watch = Watch::default();
    loop {
        let of = dir.clone();
        // A manifest that cannot be read leaves the sources that were known, and the build says what is wrong with it.
        let grew = match blocking(move || sources(&of)).await {
            Ok(scope) => watch.follow(scope).await,
            Err(_) => false,
        };
        // What was not followed may have changed since it was built: then the build has something to do, or nothing to say.
        if !grew {
            watch.changed().await;
            note("a source changed: building");
        }
        build(&dir, grew).await;
    }
}

async fn build(dir: &std::path::Path, quiet: bool) {
    let (of, begun) = (dir.to_owned(), clock::instant());
    let built = match blocking(move || build_handlers(&of)).await {
        Ok(built) => built,
        Err(error) => return note(format!("error: {}; what was built before goes on", told(&error))),
    };
    let took = clock::instant().duration_since(begun).as_secs_f64();
    let changed: Vec<_> = built.iter().filter(|built| built.changed).collect();
    for built in &changed {
        note(format!("built {} in {took:.1} s", built.module.display()));
    }
    if changed.is_empty() && !quiet {
        note(format!("built in {took:.1} s: every module is as it was"));
    }
}
