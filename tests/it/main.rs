//! Every integration test of Sluicebox in one binary. Tests are named as claims.

mod checker;
mod conformance;
mod crash;
mod harness;
mod pipeline;
mod sandbox;
mod simulation;
mod tidy;
mod walk;
