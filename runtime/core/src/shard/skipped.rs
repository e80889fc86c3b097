//! Messages that gave up their place in their lane and wait for their retry.

use super::items::Item;
use crate::message::Offset;
use hashbrown::HashMap;

#[derive(Debug, Default)]
pub struct Skipped {
    items: HashMap<Offset, Item>,
}

impl Skipped {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn contains(&self, offset: Offset) -> bool {
        self.items.contains_key(&offset)
    }

    pub fn get(&self, offset: Offset) -> Option<&Item> {
        self.items.get(&offset)
    }

    pub fn get_mut(&mut self, offset: Offset) -> Option<&mut Item> {
        self.items.get_mut(&offset)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.items.values_mut()
    }

    pub fn insert(&mut self, offset: Offset, item: Item) {
        self.items.insert(offset, item);
    }

    pub fn remove(&mut self, offset: Offset) -> Option<Item> {
        self.items.remove(&offset)
    }

    pub fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.items.keys().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }
}
