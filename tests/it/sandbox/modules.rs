//! Which bytes become a handler, and what the others are told.

use super::*;
use sluicebox::sandbox::LoadError;

/// The header of an empty component.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

/// A component that imports an instance with one function, `f: func()`, under a name and does nothing.
fn importing(name: &str) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id, u8::try_from(content.len()).unwrap()], content].concat();
    // One type: an instance of two declarations, the type of the function and the export of that type.
    let types = section(7, &[1, 0x42, 2, 1, 0x40, 0, 1, 0, 4, 0, 1, b'f', 1, 0]);
    let imports = section(10, &[&[1, 0, u8::try_from(name.len()).unwrap()], name.as_bytes(), &[5, 0]].concat());
    [EMPTY, &types, &imports].concat()
}

fn refused(bytes: &[u8], settings: Settings) -> LoadError {
    match SANDBOXES.load(bytes).and_then(|module| SANDBOXES.handler(&module, settings)) {
        Ok(_) => panic!("it should be refused"),
        Err(error) => error,
    }
}

#[track_caller]
fn check_refused(bytes: &[u8], expected: &str) {
    let error = refused(bytes, settings("refused")).to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn truncated_and_corrupt_modules_are_refused_with_a_reason() {
    let whole = guests::bytes("hostile");
    for cut in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        // 8 bytes are an empty component, which exports no handler; anything else ends in the middle of something.
        let error = refused(&whole[..cut], settings("truncated"));
        assert!(matches!(error, LoadError::Malformed { .. } | LoadError::NoHandler { .. }), "{cut} bytes: {error}");
    }
    // Damage that leaves the sections as they are must be found by the compiler's validation or change nothing at all.
    let mut accepted = 0;
    for at in (8..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        match SANDBOXES.load(&damaged) {
            Ok(_) => accepted += 1,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(accepted < 40, "damage was never noticed");
}

#[test]
fn what_is_no_handler_is_refused_with_a_hint() {
    check_refused(b"\0asm\x01\0\0\0", "build it for the target wasm32-wasip2");
    check_refused(EMPTY, "exports no `sluicebox:handler/handler`");
}

#[test]
fn a_missing_import_is_named_with_what_would_grant_it() {
    for (import, hint) in [
        ("wasi:http/outgoing-handler@0.2.0", "links no HTTP"),
        ("wasi:sql/query@0.2.0", "this host offers sluicebox:handler"),
        ("sluicebox:handler/teleport@0.9.0", "a newer one may"),
    ] {
        let error = refused(&importing(import), settings("missing"));
        assert!(error.to_string().contains(&format!("it imports `{import}`, which is not there")), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
    let silent = Settings { publish: vec![], ..settings("silent") };
    let error = refused(&guests::bytes("hostile"), silent).to_string();
    assert!(error.contains("it imports `sluicebox:handler/outbox@0.1.0`"), "{error}");
    assert!(error.contains("`publish = [\"…\"]` in [handlers.silent]"), "{error}");
}

#[test]
fn an_import_of_the_right_name_and_the_wrong_shape_is_refused() {
    // Version 0.1.0 of the draft is not what is linked.
    check_refused(&importing("wasi:keyvalue/store@0.1.0"), "its imports do not fit");
}

/// Resident bytes of what is mapped from files below a folder.
fn mapped_resident_bytes(folder: &std::path::Path) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_below = false;
    let mut kib = 0;
    for line in smaps.lines() {
        if let Some(resident) = line.strip_prefix("Rss:") {
            kib += if is_below { resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() } else { 0 };
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            is_below = line.contains(folder.to_str().unwrap());
        }
    }
    kib * 1024
}

#[tokio::test]
async fn a_module_that_does_not_run_lets_go_of_its_memory_and_runs_again() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool { running: 4, idle: 0, cache: Some(directory.path().join("compiled")) };
    let sandboxes = Sandboxes::new(&pool, LINES.sink()).unwrap();
    let module = sandboxes.load(&guests::bytes("hostile")).unwrap();
    let handler = sandboxes.handler(&module, settings("idle")).unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&handler, "seen").await, "1");
        let running = mapped_resident_bytes(directory.path());
        assert_eq!(sandboxes.release_idle(), 0, "it ran since the last look");
        assert!(running > 0 && mapped_resident_bytes(directory.path()) >= running);
        assert_eq!(sandboxes.release_idle(), 1);
        let idle = mapped_resident_bytes(directory.path());
        assert!(idle < running / 4, "{idle} of {running} bytes");
    }
}

#[test]
fn a_compiled_module_is_kept_and_a_damaged_one_is_compiled_anew() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool { running: 4, idle: 0, cache: Some(directory.path().join("compiled")) };
    let load = || {
        let sandboxes = Sandboxes::new(&pool, LINES.sink()).unwrap();
        let module = sandboxes.load(&guests::bytes("hostile")).unwrap();
        let handler = sandboxes.handler(&module, settings("cached")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(answer(&handler, "seen")), "1");
        module.from_cache()
    };
    assert!(!load());
    assert!(load());
    let entry = std::fs::read_dir(directory.path().join("compiled")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&entry).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&entry, bytes).unwrap();
    assert!(!load());
    assert!(load());
}
