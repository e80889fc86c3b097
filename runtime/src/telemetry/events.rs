//! Events that people and metrics both want: one function each writes the line and moves the counter.

use super::{CommitMetrics, FailedRun, HandlerMetrics, HttpMetrics, Metrics, Told};
use crate::clock;
use crate::commit::{CommitError, Committed, DeadLetter, Over};
use crate::control::Command;
use crate::handler::{Digest, HandlerName, ShardId};
use crate::message::Offset;
use crate::pipeline::breaker::Event;
use crate::shard::Traced;
use std::time::Instant;

/// A message was given up; the commit that says so is durable.
pub fn dead_letter(metrics: &HandlerMetrics, letter: &DeadLetter) {
    metrics.count_dead(&letter.kind);
    tracing::warn!(
        handler = %letter.shard.handler,
        topic = %letter.message.topic,
        offset = letter.message.offset.0,
        key = letter.key.as_ref().map(tracing::field::display),
        attempts = letter.attempts,
        kind = %letter.kind,
        error = %letter.error,
        "gave a message up: it is a dead letter"
    );
}

/// A run failed. Of many of a kind people hear of the first and then how many.
pub fn run_failed(metrics: &HandlerMetrics, run: FailedRun, now: Instant) {
    if run.kind == "reject" {
        // Nothing waits: its dead letter is a line of its own.
        return metrics.failures.note(run);
    }
    if let Some(told) = metrics.failures.failed(run, now) {
        run_failed_told(metrics, told);
    }
}

pub(super) fn run_failed_told(metrics: &HandlerMetrics, told: Told) {
    let handler = metrics.name();
    let (failures, run) = match told {
        Told::First(run) => (1, run),
        Told::Again { failures, newest } => (failures, newest),
    };
    let FailedRun { kind, error, topic, offset, key, attempts, .. } = run;
    let key = key.as_ref().map(tracing::field::display);
    match failures {
        1 => tracing::warn!(
            %handler, kind, %topic, offset = offset.0, key, attempts, %error,
            "a run failed: `sluicebox handlers waiting {handler}` lists what waits for its retry"
        ),
        _ => tracing::warn!(
            %handler, kind, failures, %topic, offset = offset.0, key, attempts, %error,
            "runs failed again since this was last said; this is the newest one"
        ),
    }
}

/// An outcome that belongs to a trace is durable.
pub fn traced(shard: &ShardId, traced: &Traced) {
    tracing::debug!(
        %shard,
        work = %traced.work,
        trace = %traced.trace,
        outcome = traced.outcome.as_str(),
        age_ms = clock::steady().since(traced.time).as_millis(),
        "settled"
    );
}

/// The log answered a shard's commit.
pub fn commit_answered(metrics: &CommitMetrics, answer: &Result<Committed, CommitError>) {
    let (result, error) = match answer {
        Ok(_) => ("ok", None),
        Err(error @ CommitError::Fenced { .. }) => ("fenced", Some(error)),
        Err(error @ CommitError::Refused { .. }) => ("refused", Some(error)),
        Err(error @ CommitError::Unavailable { .. }) => ("unavailable", Some(error)),
        Err(error @ CommitError::Unknown { .. }) => ("unknown", Some(error)),
    };
    metrics.shard_commits.with_label_values(&[result]).inc();
    if let Some(error) = error {
        tracing::warn!(result, "{error}");
    }
}

/// This module now runs for new messages.
pub fn module_in_force(metrics: &HandlerMetrics, digest: Digest) {
    metrics.show_module(digest);
    tracing::info!(handler = %metrics.name(), %digest, "module in force");
}

/// A deployed version is in force, whatever the file holds now.
pub fn file_stands_back(handler: &HandlerName, deployed: Digest, file: Option<Digest>) {
    let file = file.map_or("cannot be read".to_owned(), |file| format!("holds version {file}"));
    tracing::info!(
        %handler,
        "version {deployed} is in force because it was deployed; the module file {file}, which does not run before \
         `sluicebox handlers unpin {handler}`"
    );
}

