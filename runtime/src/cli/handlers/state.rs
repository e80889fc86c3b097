//! How a handler fares, in few words.

use super::super::output::{grouped, printable};
use crate::handler::Digest;
use crate::http::running::BreakerView;
use crate::http::views::HandlerView;

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
    if control.pin.is_some() {
        states.push("rolled back".into());
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

/// One line for each handler whose last change was refused.
pub(in crate::cli) fn problems(handlers: &[HandlerView]) -> impl Iterator<Item = String> {
    handlers.iter().filter_map(|handler| {
        let problem = handler.running.as_ref()?.problem.as_ref()?;
        Some(format!("problem of {}: {}", handler.name, printable(problem)))
    })
}

/// The beginning of a digest.
pub(super) fn short(digest: Digest) -> String {
    digest.to_string().chars().take(SHORT_DIGITS).collect()
}
