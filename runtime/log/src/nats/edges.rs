//! Plain NATS clients on both sides of the log: they publish to a stream beside it ([`source`]), and get what was committed
//! on subjects of the topics' names ([`sink`]).
//!
//! Each side has a connection of its own: what a foreign client sends, which may be anything, cuts neither the log's nor
//! the other side's.

mod plain;
mod sink;
mod source;
mod stream;
mod wire;

pub use self::sink::NatsSink;
pub use self::source::NatsSource;

/// What the other users of a server must not be allowed, so that nobody but hosts writes to the log. One line, for operators.
pub fn permissions(namespace: &str) -> String {
    let streams = ["", "-state", "-in"].map(|stream| {
        let stream = format!("sluicebox-{namespace}{stream}");
        format!(r#""$JS.API.STREAM.*.{stream}", "$JS.API.STREAM.*.*.{stream}""#)
    });
    format!(
        r#"only hosts may write to the log: give all other users of the server permissions = {{ publish = {{ deny = ["sb.{namespace}.>", {}] }} }}"#,
        streams.join(", ")
    )
}
