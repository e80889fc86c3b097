//! Diagnostics: what a guest writes for people, through `wasi:logging`, stdout and stderr. Bounded for each run.

use super::text::cut;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Offset;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of diagnostics kept of one run (16 KiB); the rest is cut off with a note.
pub const RUN_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a line; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 2 * 1024;
/// Most bytes of stderr remembered for the reason of a trap.
const REASON_BYTES_MAX: usize = 512;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// One line a guest wrote.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub handler: &'a HandlerName,
    /// The message being handled; `None` while the sandbox starts.
    pub offset: Option<Offset>,
    pub level: Level,
    /// `stdout`, `stderr`, or what the guest gave; often empty.
    pub context: &'a str,
    /// Without line ends and other control characters, so that a guest cannot forge lines or move a terminal's cursor.
    pub text: &'a str,
}

/// Where lines go. Called on the thread that runs the guest, so it must not wait.
pub type Sink = Arc<dyn Fn(Line<'_>) + Send + Sync>;

/// A sink that writes lines as `tracing` events with target `guest`.
pub fn tracing_sink() -> Sink {
    Arc::new(|line| {
        let Line { handler, offset, level, context, text } = line;
        let offset = offset.map(|offset| offset.0);
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(target: "guest", tracing::Level::$level, %handler, offset, context, "{text}")
            };
        }
        match level {
            Level::Trace => event!(TRACE),
            Level::Debug => event!(DEBUG),
            Level::Info => event!(INFO),
            Level::Warn => event!(WARN),
            Level::Error => event!(ERROR),
        }
    })
}

/// The two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// The diagnostics of one sandbox.
pub(super) struct Diagnostics {
    sink: Sink,
    handler: HandlerName,
    offset: Option<Offset>,
    left_bytes: usize,
    /// The note about the cut was written.
    is_cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// A line of stderr that announces a panic, and the one after it.
    panic: Option<(String, Option<String>)>,
    /// The last line of stderr that is not empty.
    last: String,
}

impl Diagnostics {
    pub(super) fn new(sink: Sink, handler: HandlerName) -> Self {
        Self {
            sink,
            handler,
            offset: None,
            left_bytes: RUN_BYTES_MAX,
            is_cut: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            panic: None,
            last: String::new(),
        }
    }

    /// Begins a run: its lines count anew.
    pub(super) fn begin(&mut self, offset: Offset) {
        self.offset = Some(offset);
        self.left_bytes = RUN_BYTES_MAX;
        self.is_cut = false;
        self.panic = None;
        self.last.clear();
    }

    /// Writes what was not ended by a line end. Called when a run ends, however it ends.
    pub(super) fn flush(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(self.buffer(stream));
            if !rest.is_empty() {
                self.stream_line(stream, &rest);
            }
        }
    }

    /// A line, or several, from `wasi:logging`.
    pub(super) fn log(&mut self, level: Level, context: &str, message: &str) {
        // Not a walk through megabytes of empty lines, which take no room.
        let shown = &message[..message.floor_char_boundary(self.left_bytes)];
        for text in shown.lines() {
            self.line(level, context, text.as_bytes());
        }
        if shown.len() < message.len() {
            self.cut_off();
        }
    }

    /// A piece of a stream, which need not end with a line.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let buffer = self.buffer(stream);
            let room = LINE_BYTES_MAX.saturating_sub(buffer.len());
            // A line that never ends is cut here; what does not fit is dropped, as the budget would drop it anyway.
            buffer.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let mut line = std::mem::take(buffer);
                while line.last().is_some_and(|&byte| byte == b'\n' || byte == b'\r') {
                    line.pop();
                }
                self.stream_line(stream, &line);
                line.clear();
                *self.buffer(stream) = line;
            }
        }
    }

    /// What stderr said about why the guest gave up: the message of a panic, or its last line.
    pub(super) fn last_words(&mut self) -> Option<String> {
        match self.panic.take() {
            Some((announced, Some(message))) => Some(format!("{announced} {message}")),
            Some((announced, None)) => Some(announced),
            None if self.last.is_empty() => None,
            None => Some(std::mem::take(&mut self.last)),
        }
    }

    fn buffer(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn stream_line(&mut self, stream: Stream, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        match stream {
            Stream::Stdout => self.line(Level::Info, "stdout", line),
            Stream::Stderr => {
                self.remember(line);
                self.line(Level::Warn, "stderr", line);
            }
        }
    }

    fn remember(&mut self, line: &[u8]) {
        let mut text = clean(line);
        cut(&mut text, REASON_BYTES_MAX);
        match &mut self.panic {
            // Rust: "thread '<unnamed>' panicked at src/lib.rs:10:5:", then the message on a line of its own.
            None if text.contains("panicked at ") => {
                let at = text.find("panicked at ").unwrap_or_default();
                self.panic = Some((without_directories(&text[at..]), None));
            }
            Some((_, message @ None)) => *message = Some(text),
            // Rust's hint to set RUST_BACKTRACE, which explains nothing here.
            _ if text.starts_with("note: ") => {}
            _ => self.last = text,
        }
    }

    fn line(&mut self, level: Level, context: &str, text: &[u8]) {
        for piece in text.chunks(LINE_BYTES_MAX) {
            if self.is_cut {
                return;
            }
            if piece.len() + context.len() > self.left_bytes {
                return self.cut_off();
            }
            self.left_bytes -= piece.len() + context.len();
            self.send(level, &clean(context.as_bytes()), &clean(piece));
        }
    }

    /// Ends the diagnostics of this run, once.
    fn cut_off(&mut self) {
        if !std::mem::replace(&mut self.is_cut, true) {
            let note = format!("the rest of this run's diagnostics is cut off after {RUN_BYTES_MAX} bytes");
            self.send(Level::Warn, "", &note);
        }
    }

    fn send(&self, level: Level, context: &str, text: &str) {
        (self.sink)(Line { handler: &self.handler, offset: self.offset, level, context, text });
    }
}

