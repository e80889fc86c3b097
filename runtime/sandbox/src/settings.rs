//! What an operator decides about the sandboxes of one handler, and about all of them together.

use sluicebox_core::handler::HandlerName;
use sluicebox_core::topic::Pattern;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How a handler's guests run.
#[derive(Clone, PartialEq)]
pub struct Settings {
    pub handler: HandlerName,
    /// Topics it may publish to; anything else is refused, and with none the import is not there.
    pub publish: Vec<Pattern>,
    /// A run is stopped this long after it began, which is when there was room for its sandbox.
    pub timeout: Duration,
    /// Most bytes of all linear memories of one sandbox.
    pub memory_bytes: u64,
    pub mode: Mode,
    /// Names and values the guest reads through `wasi:config`.
    pub config: Vec<(String, String)>,
}

impl fmt::Debug for Settings {
    /// Without the values of `config`: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handler, publish, timeout, memory_bytes, mode, config } = self;
        let names: Vec<&str> = config.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings")
            .field("handler", handler)
            .field("publish", publish)
            .field("timeout", timeout)
            .field("memory_bytes", memory_bytes)
            .field("mode", mode)
            .field("config", &names)
            .finish()
    }
}

impl Settings {
    /// The defaults of a careful operator: nothing granted, 2 s, 64 MiB, a fresh sandbox for each message.
    pub fn new(handler: HandlerName) -> Self {
        Self {
            handler,
            publish: Vec::new(),
            timeout: Duration::from_secs(2),
            memory_bytes: 64 * 1024 * 1024,
            mode: Mode::Fresh,
            config: Vec::new(),
        }
    }
}

/// How long a sandbox lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One message: nothing of an earlier message can be seen or broken.
    #[default]
    Fresh,
    /// Until it traps, times out, has handled [`WARM_RUNS`] messages or so, or its memory has grown beyond half its
    /// limit. Faster, but what a guest keeps in memory outlives the message, and is not rolled back with its effects.
    Warm,
}

/// About so many messages (± 20 %, so that sandboxes made together do not end together) are handled by a warm sandbox.
pub const WARM_RUNS: u32 = 10_000;

/// The room for the sandboxes of all handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Most sandboxes that run at once; a call beyond it waits. One with several memories counts once for each.
    pub running: u32,
    /// Most warm sandboxes kept while they have nothing to do.
    pub idle: u32,
    /// Where compiled modules are kept, if they are. The host's own directory: whoever can write to it controls the host.
    pub cache: Option<PathBuf>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { running: 1000, idle: 256, cache: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_config_are_in_no_debug_output() {
        let mut settings = Settings::new(HandlerName::parse("order").unwrap());
        settings.config = vec![("token".into(), "s3cret".into())];
        let shown = format!("{settings:?}");
        assert!(shown.contains("token") && !shown.contains("s3cret"), "{shown}");
    }
}
