//! Routes messages for several handlers at once: whatever they want of a body is taken out of it in one pass.

use super::extract::{Body, Fields, Pointers};
use super::{Id, IdFrom, KeyFrom, Offset, Routed, Routing, Unroutable, describe, reserved};
use crate::message::{HOPS_MAX, Key, Message};
use std::sync::Arc;

/// What some handlers want of their messages.
pub struct Router {
    pointers: Pointers,
    handlers: Vec<Wanted>,
}

/// What one handler wants.
struct Wanted {
    key: Source,
    id: Source,
    /// After this offset the id decides the shard of a message without a key.
    by_id_after: Offset,
}

enum Source {
    Message,
    All,
    None,
    Fields(Fields),
}

/// One message on its way to handlers.
pub struct Routes<'r, 'm> {
    message: &'m Arc<Message>,
    handlers: &'r [Wanted],
    /// A dead letter that returns has the body of the message that it was.
    body: Body<'r, 'm>,
}

impl Router {
    /// For handlers that are numbered in this order.
    pub fn new<'r>(routings: impl IntoIterator<Item = &'r Routing>) -> Self {
        let mut pointers = Pointers::default();
        let handlers = routings.into_iter().map(|routing| Wanted::new(routing, &mut pointers)).collect();
        Self { pointers, handlers }
    }

    /// The body is read when the first handler asks for something in it.
    pub fn message<'r, 'm>(&'r self, message: &'m Arc<Message>) -> Routes<'r, 'm> {
        Routes { message, handlers: &self.handlers, body: Body::new(&message.body, &self.pointers) }
    }
}

impl Routes<'_, '_> {
    /// Key, id and lane of the message for one of the handlers. Never fails: what cannot be routed says so and has a lane
    /// of its own.
    pub fn to(&mut self, handler: usize) -> Routed {
        let handler = &self.handlers[handler];
        let returned = reserved::original(self.message).map(Arc::new);
        let message = returned.as_ref().unwrap_or(self.message);
        let (key, unroutable) = match handler.key_of(message, &mut self.body) {
            Ok(key) => (key, None),
            Err(unroutable) => (None, Some(unroutable)),
        };
        let id = if unroutable.is_none() { handler.id_of(message, &mut self.body) } else { None };
        let hash = match &id {
            Some(id) if key.is_none() && message.offset > handler.by_id_after => id.lane_hash(message),
            _ => Routing::lane_hash(key.as_ref(), message.offset),
        };
        let deaths = returned.as_ref().and_then(|_| reserved::deaths(self.message)).map(Box::new);
        Routed { message: message.clone(), hash, key, id, unroutable, deaths }
    }
}

impl Wanted {
    fn new(routing: &Routing, pointers: &mut Pointers) -> Self {
        let key = match &routing.key {
            KeyFrom::Message => Source::Message,
            KeyFrom::All => Source::All,
            KeyFrom::None => Source::None,
            KeyFrom::Fields(fields) => Source::Fields(Fields::new(fields, pointers)),
        };
        let id = match &routing.id {
            IdFrom::Message => Source::Message,
            IdFrom::Fields(fields) => Source::Fields(Fields::new(fields, pointers)),
        };
        Self { key, id, by_id_after: routing.identity.after }
    }

    /// `None` for no id, an empty one, or one that cannot be read.
    fn id_of(&self, message: &Message, body: &mut Body<'_, '_>) -> Option<Id> {
        match &self.id {
            Source::Message => Id::of_message(message),
            // A body that is not JSON has no id; the handler decides what to make of it.
            Source::Fields(fields) => {
                fields.first(message, body).ok().flatten().map(|text| Id::found(text, &message.body))
            }
            Source::All | Source::None => None,
        }
    }

    fn key_of(&self, message: &Message, body: &mut Body<'_, '_>) -> Result<Option<Key>, Unroutable> {
        if message.hops > HOPS_MAX {
            let error = format!("went through {} handlers, which looks like a loop", message.hops);
            return Err(Unroutable { kind: "loop", error });
        }
        match &self.key {
            Source::None => Ok(None),
            Source::Message => Ok(message.key.clone()),
            Source::All => Ok(Key::parse("*").expect("one byte is not too long")),
            Source::Fields(fields) => {
                let found = fields
                    .first(message, body)
                    .map_err(|error| Unroutable { kind: "key", error: format!("no key: {error}") })?;
                let text = found.ok_or_else(|| Unroutable {
                    kind: "key",
                    error: format!("no key: none of {} yields a text, number or boolean", describe(fields.iter())),
                })?;
                Key::parse(&text).map_err(|error| Unroutable { kind: "key", error: error.to_string() })
            }
        }
    }
}
