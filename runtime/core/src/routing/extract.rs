//! Takes keys and ids out of a message without building a JSON tree: one pass over the body for whatever is wanted of it.
//!
//! A pass goes only where a pointer leads and leaves the rest to the parser, which is less strict with what it skips (the
//! text of a string, the range of a number). So what one pointer yields could depend on which others are looked for. It
//! does not: where the pass for all fails, each pointer is looked for alone.

mod pointers;
mod text;

pub(super) use self::pointers::Pointers;

use super::Field;
use crate::message::Message;
use std::borrow::Cow;

/// The body is needed and is not JSON. Holds the parser's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not JSON: {0}")]
pub(super) struct NotJson(String);

/// What a pointer yields: a text, perhaps an empty one, or nothing.
type Found<'b> = Option<Cow<'b, str>>;

/// Fields in order of preference. Those that are pointers are known to [`Pointers`] by a number.
pub(super) struct Fields {
    fields: Box<[(Field, usize)]>,
}

impl Fields {
    /// Adds what is wanted of the body to `pointers`.
    pub(super) fn new(fields: &[Field], pointers: &mut Pointers) -> Self {
        let number = |field: &Field| match field {
            Field::Pointer(pointer) => pointers.add(pointer),
            Field::Header(_) | Field::TopicToken(_) => 0,
        };
        let numbers: Vec<usize> = fields.iter().map(number).collect();
        Self { fields: fields.iter().cloned().zip(numbers).collect() }
    }

    /// The first field that yields a non-empty text: strings as they are, numbers and booleans as JSON text.
    pub(super) fn first<'m, 'b: 'm>(
        &self,
        message: &'m Message,
        body: &mut Body<'_, 'b>,
    ) -> Result<Found<'m>, NotJson> {
        let mut broken = None;
        for (field, number) in &self.fields {
            let found = match field {
                Field::Header(name) => message.headers.get(name).map(Cow::Borrowed),
                Field::TopicToken(number) => message.topic.tokens().nth(number.wrapping_sub(1)).map(Cow::Borrowed),
                // A later field may still yield.
                Field::Pointer(_) => body.at(*number).unwrap_or_else(|error| {
                    broken = Some(error);
                    None
                }),
            };
            if let Some(text) = found.filter(|text| !text.is_empty()) {
                return Ok(Some(text));
            }
        }
        broken.map_or(Ok(None), Err)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().map(|(field, _)| field)
    }
}

/// The body of one message, read when a field first asks for it.
pub(super) struct Body<'p, 'b> {
    bytes: &'b [u8],
    pointers: &'p Pointers,
    read: Read<'b>,
}

enum Read<'b> {
    NotYet,
    /// By number of the pointer.
    All(Vec<Found<'b>>),
    /// Not in one pass: each alone, once it is asked for.
    Alone(Vec<Option<Result<Found<'b>, NotJson>>>),
}

impl<'p, 'b> Body<'p, 'b> {
    pub(super) fn new(bytes: &'b [u8], pointers: &'p Pointers) -> Self {
        Self { bytes, pointers, read: Read::NotYet }
    }

    fn at(&mut self, pointer: usize) -> Result<Found<'b>, NotJson> {
        if matches!(self.read, Read::NotYet) {
            self.read = match self.pointers.all(self.bytes) {
                Some(found) => Read::All(found),
                None => Read::Alone(vec![None; self.pointers.len()]),
            };
        }
        match &mut self.read {
            Read::NotYet => Ok(None),
            Read::All(found) => Ok(found[pointer].clone()),
            Read::Alone(found) => {
                found[pointer].get_or_insert_with(|| self.pointers.alone(pointer, self.bytes)).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests;
