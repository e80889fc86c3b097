//! The log on NATS held to what real servers answer: who may connect, what is checked at start, every refusal, what others
//! publish, and what is lost on the way.

mod answers;
mod checks;
mod clocks;
mod cluster;
mod foreign;
mod login;
mod permissions;
mod unanswered;

use crate::harness::nats::open_nats;
use sluicebox::log::LogError;
use sluicebox::log::nats::Options;

/// The reason for which it is not opened, and which waiting does not mend.
#[track_caller]
fn refused(options: Options) -> String {
    match open_nats(options).map(drop) {
        Err(LogError::Refused { reason }) => reason,
        other => panic!("it is not refused: {other:?}"),
    }
}

/// It says each of these.
#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "it does not say {part:?}: {text}");
    }
}

/// The reason for which it is not opened, whatever its kind.
#[track_caller]
fn unopened(options: Options) -> String {
    open_nats(options).map(drop).expect_err("it is opened").to_string()
}