/// A panic in a sink must not take the guest's diagnostics with it: the lines before it are still good.
pub(super) fn locked(diagnostics: &Mutex<Diagnostics>) -> MutexGuard<'_, Diagnostics> {
    diagnostics.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Text without control characters and bad UTF-8.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c == '\t' { ' ' } else { c }).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// "panicked at /home/ada/order/src/lib.rs:3:1:" without the directories of whoever built the guest.
fn without_directories(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.strip_prefix('/') {
        Some(path) => {
            let names: Vec<&str> = path.rsplit('/').take(2).collect();
            names.into_iter().rev().collect::<Vec<_>>().join("/")
        }
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collecting() -> (Diagnostics, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        let sink: Sink = Arc::new(move |line| into.lock().unwrap().push(format!("{:?} {}", line.level, line.text)));
        (Diagnostics::new(sink, HandlerName::parse("h").unwrap()), lines)
    }

    #[test]
    fn streams_become_lines_whatever_the_pieces() {
        let (mut diagnostics, lines) = collecting();
        diagnostics.write(Stream::Stdout, b"on");
        diagnostics.write(Stream::Stdout, b"e\r\ntwo\n\nth");
        diagnostics.write(Stream::Stderr, b"bad\n");
        diagnostics.flush();
        assert_eq!(*lines.lock().unwrap(), ["Info one", "Info two", "Warn bad", "Info th"]);
    }

    #[test]
    fn a_flood_is_cut_off_with_a_note_and_the_next_run_speaks_again() {
        let (mut diagnostics, lines) = collecting();
        for _ in 0..1000 {
            diagnostics.log(Level::Info, "", &"x".repeat(100));
        }
        let count = lines.lock().unwrap().len();
        assert_eq!(count, RUN_BYTES_MAX / 100 + 2, "whole lines, a part of one, and the note");
        assert!(lines.lock().unwrap()[count - 1].contains("cut off after 16384 bytes"));
        diagnostics.begin(Offset(1));
        diagnostics.log(Level::Info, "", &"é\n".repeat(RUN_BYTES_MAX));
        assert!(lines.lock().unwrap().last().unwrap().contains("cut off"));
        for _ in 0..1000 {
            diagnostics.write(Stream::Stdout, &[b'y'; 10_000]);
        }
        assert!(diagnostics.stdout.len() <= LINE_BYTES_MAX);
        diagnostics.begin(Offset(1));
        diagnostics.log(Level::Info, "", "again");
        assert_eq!(lines.lock().unwrap().last().unwrap(), "Info again");
    }

    #[test]
    fn a_guest_cannot_forge_lines_or_move_the_cursor() {
        let (mut diagnostics, lines) = collecting();
        diagnostics.log(Level::Info, "", "a\x1b[2Jb\x07\r\nforged\tline");
        diagnostics.write(Stream::Stderr, b"\xff\n");
        assert_eq!(*lines.lock().unwrap(), ["Info a\u{fffd}[2Jb\u{fffd}", "Info forged line", "Warn \u{fffd}"]);
    }

    #[test]
    fn the_last_words_are_those_of_the_panic() {
        let (mut diagnostics, _) = collecting();
        diagnostics.write(
            Stream::Stderr,
            b"starting\n\nthread '<unnamed>' (1) panicked at /home/ada/order/src/lib.rs:3:1:\nno total\nnote: run with\n",
        );
        assert_eq!(diagnostics.last_words().unwrap(), "panicked at src/lib.rs:3:1: no total");
        diagnostics.begin(Offset(2));
        assert_eq!(diagnostics.last_words(), None);
        diagnostics.write(Stream::Stderr, b"memory allocation of 7 bytes failed\nnote: run with\n\n");
        assert_eq!(diagnostics.last_words().unwrap(), "memory allocation of 7 bytes failed");
    }
}
