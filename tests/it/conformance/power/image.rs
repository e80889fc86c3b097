//! What a disk may hold after the loss of power: all that was synced, and of the rest any part, in any order.

use crate::harness::recorder::Event;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::path::Path;

/// What of the changes that were not synced is on the disk.
#[derive(Clone, Copy, Debug)]
pub enum Image {
    Nothing,
    Everything,
    /// Up to a point.
    Prefix,
    /// Each by itself or not, so that later ones are there without earlier ones.
    Some,
    /// Each sector of each by itself or not.
    Torn,
}

impl Image {
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Everything, Self::Prefix, Self::Some, Self::Torn];
}

/// A disk writes a sector whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut { bytes: usize },
}

/// What is in a file, whatever its name.
#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// Not synced, each with its place in the record.
    changes: Vec<(usize, Change)>,
}

/// A name that comes, or goes.
#[derive(Clone, Debug)]
struct Rename {
    name: String,
    content: Option<usize>,
}

#[derive(Debug, Default)]
pub struct Disk {
    contents: Vec<Content>,
    /// Which files there are for who reads them now, and which are so on the disk.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renames: Vec<(usize, Rename)>,
    /// Says that it synced the write-ahead log and did not.
    lies: bool,
}

impl Disk {
    pub fn honest() -> Self {
        Self::default()
    }

    pub fn lying() -> Self {
        Self { lies: true, ..Self::default() }
    }

    /// The event at this place of the record.
    pub fn happens(&mut self, place: usize, event: &Event) {
        match event {
            Event::Wrote { file, at, bytes } => {
                let change = Change::Write { at: usize::try_from(*at).unwrap(), bytes: bytes.clone() };
                self.change(place, file, change);
            }
            Event::Cut { file, bytes } => {
                self.change(place, file, Change::Cut { bytes: usize::try_from(*bytes).unwrap() });
            }
            Event::Deleted { file } => {
                if self.names.remove(file).is_some() {
                    self.renames.push((place, Rename { name: file.clone(), content: None }));
                }
            }
            Event::Synced { file, before } if file.is_empty() => {
                let synced = self.renames.partition_point(|(place, _)| place < before);
                for (_, rename) in self.renames.drain(..synced) {
                    apply_name(&mut self.durable_names, rename);
                }
            }
            Event::Synced { file, before } => {
                let Some(content) = self.names.get(file).filter(|_| !self.lies || !file.ends_with("-wal")) else {
                    return;
                };
                let Content { durable, changes } = &mut self.contents[*content];
                let synced = changes.partition_point(|(place, _)| place < before);
                changes.drain(..synced).for_each(|(_, change)| apply(durable, &change));
            }
            Event::Said(_) => {}
        }
    }

    fn change(&mut self, place: usize, file: &str, change: Change) {
        let content = *self.names.entry(file.to_owned()).or_insert_with(|| {
            self.contents.push(Content::default());
            let content = self.contents.len() - 1;
            self.renames.push((place, Rename { name: file.to_owned(), content: Some(content) }));
            content
        });
        self.contents[content].changes.push((place, change));
    }

    /// Writes what the disk may hold if the power fails now into a directory.
    pub fn image(&self, kind: Image, random: &mut StdRng, directory: &Path) {
        let mut names = self.durable_names.clone();
        // File systems keep the order of names.
        let kept = match kind {
            Image::Nothing => 0,
            Image::Everything => self.renames.len(),
            Image::Prefix | Image::Some | Image::Torn => random.random_range(0..=self.renames.len()),
        };
        self.renames[..kept].iter().for_each(|(_, rename)| apply_name(&mut names, rename.clone()));
        for (name, content) in names {
            let Content { durable, changes } = &self.contents[content];
            let mut bytes = durable.clone();
            let prefix = random.random_range(0..=changes.len());
            for (at, (_, change)) in changes.iter().enumerate() {
                match kind {
                    Image::Nothing => {}
                    Image::Everything => apply(&mut bytes, change),
                    Image::Prefix if at < prefix => apply(&mut bytes, change),
                    Image::Some if random.random() => apply(&mut bytes, change),
                    Image::Torn => tear(change, random).iter().for_each(|part| apply(&mut bytes, part)),
                    Image::Prefix | Image::Some => {}
                }
            }
            std::fs::write(directory.join(name), bytes).unwrap();
        }
    }
}

/// Some sectors of a change.
fn tear(change: &Change, random: &mut StdRng) -> Vec<Change> {
    match change {
        Change::Write { at, bytes } => {
            let mut parts = vec![];
            let mut from = 0;
            while from < bytes.len() {
                let until = ((at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - at).min(bytes.len());
                if random.random() {
                    parts.push(Change::Write { at: at + from, bytes: bytes[from..until].to_vec() });
                }
                from = until;
            }
            parts
        }
        cut @ Change::Cut { .. } => {
            if random.random() {
                vec![cut.clone()]
            } else {
                vec![]
            }
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes } => {
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at..end].copy_from_slice(bytes);
        }
        Change::Cut { bytes } => content.resize(*bytes, 0),
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, rename: Rename) {
    match rename.content {
        Some(content) => names.insert(rename.name, content),
        None => names.remove(&rename.name),
    };
}
