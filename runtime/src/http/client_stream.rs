//! A client's connection with a write timeout and a lingering close, which also says whether the client reads.
//!
//! hyper bounds the time a head may take, and [`body`](super::body) that of a body; nothing else bounds how long an
//! answer may wait to be read. The timeout asks for a minimum rate: one that every single byte resets, as
//! `tokio-io-timeout` has it, lets a client keep its answer in memory for ever by reading a little now and then.
//!
//! A connection that ends early, since a request was refused before its body came, is closed in two steps: a client that
//! still sends would lose the answer that says why, if the socket were gone at once.

use super::connection_limit::{Connection, RATE_BYTES_MIN};
use super::no_http;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What a client may still send after its last answer (1 MiB).
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Bytes of one such read.
const LINGER_READ_BYTES: usize = 8 * 1024;

pub(super) struct ClientStream<S> {
    stream: S,
    connection: Arc<Connection>,
    write_timeout: Duration,
    linger_timeout: Duration,
    /// Runs while bytes wait to be read by the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Written since then.
    written_bytes: usize,
    /// An answer that is written in place of another one.
    replaced: Option<Replaced>,
    lingering: Option<Lingering>,
}

struct Replaced {
    answer: Vec<u8>,
    written_bytes: usize,
}

/// The host's side is closed, the client's is not.
struct Lingering {
    end: Pin<Box<Sleep>>,
    dropped_bytes: usize,
}

impl<S> ClientStream<S> {
    pub(super) fn new(
        stream: S,
        connection: Arc<Connection>,
        write_timeout: Duration,
        linger_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            connection,
            write_timeout,
            linger_timeout,
            stalled: None,
            written_bytes: 0,
            replaced: None,
            lingering: None,
        }
    }

    /// Takes note of a write of which `wanted` bytes were to be written.
    fn written(&mut self, cx: &mut Context<'_>, wanted: usize, result: Poll<Result<usize>>) -> Poll<Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.written_bytes += bytes;
                if bytes == wanted || self.written_bytes >= RATE_BYTES_MIN {
                    self.connection.moved();
                    self.stalled = None;
                    self.written_bytes = 0;
                    self.connection.set_unread(false);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.connection.set_unread(true);
                let timeout = self.write_timeout;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                std::task::ready!(stalled.as_mut().poll(cx));
                self.connection.count_cut("unread");
                Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not read its answer")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> ClientStream<S> {
    /// Writes the answer that has a reason in place of one without; `None`: these bytes go out as they are.
    fn poll_replaced(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<Result<usize>>> {
        if self.replaced.is_none() {
            let answer = no_http::with_reason(bytes)?;
            self.replaced = Some(Replaced { answer, written_bytes: 0 });
        }
        loop {
            let replaced = self.replaced.as_ref()?;
            let left = &replaced.answer[replaced.written_bytes..];
            if left.is_empty() {
                self.replaced = None;
                return Some(Poll::Ready(Ok(bytes.len())));
            }
            let wanted = left.len();
            let result = Pin::new(&mut self.stream).poll_write(cx, left);
            match self.written(cx, wanted, result) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(written)) => {
                    self.replaced.as_mut()?.written_bytes += written;
                }
                other => return Some(other),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.connection.received(buffer.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if let Some(replaced) = self.poll_replaced(cx, bytes) {
            return replaced;
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, bytes.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let first = parts.iter().find(|part| !part.is_empty());
        if let Some(replaced) = first.and_then(|part| self.poll_replaced(cx, part)) {
            return replaced;
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, parts.iter().map(|part| part.len()).sum(), result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            None => {
                std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                let end = Box::pin(tokio::time::sleep(this.linger_timeout));
                this.lingering.insert(Lingering { end, dropped_bytes: 0 })
            }
        };
        while lingering.dropped_bytes < LINGER_BYTES_MAX && lingering.end.as_mut().poll(cx).is_pending() {
            let mut dropped = [0; LINGER_READ_BYTES];
            let mut buffer = ReadBuf::new(&mut dropped);
            let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            lingering.dropped_bytes += buffer.filled().len();
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
