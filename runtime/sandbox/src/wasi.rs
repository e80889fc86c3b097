//! WASI 0.2, linked because every language's runtime imports it, and empty: no directories, no variables, no arguments,
//! no input, and every socket and name look-up refused. What remains are clocks, random numbers, and stdout and stderr,
//! which become diagnostics.

use super::diagnostics::{Diagnostics, Stream, locked};
use bytes::Bytes;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

/// Most bytes a stream takes at once.
const WRITE_BYTES_MAX: usize = 16 * 1024;
/// Most random bytes in one call.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn context(diagnostics: Arc<Mutex<Diagnostics>>) -> WasiCtx {
    let output = |stream| Output { stream, diagnostics: diagnostics.clone() };
    WasiCtxBuilder::new()
        .stdout(output(Stream::Stdout))
        .stderr(output(Stream::Stderr))
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// A stream of the guest that ends in its diagnostics. It never waits: what is too much is dropped there.
#[derive(Clone)]
struct Output {
    stream: Stream,
    diagnostics: Arc<Mutex<Diagnostics>>,
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Asked for by WASI 0.3 alone, which is not linked.
        Box::new(tokio::io::sink())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        locked(&self.diagnostics).write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for Output {
    fn ready<'s, 'f>(&'s mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(std::future::ready(()))
    }
}