/// The settings no longer name this handler: it runs nothing more and goes on where it was when it comes back.
pub fn handler_left(metrics: &HandlerMetrics) {
    metrics.hide_module();
    tracing::info!(handler = %metrics.name(), "the handler left");
}

/// A changed module or another version cannot be put in force; what ran goes on.
pub fn module_refused(metrics: &Metrics, handler: &HandlerName, reason: &str) {
    metrics.reloads("refused").inc();
    tracing::warn!(%handler, "{reason}; the version in force goes on");
}

/// A changed settings file cannot be put in force; what ran goes on.
pub fn settings_refused(metrics: &Metrics, reason: &str) {
    metrics.reloads("refused").inc();
    tracing::warn!("the changed settings are refused, those in force go on: {reason}");
}

/// Part of the changed settings only counts from the next start on; the rest is in force.
pub fn settings_need_a_restart(metrics: &Metrics, reason: &str) {
    metrics.reloads("refused").inc();
    tracing::warn!("not all of the changed settings is in force: {reason}");
}

/// A change was put in force while running.
pub fn reloaded(metrics: &Metrics, handlers: usize) {
    metrics.reloads("ok").inc();
    tracing::info!(handlers, "a change is in force");
}

/// A handler counts under a name that it may not have. What it counted there is lost, and nothing else.
pub(super) fn guest_count_refused(handler: &HandlerName, name: &str, reason: &str) {
    let name: String = name.chars().take(80).collect();
    tracing::warn!(%handler, name, reason, "what the handler counts under this name is not counted");
}

/// Ids were forgotten before their window ended: resends of them will run.
pub fn marks_evicted(metrics: &HandlerMetrics, marks: u64) {
    metrics.marks_evicted.inc_by(marks);
    tracing::warn!(handler = %metrics.name(), marks, "forgot the oldest ids early: raise dedup.max or shorten dedup.window");
}

/// What happened to a handler's breaker.
pub fn breaker(metrics: &HandlerMetrics, event: Event) {
    let handler = metrics.name();
    match event {
        // Every failed run: the runs' own metrics and dead letters tell people more.
        Event::Fail => metrics.count_breaker("fail"),
        Event::Tripped { wait } => {
            metrics.count_breaker("tripped");
            let error = metrics.last_failure().map(|run| tracing::field::display(run.error));
            tracing::warn!(%handler, ?wait, error, "breaker tripped: nothing runs until then, messages wait in the log");
        }
        Event::Ready => {
            metrics.count_breaker("ready");
            tracing::info!(%handler, "breaker is half-open: one run is tried");
        }
        Event::Reset => {
            metrics.count_breaker("reset");
            tracing::info!(%handler, "breaker closed");
        }
    }
}

/// An operator opened the breaker.
pub fn breaker_tripped_by_hand(metrics: &HandlerMetrics) {
    metrics.count_breaker("tripped");
    tracing::warn!(handler = %metrics.name(), "breaker tripped by hand: nothing runs until it is reset");
}

/// The box of dead letters is full and the handler stops (`dead.full = "stop"`).
pub fn dead_box_full(metrics: &HandlerMetrics, letters_max: u64) {
    tracing::error!(
        handler = %metrics.name(),
        letters_max,
        "the handler stopped: its box of dead letters is full; retry or drop some with `sluicebox dead`"
    );
}

/// The host could not run a message: nothing of the handler runs for a while. `times`: since this was last said.
pub fn host_fault(metrics: &HandlerMetrics, reason: &str, times: u64) {
    tracing::error!(
        handler = %metrics.name(),
        reason,
        times,
        "the host cannot run the handler: its messages wait and lose no attempt, and it is tried again"
    );
}

/// The host can run messages of the handler again.
pub fn host_fault_over(metrics: &HandlerMetrics) {
    tracing::info!(handler = %metrics.name(), "the host runs the handler again");
}

/// A run waits because a message that it published with a delay found no room. `times`: since this was last said.
pub fn delayed_full(metrics: &HandlerMetrics, times: Option<u64>) {
    metrics.delayed_refused.inc();
    if let Some(times) = times {
        tracing::warn!(
            handler = %metrics.name(),
            times,
            "as many messages are delayed as may be: runs that delay more wait and lose no attempt; raise `delayed` in the \
             handler's settings, or delay fewer"
        );
    }
}

