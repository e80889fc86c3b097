//! Every integration test of Sluicebox in one binary. Tests are named as claims.

mod checker;
mod conformance;
mod harness;
mod pipeline;
mod sandbox;
mod simulation;
mod tidy;
