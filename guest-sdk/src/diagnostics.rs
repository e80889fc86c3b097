//! Lines for people: `info!("took {} items", n)`. They are kept even when the run fails, up to 16 KiB a run.

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes one line; the macros call it.
pub fn write(level: Level, text: &str) {
    crate::host::diagnostic(level, text);
}

/// Writes a line that helps whoever looks for a fault.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::diagnostics::write($crate::Level::Debug, &::std::format!($($arg)+)) };
}

/// Writes a line that helps whoever watches the handler.
#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::diagnostics::write($crate::Level::Info, &::std::format!($($arg)+)) };
}

/// Writes a line about something that may go wrong.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::diagnostics::write($crate::Level::Warn, &::std::format!($($arg)+)) };
}

/// Writes a line about something that went wrong.
#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::diagnostics::write($crate::Level::Error, &::std::format!($($arg)+)) };
}
