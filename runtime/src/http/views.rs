//! What the API shows, as JSON: written by the host, read by the command line.
//!
//! Times are RFC 3339 in UTC. A body that is UTF-8 is `body`, any other `body_base64`.

mod dead;
mod handler;
mod message;
mod state;
mod status;
mod waiting;

pub use super::known_hosts::{HostHandlerView, HostPage, HostView, SILENT};
pub use dead::{DeadCountView, DeadLetterView, DeadOrderView, DeadPage, HandlerLetters, SentCommand, SkippedLetters};
pub use handler::{BacklogView, ControlView, HandlerPage, HandlerView, JobView, PinView, ShardHostView, ShardView};
pub use message::MessageView;
pub use state::{EntryView, NotShown, StateKeyView, StatePage, StateView, shown};
pub use status::{LogView, StatusView};
pub use waiting::{BehindView, Cursor, DelayedView, Reason, WaitingMessage, WaitingPage, WaitingQuery};
