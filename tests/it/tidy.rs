//! Invariants of the architecture, held by reading the source instead of by memory.

use std::path::{Path, PathBuf};

/// The sources of each crate of the product.
pub const CRATES: [&str; 4] = ["runtime/core/src", "runtime/log/src", "runtime/sandbox/src", "runtime/src"];

pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The lines that are compiled into the product, numbered from 1: no comments, nothing below `mod tests`.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let code = self.text[..end].lines().enumerate().map(|(index, line)| (index + 1, line));
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Tests beside the code that have files of their own.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(repository()).unwrap().to_str().unwrap().replace('\\', "/");
            sources.push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

/// All Rust sources below these folders.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let mut sources = vec![];
    folders.iter().for_each(|folder| collect(&repository().join(folder), &mut sources));
    assert!(sources.len() > 3, "found hardly anything in {folders:?}");
    sources
}

fn product() -> Vec<Source> {
    sources(&CRATES).into_iter().filter(|source| !source.is_test()).collect()
}

/// No line of the product's code outside `allowed` contains one of `words`.
#[track_caller]
fn check_absent(words: &[&str], allowed: &[&str]) {
    let mut found = vec![];
    for source in product() {
        if allowed.iter().any(|allowed| source.path.starts_with(allowed)) {
            continue;
        }
        for (number, line) in source.code().filter(|(_, line)| words.iter().any(|word| line.contains(word))) {
            found.push(format!("{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert!(found.is_empty(), "{words:?} outside {allowed:?}:\n{}", found.join("\n"));
}

#[test]
fn wasmtime_is_named_only_in_the_sandbox() {
    check_absent(&["wasmtime::", "wasmtime_wasi::"], &["runtime/sandbox/src"]);
}

#[test]
fn sqlite_is_named_only_in_the_embedded_log() {
    check_absent(&["rusqlite::"], &["runtime/log/src/embedded"]);
}

#[test]
fn nats_is_named_only_in_the_log_on_nats() {
    check_absent(&["async_nats::"], &["runtime/log/src/nats"]);
}

#[test]
fn redis_is_named_only_in_the_log_on_redis() {
    check_absent(&["redis::aio", "redis::cmd(", "redis::Client", "use redis::"], &["runtime/log/src/redis"]);
}

#[test]
fn only_the_committer_commits() {
    // The benchmark commits the same rows without the product, to compare.
    check_absent(&["log.commit("], &["runtime/src/committer.rs", "runtime/src/bench/parts.rs"]);
}

#[test]
fn only_the_faces_append() {
    check_absent(&["log.append("], &["runtime/src/http/", "runtime/src/bench"]);
}

#[test]
fn decisions_do_no_io_and_read_no_clock() {
    let words =
        ["async ", ".await", "::now()", "clock::now", "rand::", "std::fs", "std::net", "std::thread", "tokio::"];
    let mut checked = 0;
    for source in sources(&["runtime/core/src"]) {
        if source.is_test() || source.path == "runtime/core/src/clock.rs" {
            continue;
        }
        checked += 1;
        for (number, line) in source.code() {
            let word = words.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "{}:{number} has {word:?}: {line}", source.path);
        }
    }
    assert!(checked >= 30, "only {checked} files were checked");
}

#[test]
fn only_the_clock_reads_the_time() {
    check_absent(&["Instant::now", "SystemTime::now"], &["runtime/core/src/clock.rs"]);
}

#[test]
fn every_channel_has_a_bound() {
    check_absent(&["unbounded_channel", "unbounded()", "std::sync::mpsc::channel", "mpsc::channel()"], &[]);
}

#[test]
fn nothing_is_left_unfinished() {
    check_absent(&["todo!(", "unimplemented!(", "TODO", "FIXME"], &[]);
    for source in sources(&["runtime", "guest-sdk", "handlers", "tests"]) {
        let here = source.path == "tests/it/tidy.rs";
        let unfinished = source.text.lines().find(|line| line.trim_start().starts_with("#[ignore"));
        assert!(here || unfinished.is_none(), "{} ignores a test", source.path);
    }
}

/// The comparison is written by hand; this makes it whole.
#[test]
fn every_limit_of_the_sdk_is_compared_with_the_hosts() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (limits, tests) = (read("guest-sdk/src/limits.rs"), read("tests/it/sandbox/limits.rs"));
    let names: Vec<&str> =
        limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("sdk::{name})")) || tests.contains(&format!("sdk::{name},")), "{name}");
    }
}

#[test]
fn tests_do_not_sleep() {
    for source in sources(&["tests/it"]) {
        // In the simulation of the whole host time stands still: a sleep takes none.
        if source.path == "tests/it/tidy.rs" || source.path.starts_with("tests/it/whole_host") {
            continue;
        }
        let sleep = source.text.lines().find(|line| line.contains("thread::sleep(") || line.contains("time::sleep("));
        assert!(sleep.is_none(), "{} sleeps: {sleep:?}", source.path);
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for source in sources(&["runtime", "guest-sdk/src", "guest-sdk/macros/src", "tests/it"]) {
        assert!(source.text.starts_with("//!"), "{} does not open with `//!`", source.path);
    }
}

#[test]
fn no_modules_named_for_nothing() {
    for source in sources(&["runtime", "guest-sdk/src", "tests/it"]) {
        let name = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        let bad = ["utils", "util", "common", "manager", "helpers", "misc", "mod"];
        assert!(!bad.contains(&name), "{}: name it for its idea", source.path);
    }
}
