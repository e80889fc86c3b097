//! Every integration test of Sluicebox in one binary. Tests are named as claims.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alarm;
mod backup;
mod bulk;
mod checker;
mod clients;
mod clocks;
mod cluster;
mod conformance;
mod crash;
mod delays;
mod deploy;
mod edges;
mod failing_keys;
mod full;
mod harness;
mod hosts;
mod hotload;
mod identity;
mod moving;
mod nats;
mod new;
mod on_servers;
mod operators;
#[cfg(debug_assertions)]
mod oracle;
mod panics;
mod pipeline;
mod redis;
mod reroute;
mod retention;
mod rooms;
mod samples;
mod sandbox;
mod settings;
mod shard;
mod simulation;
mod slow;
mod storm;
mod tail;
mod tidy;
mod trace;
mod usage;
mod waiting;
mod walk;
#[cfg(debug_assertions)]
mod whole_host;
