//! Every integration test of Sluicebox in one binary. Tests are named as claims.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alarm;
mod checker;
mod clients;
mod conformance;
mod crash;
mod harness;
mod hotload;
mod operate;
mod pipeline;
mod sandbox;
mod simulation;
mod slow;
mod tidy;
mod walk;
