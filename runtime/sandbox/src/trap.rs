//! Why a guest ended, in words an operator can use: at most 1 KiB, without the host's own paths and addresses.

use super::host::Host;
use super::text::{REASON_BYTES_MAX, cut};
use sluicebox_core::invoke::Failure;
use std::time::Duration;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// Why a sandbox could not be made.
pub(super) fn start_failure(error: &wasmtime::Error, host: &mut Host, limit: Duration) -> Failure {
    let by_guest = error.is::<Trap>() || error.is::<I32Exit>() || host.limiter.memory_refused();
    if by_guest { failure(error, host, limit) } else { Failure::Host { reason: describe(error) } }
}

/// What became of a guest that did not return. The sandbox must not be used again.
pub(super) fn failure(error: &wasmtime::Error, host: &mut Host, limit: Duration) -> Failure {
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return Failure::Timeout { limit };
    }
    let mut reason = describe(error);
    if let Some(words) = host.last_words() {
        reason = format!("{words} ({reason})");
    }
    cut(&mut reason, REASON_BYTES_MAX);
    match host.limiter.memory_refused() {
        true => Failure::Memory { limit_bytes: host.settings().memory_bytes, reason },
        false => Failure::Trap { reason },
    }
}

fn describe(error: &wasmtime::Error) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("the handler called exit with code {}", exit.0);
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "stack overflow: the recursion is too deep".to_owned(),
        // Frames with arrays in them live in linear memory, below everything else.
        Some(trap @ Trap::MemoryOutOfBounds) => format!("{trap} (or recursion too deep, which looks the same)"),
        Some(trap) => trap.to_string(),
        // Not a trap of the guest's code: something it passed to the host was not acceptable.
        None => error.root_cause().to_string(),
    };
    let what = what.strip_prefix("wasm trap: ").unwrap_or(&what);
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    match frames.iter().find_map(|frame| frame.func_name()) {
        Some(function) => format!("{what} in `{function}`"),
        None => what.to_owned(),
    }
}
