//! Messages that gave up their place in their lane and wait for their retry.

use super::items::Item;
use crate::commit::{Head, HeadScope};
use crate::message::{Key, Offset};
use hashbrown::HashMap;

#[derive(Debug)]
struct Skip {
    /// As the record has it: the item's message may be in the log only.
    key: Option<Key>,
    item: Item,
}

#[derive(Debug, Default)]
pub struct Skipped {
    items: HashMap<Offset, Skip>,
}

impl Skipped {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn contains(&self, offset: Offset) -> bool {
        self.items.contains_key(&offset)
    }

    pub fn get(&self, offset: Offset) -> Option<&Item> {
        self.items.get(&offset).map(|skip| &skip.item)
    }

    pub fn get_mut(&mut self, offset: Offset) -> Option<&mut Item> {
        self.items.get_mut(&offset).map(|skip| &mut skip.item)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.items.values_mut().map(|skip| &mut skip.item)
    }

    pub fn insert(&mut self, offset: Offset, key: Option<Key>, item: Item) {
        self.items.insert(offset, Skip { key, item });
    }

    pub fn remove(&mut self, offset: Offset) -> Option<Item> {
        self.items.remove(&offset).map(|skip| skip.item)
    }

    pub fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.items.keys().copied()
    }

    pub fn key(&self, offset: Offset) -> Option<&Key> {
        self.items.get(&offset)?.key.as_ref()
    }

    /// How the record names it.
    pub fn head(&self, offset: Offset) -> Option<Head> {
        let skip = self.items.get(&offset)?;
        skip.item.head(skip.key.clone(), HeadScope::Message)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(|skip| &skip.item)
    }
}
