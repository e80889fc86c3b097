//! A body that keeps something until its last byte was handed to the socket.
//!
//! hyper drops a body when it has taken all of it into its own buffer, where an answer may wait long for a client that
//! does not read. What must last as long as the bytes (a permit for a large answer, a sign that the connection is busy)
//! therefore hangs on the bytes themselves.

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The body, with `guard` dropped once all of it was written, or the client is gone.
pub(super) fn with_guard<T: Send + Sync + 'static>(body: Body, guard: T) -> Body {
    Body::new(GuardedBody { body, guard: Arc::new(guard) })
}

struct GuardedBody<T> {
    body: Body,
    guard: Arc<T>,
}

/// Bytes and what lasts as long as they.
struct GuardedBytes<T> {
    bytes: Bytes,
    _guard: Arc<T>,
}

impl<T> AsRef<[u8]> for GuardedBytes<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T: Send + Sync + 'static> HttpBody for GuardedBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let hold = |bytes| Bytes::from_owner(GuardedBytes { bytes, _guard: self.guard.clone() });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