/// The oldest dead letters left a full box.
pub fn dead_letters_dropped(metrics: &HandlerMetrics, letters: u64) {
    metrics.dead_dropped.inc_by(letters);
    tracing::warn!(handler = %metrics.name(), letters, "dropped the oldest dead letters: the box is full (`dead.max`)");
}

/// A shard took an operator's command in force, or could not.
pub fn command(metrics: &HandlerMetrics, shard: &ShardId, offset: Offset, refused: Option<&str>) {
    match refused {
        None => {
            metrics.count_command("applied");
            tracing::debug!(%shard, offset = offset.0, "applied an operator's command");
        }
        Some(reason) => {
            metrics.count_command("refused");
            tracing::warn!(%shard, offset = offset.0, reason, "an operator's command was refused");
        }
    }
}

/// An operator's command is in the log.
pub fn command_taken(metrics: &HttpMetrics, handler: &HandlerName, command: &Command, offset: Offset) {
    let name = match command {
        Command::Pause => "pause",
        Command::Resume => "resume",
        Command::PauseKey { .. } => "pause-key",
        Command::ResumeKey { .. } => "resume-key",
        Command::Trip => "trip",
        Command::Reset => "reset",
        Command::RetryDead { .. } => "retry-dead",
        Command::DropDead { .. } => "drop-dead",
        Command::RetryNow { .. } => "retry-now",
        Command::CancelDelayed { .. } => "cancel-delayed",
        Command::Rollback { pin } if pin.over == Over::AnyFile => "deploy",
        Command::Rollback { .. } => "rollback",
        Command::Unpin => "unpin",
    };
    metrics.commands.with_label_values(&[name]).inc();
    // As it stands in the log.
    let asked = serde_json::to_string(command).unwrap_or_else(|_| name.to_owned());
    tracing::info!(%handler, offset = offset.0, command = asked, "took an operator's command");
}

/// Everything of a handler was deleted.
pub fn handler_forgotten(metrics: &HttpMetrics, handler: &HandlerName) {
    metrics.commands.with_label_values(&["forget"]).inc();
    tracing::info!(%handler, "forgot a handler");
}

/// A handler comes back after messages that it had not read were deleted.
pub fn missed(metrics: &HandlerMetrics, messages: u64) {
    metrics.missed.inc_by(messages);
    tracing::warn!(
        handler = %metrics.name(),
        messages,
        "the handler was away while messages were deleted for their age or for room (`retain`): so many, of any topic, came \
         after what it had read, and it goes on behind them"
    );
}

/// What keeps messages in the log that should go has changed.
pub fn retention_held(held: Option<&str>) {
    match held {
        Some(held) => tracing::warn!("old messages stay in the log: {held}"),
        None => tracing::info!("nothing keeps old messages in the log any more"),
    }
}

/// Whether the log takes anything new has changed.
pub fn log_full(full: Option<&str>) {
    match full {
        Some(full) => tracing::error!("the log is full: {full}"),
        None => tracing::info!("the log takes new messages again"),
    }
}

/// The handler's dead letters take as many bytes as they may, and it stops (`dead.full = "stop"`).
pub fn dead_box_out_of_bytes(metrics: &HandlerMetrics, bytes_max: u64) {
    tracing::error!(
        handler = %metrics.name(),
        bytes_max,
        "the handler stopped: its dead letters take their whole share of `max_bytes`; retry or drop some with `sluicebox dead`"
    );
}

/// The oldest dead letters left a box that took too many bytes.
pub fn dead_letters_dropped_for_bytes(metrics: &HandlerMetrics, letters: u64) {
    metrics.dead_dropped.inc_by(letters);
    tracing::warn!(
        handler = %metrics.name(),
        letters,
        "dropped the oldest dead letters: they took more than their share of `max_bytes`"
    );
}

/// Where the machine's clock is, seen from the host's time, has changed; `None`: they agree again.
pub fn clock(described: Option<&str>) {
    match described {
        Some(described) => tracing::warn!("{described}"),
        None => tracing::info!("the machine's clock and the host's time agree again"),
    }
}
