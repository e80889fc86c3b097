//! Diagnostics: text for people (or JSON for programs) on standard error.
//!
//! Writing never waits: lines go through a bounded buffer to a thread of their own, and a line that finds it full is
//! dropped and counted. [`Guard`] writes what is left when it is dropped.

use prometheus::IntCounter;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
    #[error("failed to start the thread that writes diagnostics")]
    Thread(#[source] std::io::Error),
    #[error("diagnostics were started before")]
    Twice,
}

/// Writes what is left when it is dropped: keep it to the end of `main`.
#[must_use = "dropping it stops the diagnostics"]
pub struct Guard {
    sender: Option<SyncSender<Line>>,
    thread: Option<JoinHandle<()>>,
}

enum Line {
    Text(Vec<u8>),
    /// Everything before is to be written; nothing comes after.
    End,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Waits for room: this is the end, not the hot path.
        let ended = self.sender.take().is_some_and(|sender| sender.send(Line::End).is_ok());
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            // A panic of the writing thread was already shown by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Starts diagnostics for the whole process. `filter`: as in [`FILTER_VARIABLE`]; `dropped`: counts lost lines.
pub fn start(filter: &str, format: Format, dropped: IntCounter) -> Result<Guard, StartError> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| StartError::Filter { filter: filter.into(), source })?;
    let (buffer, guard) = buffer(std::io::stderr(), dropped).map_err(StartError::Thread)?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(buffer).with_ansi(colour);
    let set = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    set.map(|()| guard).map_err(|_| StartError::Twice)
}

fn buffer(mut to: impl Write + Send + 'static, dropped: IntCounter) -> std::io::Result<(Buffer, Guard)> {
    let (sender, lines) = sync_channel(LINES_MAX);
    let thread = std::thread::Builder::new().name("diagnostics".into()).spawn(move || write_all(&mut to, &lines))?;
    let guard = Guard { sender: Some(sender.clone()), thread: Some(thread) };
    Ok((Buffer { sender, dropped }, guard))
}

fn write_all(to: &mut impl Write, lines: &Receiver<Line>) {
    while let Ok(Line::Text(text)) = lines.recv() {
        // Nobody can be told that diagnostics cannot be written.
        let _ = to.write_all(&text);
    }
    let _ = to.flush();
}

/// Hands lines to the writing thread.
#[derive(Clone)]
struct Buffer {
    sender: SyncSender<Line>,
    dropped: IntCounter,
}

impl Write for Buffer {
    /// Called once per event, with the whole line.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match self.sender.try_send(Line::Text(line.into())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.inc(),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Buffer {
    type Writer = Buffer;

    fn make_writer(&'w self) -> Buffer {
        self.clone()
    }
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
        let dropped = IntCounter::new("dropped", "test").unwrap();
        let stuck = Stuck { barrier: barrier.clone(), waited: false, written: written.clone() };
        let (mut buffer, guard) = buffer(stuck, dropped.clone()).unwrap();
        let extra = 100;
        for _ in 0..LINES_MAX + 1 + extra {
            buffer.write_all(b".").unwrap();
        }
        // The thread may hold one line besides those in the buffer, or may not have begun.
        assert!((extra..=extra + 1).contains(&(dropped.get() as usize)), "{}", dropped.get());
        barrier.wait();
        drop(guard);
        let lost = dropped.get() as usize;
        assert_eq!(written.lock().unwrap().len(), LINES_MAX + 1 + extra - lost);
    }

    #[test]
    fn a_bad_filter_says_what_to_write() {
        let dropped = IntCounter::new("dropped", "test").unwrap();
        let error = start("sluicebox=loud", Format::Text, dropped).err().unwrap().to_string();
        assert!(error.contains("`sluicebox=loud`") && error.contains("such as `info`"), "{error}");
    }
}
