//! Pieces in a file or a pipe: a header, records, and a last one after which nothing comes.
//!
//! ```text
//! header:  89 "SLBX" 0D 0A 1A, format (u32)
//! record:  bytes of the piece (u32), the piece, 16 bytes of check
//! ```
//!
//! Numbers are little-endian. The check is the beginning of a sha-256 over all of the file up to there, so a record that is
//! damaged, missing, twice or at another place is found where it stands. The last record counts the others. Written and
//! read as a stream: memory holds a piece, whatever the size of the log.

use super::{Counts, End, Piece, codec};
use crate::frame::{FrameError, Writer as Encoder};
use sha2::{Digest as _, Sha256};
use sluicebox_core::handler::ShardId;
use std::io::{self, Read, Write};

/// As in PNG: a transfer that changes line ends, or ends the file early, is seen at once.
const MAGIC: [u8; 8] = *b"\x89SLBX\r\n\x1a";
/// Rises when an older version could misread the file.
const FORMAT: u32 = 1;
const CHECK_BYTES: usize = 16;
/// Of a piece: a module and what is said of it (64 MiB), or a list of messages.
const PIECE_BYTES_MAX: u32 = 72 * 1024 * 1024;

/// Why a file is not what was exported.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("failed to read after byte {at}")]
    Read { at: u64, source: io::Error },
    #[error("it is no export of a log: it does not begin as one")]
    NotAnExport,
    #[error("its format is {format}, this version reads up to {FORMAT}: use a newer sluicebox")]
    Newer { format: u32 },
    #[error("it ends at byte {at}, in the middle: it was cut short, export it again or copy it again")]
    Truncated { at: u64 },
    #[error("it is damaged at byte {at}: {what}; export it again or copy it again")]
    Damaged { at: u64, what: String },
}

/// Writes pieces.
pub struct Writer<W> {
    to: W,
    all: Sha256,
    written: u64,
    tally: Tally,
}

impl<W: Write> Writer<W> {
    pub fn begin(to: W) -> io::Result<Self> {
        let mut writer = Self { to, all: Sha256::new(), written: 0, tally: Tally::default() };
        writer.put(&MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        Ok(writer)
    }

    /// Any piece but the last.
    pub fn write(&mut self, piece: &Piece) -> io::Result<()> {
        self.tally.add(piece);
        self.record(piece)
    }

    /// What is written up to now.
    pub fn counts(&self) -> Counts {
        self.tally.counts
    }

    pub fn bytes(&self) -> u64 {
        self.written
    }

    /// Writes the last piece, with what was counted; how many bytes it all is.
    pub fn finish(mut self, end: End) -> io::Result<(W, End, u64)> {
        let end = End { counts: self.tally.counts, ..end };
        self.record(&Piece::End(end))?;
        self.to.flush()?;
        Ok((self.to, end, self.written))
    }

    fn record(&mut self, piece: &Piece) -> io::Result<()> {
        let mut encoded = Encoder::default();
        codec::encode(&mut encoded, piece);
        let encoded = encoded.finish();
        let length = u32::try_from(encoded.len()).ok().filter(|length| *length <= PIECE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a piece of the log is too large for the file"))?;
        self.put(&length.to_le_bytes())?;
        self.put(&encoded)?;
        let check = check(&self.all);
        self.put(&check)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.all.update(bytes);
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// Reads pieces.
pub struct Reader<R> {
    from: R,
    all: Sha256,
    at: u64,
    tally: Tally,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub fn begin(from: R) -> Result<Self, FileError> {
        let mut reader = Self { from, all: Sha256::new(), at: 0, tally: Tally::default(), ended: false };
        let magic = reader.up_to(MAGIC.len())?;
        if magic != MAGIC[..magic.len()] || magic.is_empty() {
            return Err(FileError::NotAnExport);
        }
        if magic.len() < MAGIC.len() {
            return Err(FileError::Truncated { at: reader.at });
        }
        let format: [u8; 4] = reader.exact()?;
        match u32::from_le_bytes(format) {
            FORMAT => Ok(reader),
            0 => Err(reader.damaged(MAGIC.len() as u64, "its format is 0")),
            format => Err(FileError::Newer { format }),
        }
    }

    /// The next piece; the last one is an [`Piece::End`], whose counts were compared, and after which nothing stands. Nothing
    /// comes after it.
    pub fn read(&mut self) -> Result<Option<Piece>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.at;
        let length = u32::from_le_bytes(self.exact()?);
        if length > PIECE_BYTES_MAX {
            return Err(self.damaged(at, format!("a record of {length} bytes")));
        }
        let piece = self.up_to(length as usize)?;
        if piece.len() < length as usize {
            return Err(FileError::Truncated { at: self.at });
        }
        let expected = check(&self.all);
        let found: [u8; CHECK_BYTES] = self.exact()?;
        if found != expected {
            return Err(self.damaged(at, "its bytes are not those that were written"));
        }
        let piece = codec::decode(piece.into()).map_err(|error: FrameError| self.damaged(at, error.to_string()))?;
        let Piece::End(end) = &piece else {
            self.tally.add(&piece);
            return Ok(Some(piece));
        };
        if end.counts != self.tally.counts {
            return Err(self.damaged(at, "it does not hold as much as it says"));
        }
        if !self.up_to(1)?.is_empty() {
            return Err(self.damaged(self.at - 1, "something stands behind its end"));
        }
        self.ended = true;
        Ok(Some(piece))
    }

    /// Bytes read up to now.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    fn damaged(&self, at: u64, what: impl Into<String>) -> FileError {
        FileError::Damaged { at, what: what.into() }
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N], FileError> {
        let bytes = self.up_to(N)?;
        bytes.try_into().map_err(|_| FileError::Truncated { at: self.at })
    }

    /// So many bytes, or as many as there are. A length that is wrong takes no memory beyond what is there.
    fn up_to(&mut self, count: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = vec![];
        let read = self.from.by_ref().take(count as u64).read_to_end(&mut bytes);
        read.map_err(|source| FileError::Read { at: self.at, source })?;
        self.all.update(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

/// What came up to now.
#[derive(Default)]
struct Tally {
    counts: Counts,
    shard: Option<ShardId>,
}

impl Tally {
    fn add(&mut self, piece: &Piece) {
        let shard = if let Piece::Shard(part) = piece { Some(&part.shard) } else { None };
        let starts_shard = shard.is_some() && shard != self.shard.as_ref();
        self.counts.add(piece, starts_shard);
        if starts_shard {
            self.shard = shard.cloned();
        }
    }
}

fn check(all: &Sha256) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&all.clone().finalize()[..CHECK_BYTES]);
    check
}
