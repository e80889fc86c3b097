//! Bytes, numbers, texts and lists as frames have them. Reading is bounded by what is there.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("it does not begin as a frame does")]
    NotAFrame,
    #[error("its format is {version}, this version reads 1: use a newer sluicebox")]
    Version { version: u8 },
    #[error("it ends too early")]
    Truncated,
    #[error("something follows its end")]
    TooLong,
    #[error("it holds something impossible: {0}")]
    Invalid(&'static str),
}

impl FrameError {
    /// Whether these are bytes that no host wrote. What a later version wrote is not among them: whoever passes over that
    /// loses what was acknowledged.
    pub fn is_foreign(&self) -> bool {
        !matches!(self, FrameError::Version { .. })
    }
}

/// Writes one frame.
#[derive(Debug, Default)]
pub(crate) struct Writer(BytesMut);

impl Writer {
    /// With room for so many bytes: growing would copy what is there.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(BytesMut::with_capacity(bytes))
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.put_u8(byte);
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.put_u8(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.put_u8(number.to_le_bytes()[0]);
    }

    /// As many bytes as it has, for numbers that are large as a rule.
    pub(crate) fn wide(&mut self, number: u128) {
        self.0.put_u128_le(number);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// Bytes whose number the reader knows.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn list<'a, T: 'a>(
        &mut self,
        items: impl ExactSizeIterator<Item = &'a T>,
        mut write: impl FnMut(&mut Self, &'a T),
    ) {
        self.count(items.len());
        items.for_each(|item| write(self, item));
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Reads one frame.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(frame: Bytes) -> Self {
        Self(frame)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, FrameError> {
        let byte = *self.0.first().ok_or(FrameError::Truncated)?;
        self.0.advance(1);
        Ok(byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, FrameError> {
        let mut number = 0u64;
        for (at, byte) in self.0.iter().copied().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * at);
            if byte & 0x80 == 0 {
                // A number has one form, so that equal things are equal bytes.
                if byte == 0 && at > 0 {
                    break;
                }
                self.0.advance(at + 1);
                return Ok(number);
            }
        }
        if self.0.len() < 10 && self.0.iter().all(|byte| byte & 0x80 != 0) {
            return Err(FrameError::Truncated);
        }
        Err(FrameError::Invalid("a number"))
    }

    pub(crate) fn wide(&mut self) -> Result<u128, FrameError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let array = *self.0.first_chunk::<N>().ok_or(FrameError::Truncated)?;
        self.0.advance(N);
        Ok(array)
    }

    /// How many items of at least so many bytes follow.
    pub(crate) fn count(&mut self, item_bytes_min: usize) -> Result<usize, FrameError> {
        let count = usize::try_from(self.number()?).map_err(|_| FrameError::Truncated)?;
        if count > self.0.len() / item_bytes_min {
            return Err(FrameError::Truncated);
        }
        Ok(count)
    }

    /// Shares the memory of the frame.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, FrameError> {
        let count = self.count(1)?;
        Ok(self.0.split_to(count))
    }

    /// Of a text.
    pub(crate) fn text<T>(&mut self, make: impl FnOnce(&str) -> Option<T>) -> Result<T, FrameError> {
        let count = self.count(1)?;
        let text =
            std::str::from_utf8(&self.0[..count]).map_err(|_| FrameError::Invalid("a text that is not UTF-8"))?;
        let made = make(text).ok_or(FrameError::Invalid("a text that is not what it should be"))?;
        self.0.advance(count);
        Ok(made)
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(FrameError::Invalid("whether something is there")),
        }
    }

    /// Items of at least so many bytes each: room is made for as many as can be there.
    pub(crate) fn list<T>(
        &mut self,
        item_bytes_min: usize,
        read: impl FnMut(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count = self.count(item_bytes_min)?;
        self.items(count, read)
    }

    /// So many items, which [`Reader::count`] found possible.
    pub(crate) fn items<T>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    pub(crate) fn end(&self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::TooLong) }
    }
}
