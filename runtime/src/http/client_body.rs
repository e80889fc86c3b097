//! The body of a request, which knows whether the host waits for its client, and whether all of it was read.

use super::connection_limit::Connection;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

pub(super) struct ClientBody<B> {
    body: B,
    connection: Arc<Connection>,
    progress: BodyProgress,
}

/// Whether the whole body was read.
#[derive(Clone)]
pub(super) struct BodyProgress(Arc<AtomicBool>);

impl BodyProgress {
    pub(super) fn is_whole(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl<B: HttpBody> ClientBody<B> {
    pub(super) fn new(body: B, connection: Arc<Connection>) -> (Self, BodyProgress) {
        let progress = BodyProgress(Arc::new(AtomicBool::new(body.is_end_stream())));
        (Self { body, connection, progress: progress.clone() }, progress)
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for ClientBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.connection.set_body_awaited(frame.is_pending());
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.progress.0.store(true, Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for ClientBody<B> {
    fn drop(&mut self) {
        self.connection.set_body_awaited(false);
    }
}
