//! How a handler fares, in few words.

use super::super::output::{grouped, printable, told_behind};
use crate::clock::Timestamp;
use crate::handler::Digest;
use crate::http::rfc3339;
use crate::http::running::{BreakerView, FailureView};
use crate::http::views::{BacklogView, HandlerView};
use std::time::Duration;

/// Digits of a digest that tell versions apart.
const SHORT_DIGITS: usize = 12;

/// Who told what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Source {
    Host,
    /// No host runs.
    Data,
}

/// What keeps the handler from running freely; `running` when nothing does.
pub(in crate::cli) fn state_of(handler: &HandlerView, source: Source) -> String {
    let mut states = vec![];
    let control = &handler.control;
    if control.paused {
        states.push("paused".to_owned());
    }
    match control.paused_keys.len() {
        0 => {}
        1 => states.push("1 key paused".into()),
        count => states.push(format!("{} keys paused", grouped(count as u64))),
    }
    if control.tripped {
        states.push("tripped".into());
    }
    match &control.pin {
        Some(pin) if pin.over.is_some() => states.push("rolled back".into()),
        Some(_) => states.push("deployed".into()),
        None => {}
    }
    if !control.jobs.is_empty() {
        states.push("dead letters under way".into());
    }
    match &handler.running {
        None if source == Source::Host => states.push("not in the settings".into()),
        None => {}
        Some(own) => {
            match own.breaker {
                BreakerView::Open { until } => states.push(format!("breaker open until {until}")),
                BreakerView::HalfOpen => states.push("breaker half-open".into()),
                BreakerView::Tripped if !control.tripped => states.push("tripped".into()),
                BreakerView::Tripped | BreakerView::Closed | BreakerView::Off => {}
            }
            if own.problem.is_some() {
                states.push("problem".into());
            }
        }
    }
    match (states.is_empty(), source) {
        (false, _) => states.join(", "),
        (true, Source::Host) => "running".into(),
        (true, Source::Data) => "-".into(),
    }
}

/// How many messages wait, in words.
pub(in crate::cli) fn backlog(waiting: &BacklogView, now: Timestamp) -> String {
    let BacklogView { messages, at_least, .. } = waiting;
    let count = match (messages, at_least) {
        (0, false) => return "no message waits".into(),
        (0, true) => return "messages may wait: the log has more than a look reads".into(),
        (1, false) => "1 message waits".to_owned(),
        (1, true) => "at least 1 message waits".to_owned(),
        (messages, false) => format!("{} messages wait", grouped(*messages)),
        (messages, true) => format!("at least {} messages wait", grouped(*messages)),
    };
    let since = oldest(waiting, now).map_or(String::new(), |age| format!(", the oldest for {age}"));
    format!("{count}{since}")
}

/// How many messages wait, in a column.
pub(in crate::cli) fn waiting_cell(waiting: Option<&BacklogView>) -> String {
    waiting.map_or("-".into(), |waiting| match (waiting.at_least, waiting.messages) {
        (true, 0) => "?".into(),
        (true, messages) => format!(">={}", grouped(messages)),
        (false, messages) => grouped(messages),
    })
}

/// For how long the oldest one waits, in a column.
pub(in crate::cli) fn oldest_cell(waiting: Option<&BacklogView>, now: Timestamp) -> String {
    waiting.and_then(|waiting| oldest(waiting, now)).unwrap_or_else(|| "-".into())
}

fn oldest(waiting: &BacklogView, now: Timestamp) -> Option<String> {
    let since = rfc3339::parse(waiting.oldest.as_deref()?)?;
    Some(age(now.since(since)))
}

/// A time span in its two largest units.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A run that failed, on one line.
pub(in crate::cli) fn failure_text(failure: &FailureView) -> String {
    let FailureView { time, kind, error, topic, offset, key, attempts } = failure;
    let time = time.as_ref().map_or(String::new(), |time| format!("{time} "));
    let kind = kind.as_ref().map_or(String::new(), |kind| format!("{kind}: "));
    let topic = topic.as_ref().map_or(String::new(), |topic| format!(" on {topic}"));
    let key = key.as_ref().map_or(String::new(), |key| format!(", key {}", printable(key)));
    format!("{time}{}{} (offset {offset}{topic}{key}, attempt {attempts})", printable(&kind), printable(error))
}

/// One line for each handler of which a run failed.
pub(in crate::cli) fn failures(handlers: &[HandlerView]) -> impl Iterator<Item = String> {
    handlers.iter().filter_map(|handler| {
        let failure = handler.last_failure.as_ref()?;
        Some(format!("last error of {}: {}", handler.name, failure_text(failure)))
    })
}

/// Why the last change of handlers was refused. Settings that are broken are the problem of all, which is said once.
pub(in crate::cli) fn problems(handlers: &[HandlerView]) -> impl Iterator<Item = String> {
    let mut of: Vec<(&str, Vec<&str>)> = vec![];
    for handler in handlers {
        let Some(problem) = handler.running.as_ref().and_then(|running| running.problem.as_deref()) else { continue };
        match of.iter_mut().find(|(found, _)| *found == problem) {
            Some((_, names)) => names.push(&handler.name),
            None => of.push((problem, vec![&handler.name])),
        }
    }
    of.into_iter().map(|(problem, names)| told_behind(&format!("problem of {}:", names.join(", ")), problem))
}

/// The beginning of a digest.
pub(super) fn short(digest: Digest) -> String {
    digest.to_string().chars().take(SHORT_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_reached_its_bound_says_so_and_none_within_it_is_not_none() {
        let shown = |messages, at_least| waiting_cell(Some(&BacklogView { messages, at_least, oldest: None }));
        assert_eq!([shown(0, false), shown(1200, false)], ["0", "1,200"]);
        assert_eq!([shown(1200, true), shown(0, true)], [">=1,200", "?"]);
        assert_eq!(waiting_cell(None), "-");
    }
}
