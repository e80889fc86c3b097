//! `wasi:logging/logging`: lines for people.

use super::bindings::wasi::logging::logging::{self, Level as Wasi};
use super::diagnostics::Level;
use super::host::Host;

impl logging::Host for Host {
    fn log(&mut self, level: Wasi, context: String, message: String) {
        let level = match level {
            Wasi::Trace => Level::Trace,
            Wasi::Debug => Level::Debug,
            Wasi::Info => Level::Info,
            Wasi::Warn => Level::Warn,
            Wasi::Error | Wasi::Critical => Level::Error,
        };
        self.diagnostics().log(level, &context, &message);
    }
}
