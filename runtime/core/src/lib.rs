//! The words and decisions of Sluicebox: what travels through the log, how it is routed, what becomes of it.
//!
//! Nothing here does IO, and nothing waits: time and randomness are handed in, messages, results and answers go in,
//! decisions and commits come out. So all of it can be stepped from a seed.
//!
//! # Glossary (one name per idea)
//!
//! | word | meaning |
//! |---|---|
//! | log | the totally ordered, durable sequence of messages of one *namespace*; text output is *diagnostics* |
//! | offset | a place in the log: it only compares, nobody adds one, sequences have gaps |
//! | topic, pattern | dot-separated tokens; a pattern may use `*` (one token) and `>` (the rest) |
//! | message | id, topic, key, headers, body, time (the log's), hops |
//! | handler | a Wasm component plus its settings; the unit of dedup, order and state |
//! | routing | a handler's subscribe, key, id and shards, recorded in the log with the offset from which they hold |
//! | shard | `xxh3_64(key) % shards`; one actor; owns its record, marks and lanes |
//! | lane | the queue of one key inside a shard |
//! | record | what is durable of a shard: term, commit number, `read`, `open`, marks |
//! | read | offset up to which the shard has taken messages up |
//! | open | the messages at or below `read` that are not settled, one *head* per lane |
//! | mark | the trace of an id that was *done*; a later message with it is a duplicate |
//! | sandbox | one instance of a component, with its own memory, deadline and limits |
//! | effects | what a run asked for, not yet performed |
//! | outcome | what became of a run: done, duplicate, retry, dead, postponed |
//! | work id | names what a shard works on: a logged message by its offset, a request by its *ticket* |
//! | trace | the W3C trace context that a message carries and its outputs inherit |
//! | commit | the one atomic write of a shard's outcomes |
//! | term | rises at each claim of a shard; a commit with an old term is *fenced* |
//! | dead letter | a message given up, kept with error, attempts and module digest |
//! | module, digest | the bytes of a component; their sha-256 |
//! | epoch | only wasmtime's interruption counter |

pub mod clock;
pub mod commit;
pub mod control;
pub mod effects;
pub mod handler;
pub mod invoke;
pub mod message;
pub mod pipeline;
pub mod routing;
pub mod shard;
pub mod skew;
pub mod topic;
pub mod trace;
