//! Sluicebox: runs event handlers compiled to WebAssembly over a durable log, exactly once.
//!
//! This crate is the program: the host, its faces, and what joins the parts. The words and decisions are those of
//! `sluicebox-core` (the glossary is there), the log is `sluicebox-log`, and the sandbox is `sluicebox-sandbox`; their
//! modules are shown here under the same names, so that a word has one path in the whole program.
//!
//! Text in ARCHITECTURE.md; in short: [`reader`] fans the [`log`] out to [`shard`]s; an [`actor`] drives each shard, runs
//! the handler through [`invoke`] (in production a [`sandbox`]), and hands its [`commit`] to the [`committer`].

pub use sluicebox_core::{
    clock, commit, control, effects, handler, invoke, message, pipeline, routing, shard, skew, topic, trace,
};
pub use sluicebox_log as log;
pub use sluicebox_sandbox as sandbox;

pub mod actor;
pub mod backlog;
pub mod bench;
mod blocking;
pub mod chance;
pub mod cli;
pub mod cluster;
pub mod committer;
pub mod config;
pub mod dead_box;
pub mod delays;
pub mod egress;
pub mod follow;
pub mod gate;
pub mod host;
pub mod http;
pub mod ingress;
pub mod memory;
pub mod moving;
pub mod reader;
pub mod registry;
pub mod reroute;
pub mod retention;
pub mod service;
pub mod telemetry;
pub mod vital;
pub mod watch;
