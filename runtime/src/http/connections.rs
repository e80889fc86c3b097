//! Serves connections until it is told to stop.

use super::body_guard::with_guard;
use super::client_body::ClientBody;
use super::client_stream::ClientStream;
use super::connection_limit::{Connection, ConnectionLimit};
use super::face::{ClientLimits, Face};
use super::no_http::REQUEST_HEADERS_MAX;
use super::router::router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the listener rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of one connection's read buffer at which a request's head is too large; the last read may go as far again. Room
/// for the headers of a message.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// At stop, requests under way get this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Clients that wait in the kernel for a connection. More have to knock again, a second later at the earliest.
const BACKLOG: u32 = 1024;

/// Listens for HTTP; nothing is answered before [`serve`].
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A host that comes back must not wait until the kernel has forgotten the connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the face's `stop` is cancelled; then finishes what is under way, within five seconds.
pub async fn serve(listener: TcpListener, face: Arc<Face>) {
    let stop = face.stop.clone();
    let connections = TaskTracker::new();
    let limits = face.limits;
    let limit = ConnectionLimit::new(limits.connections_max, limits.idle_min, face.counts.connections_cut.clone());
    let open = face.counts.connections.clone();
    let router = router(face);
    loop {
        let accepted = tokio::select! {
            // Safe to cancel: a connection is handed out whole or stays in the queue.
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let permit = tokio::select! {
            // Safe to cancel, as it says; the client that waited for it is hung up on.
            permit = limit.acquire() => permit,
            () = stop.cancelled() => break,
        };
        let (service, stop, open) = (TowerToHyperService::new(router.clone()), stop.clone(), open.clone());
        connections.spawn(async move {
            open.inc();
            serve_connection(stream, service, &permit.connection, limits, stop).await;
            open.dec();
            drop(permit);
        });
    }
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "left HTTP connections unfinished");
    }
}

async fn serve_connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    client: &Arc<Connection>,
    limits: ClientLimits,
    stop: CancellationToken,
) {
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let stream = ClientStream::new(stream, client.clone(), limits.write_timeout, limits.linger_timeout);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        let (parts, body) = request.into_parts();
        let (body, progress) = ClientBody::new(body, client.clone());
        let (guard, answer) = (client.request(), service.call(Request::from_parts(parts, body)));
        async move {
            let mut response = answer.await?;
            if !progress.is_whole() {
                // The connection ends with this answer, since the rest of the body is in the way of another request: a
                // client that is not told would send it and find the connection closed.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response.map(|body| with_guard(body, guard)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(REQUEST_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        // Safe to cancel: it is polled on below.
        result = connection.as_mut() => result,
        // The client was waited for, so nothing of a request is lost but its beginning.
        () = client.cut.cancelled() => Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(result) => result,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        // The client's doing: it hung up, or sent what is not HTTP.
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
