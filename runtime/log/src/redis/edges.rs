//! Plain Redis clients on both sides of the log: they add to a stream beside it ([`source`]) or publish to channels
//! (`heard`), and get what was committed on channels of the topics' names ([`sink`]).
//!
//! All of it goes over the log's own connection or behind it: what is read of the stream is of the same life of the server
//! as the log to which it is committed. A value of a client may be any bytes, and cuts no connection.

mod heard;
mod place;
mod plain;
mod sink;
mod source;

pub use self::sink::RedisSink;
pub use self::source::RedisSource;

/// What others may do on the server, so that nobody but hosts writes to the log. One line, for operators.
pub fn rights(namespace: &str) -> String {
    format!(
        "only hosts may write to the log: of the keys `sb:{{{namespace}}}:*` give other users of the server no more than \
         `~sb:{{{namespace}}}:in +xadd`"
    )
}
