//! Some shards of one handler, a bit each.

/// Indices of shards. Equal sets are equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardSet {
    /// The lowest bit of the first byte is the first shard's; the last byte is not zero.
    bits: Vec<u8>,
}

impl ShardSet {
    pub fn contains(&self, index: u16) -> bool {
        self.bits.get(usize::from(index / 8)).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    pub fn len(&self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=u16::MAX).take(self.bits.len() * 8).filter(|index| self.contains(*index))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// `None`: more shards than a handler may have, or bytes for none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len() <= (usize::from(u16::MAX) + 1) / 8 && bytes.last() != Some(&0);
        fits.then(|| Self { bits: bytes.to_vec() })
    }
}

impl FromIterator<u16> for ShardSet {
    fn from_iter<I: IntoIterator<Item = u16>>(indices: I) -> Self {
        let mut bits = vec![];
        for index in indices {
            let at = usize::from(index / 8);
            if bits.len() <= at {
                bits.resize(at + 1, 0);
            }
            bits[at] |= 1 << (index % 8);
        }
        Self { bits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let check = |indices: &[u16]| {
            let set: ShardSet = indices.iter().rev().copied().collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), indices);
            assert_eq!((set.len(), set.is_empty()), (indices.len(), indices.is_empty()));
            assert_eq!(ShardSet::from_bytes(set.as_bytes()), Some(set));
        };
        check(&[]);
        check(&[0]);
        check(&[3, 8, 9, 4095]);
        check(&[u16::MAX]);
        assert_eq!(ShardSet::from_bytes(&[1, 0]), None, "one set has one form");
        assert_eq!(ShardSet::from_bytes(&[1; 8193]), None);
    }
}
