//! The HTTP face: publish, follow and look, plus metrics and health.
//!
//! It knows the log and the metrics, asks the host through [`running`] what these cannot tell, and knows nothing of
//! shards. A publish or a command is answered after the append, so what a client was told is durable. Every error is
//! JSON, `{"error": "…"}`, and says what to do.
//!
//! On a loopback address it answers only requests whose `Host`, and `Origin` if there is one, are this very machine:
//! otherwise any web page could reach it through the browser. With a token every request but the health checks must bear
//! it.
//!
//! Clients cannot exhaust the host: connections, open tails, large answers, bodies, headers and the time a client may
//! take to send and to read them are bounded. What is left to others: TLS and anything finer than one token (put a proxy in front).
//!
//! # Headers of a published message
//!
//! | header | meaning |
//! |---|---|
//! | `Sluicebox-Key`, `Sluicebox-Id` | the message's key and id, UTF-8 |
//! | `Sluicebox-Header-NAME` | the message's header `NAME`, in lower case |
//! | `traceparent`, `tracestate` | kept as headers of the message |
//! | `ce-…` | a CloudEvent in binary mode, see [`cloudevents`] |
//! | `Content-Type` | `application/cloudevents+json` and `application/x-ndjson` ([`ndjson`]) mean what they say; any other: the body is one message as it is |

mod body;
mod body_guard;
mod client_body;
mod client_stream;
mod cloudevents;
mod commands;
mod connection_limit;
mod connections;
mod dead;
mod envelope;
mod error;
mod face;
mod guard;
mod handlers;
mod hosts;
mod known_hosts;
mod line;
mod module;
pub mod named;
mod ndjson;
mod no_http;
mod parameters;
mod publish;
pub(crate) mod rfc3339;
mod router;
mod routes;
pub mod running;
mod state;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
pub mod views;
mod waiting;
mod waiting_metrics;

pub use connections::{listen, serve};
pub use face::{Face, Readiness};
