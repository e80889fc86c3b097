//! Write Sluicebox handlers in Rust.
//!
//! A handler is one function. It gets a message and a [`Context`], and what it asks the context for (messages to
//! publish, state to write, counters) becomes durable together, when it returns `Ok`, or not at all.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use sluicebox_sdk::{Context, Failure, Json};
//!
//! #[derive(Deserialize)]
//! struct NewOrder { user: String, amount_cents: u64 }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Totals { orders: u64, amount_cents: u64 }
//!
//! #[sluicebox_sdk::handler]
//! fn order(event: Json<NewOrder>, cx: &mut Context) -> Result<(), Failure> {
//!     let mut totals: Totals = cx.state("totals")?.unwrap_or_default();
//!     totals.orders += 1;
//!     totals.amount_cents += event.amount_cents;
//!     cx.set_state("totals", &totals)?;
//!     cx.publish("orders.accepted").key(&event.user).json(&totals)?;
//!     Ok(())
//! }
//!
//! // The same function runs natively under test, without a host.
//! use sluicebox_sdk::testing::{TestMessage, run};
//! let run = run(order, TestMessage::json("events.new_order", &serde_json::json!({"user": "ada", "amount_cents": 5})).key("ada"));
//! assert_eq!(run.result, Ok(()));
//! assert_eq!(run.published[0].topic, "orders.accepted");
//! ```
//!
//! Build for the target `wasm32-wasip2` with `crate-type = ["cdylib"]`.

mod context;
#[doc(hidden)]
pub mod diagnostics;
mod errors;
mod failure;
mod host;
pub mod limits;
mod message;
mod publish;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use context::Context;
pub use diagnostics::Level;
pub use errors::{CountError, PublishError, StateError};
pub use failure::Failure;
pub use message::{Bytes, FromMessage, Json, Message, Text};
pub use publish::Publish;
pub use sluicebox_sdk_macros::handler;

/// What the code behind `#[handler]` needs; not for use by hand.
#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub mod component {
    pub use crate::host::bindings;
    pub use crate::host::handle;
}
