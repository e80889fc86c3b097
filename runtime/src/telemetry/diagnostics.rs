//! Diagnostics: text for people (or JSON for programs) on standard error.
//!
//! Writing never waits: lines go through a bounded buffer to a thread of their own, and a line that finds it full is
//! dropped and counted. What is left is written when [`Diagnostics`] is dropped, unless nobody takes it for a second.

use std::io::Write;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// The variable that chooses what is written, such as `info` or `warn,sluicebox::shard=debug`.
pub const FILTER_VARIABLE: &str = "SLUICEBOX_DIAGNOSTICS";
/// What is written unless it is set.
pub const FILTER_DEFAULT: &str = "info";
/// Lines that may wait for a slow terminal or pipe; some 2 MiB at most lengths.
const LINES_MAX: usize = 8192;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why diagnostics cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("`{filter}` does not say what to write: use a level such as `info`, or `warn,sluicebox=debug`")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("diagnostics were started before")]
    Twice,
}

/// Diagnostics of the process. Writes what is left when it is dropped: keep it to the end of `main`.
#[must_use = "dropping it stops the diagnostics"]
pub struct Diagnostics {
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

impl Diagnostics {
    /// Who counts the lines that found the buffer full.
    pub fn dropped(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines()
    }
}

/// What hears of spans and events, with a filter of its own.
pub type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts diagnostics for the whole process. `filter`: as in [`FILTER_VARIABLE`].
pub fn start(filter: &str, format: Format) -> Result<Diagnostics, StartError> {
    let parsed =
        EnvFilter::try_new(quiet(filter)).map_err(|source| StartError::Filter { filter: filter.into(), source })?;
    let (buffer, diagnostics) = buffer(std::io::stderr());
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(buffer).with_ansi(colour);
    let lines: BoxedLayer = match format {
        Format::Text => lines.with_target(false).with_filter(parsed).boxed(),
        Format::Json => lines.json().flatten_event(true).with_ansi(false).with_filter(parsed).boxed(),
    };
    subscriber(vec![lines]).try_init().map(|()| diagnostics).map_err(|_| StartError::Twice)
}

/// The client of NATS writes each event of its connection, of which there are many where the log uses them; the log tells of those
/// that matter. Who names it means it, and who wants fewer lines than that of all gets fewer of it too.
fn quiet(filter: &str) -> String {
    let of_all = filter.split(',').filter_map(|part| part.trim().parse::<LevelFilter>().ok()).next_back();
    let is_loud = of_all.is_some_and(|level| level > LevelFilter::WARN);
    if is_loud && !filter.contains("async_nats") { format!("async_nats=warn,{filter}") } else { filter.to_owned() }
}

/// One subscriber of all these layers.
fn subscriber(layers: Vec<BoxedLayer>) -> impl SubscriberInitExt {
    tracing_subscriber::registry().with(layers)
}

fn buffer(to: impl Write + Send + 'static) -> (NonBlocking, Diagnostics) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("diagnostics");
    let (buffer, guard) = builder.finish(to);
    let dropped = buffer.error_counter();
    (buffer, Diagnostics { dropped, _guard: guard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    /// Takes its first line only after the barrier, as a stopped terminal would.
    struct Stuck {
        barrier: Arc<Barrier>,
        waited: bool,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if !std::mem::replace(&mut self.waited, true) {
                self.barrier.wait();
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_terminal_loses_lines_and_holds_nobody() {
        let (barrier, written) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(vec![])));
        let stuck = Stuck { barrier: barrier.clone(), waited: false, written: written.clone() };
        let (mut buffer, diagnostics) = buffer(stuck);
        let dropped = diagnostics.dropped();
        let extra = 100;
        for _ in 0..LINES_MAX + 1 + extra {
            buffer.write_all(b".").unwrap();
        }
        // The thread may hold one line besides those in the buffer, or may not have begun.
        assert!((extra..=extra + 1).contains(&dropped()), "{}", dropped());
        barrier.wait();
        drop(diagnostics);
        assert_eq!(written.lock().unwrap().len(), LINES_MAX + 1 + extra - dropped());
    }

    #[test]
    fn the_client_of_nats_says_no_more_than_all_others_may() {
        for (filter, quiet_one) in [
            ("info", "async_nats=warn,info"),
            ("error,debug", "async_nats=warn,error,debug"),
            ("off", "off"),
            ("ERROR", "ERROR"),
            ("warn,sluicebox=debug", "warn,sluicebox=debug"),
            ("sluicebox=debug", "sluicebox=debug"),
            ("info,async_nats=debug", "info,async_nats=debug"),
        ] {
            assert_eq!(quiet(filter), quiet_one);
        }
    }

    #[test]
    fn a_bad_filter_says_what_to_write() {
        let error = start("sluicebox=loud", Format::Text).err().unwrap().to_string();
        assert!(error.contains("`sluicebox=loud`") && error.contains("such as `info`"), "{error}");
    }
}
