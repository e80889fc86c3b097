//! What stands behind the handles that a guest holds. The bindings are generated around these types, so they are apart from
//! the imports, which use the bindings.

use bytes::Bytes;

/// The only bucket there is: the entries of the key. It holds nothing, so a handle to it needs no table.
pub struct Bucket;

/// What an entry was when the guest began a compare-and-swap.
pub struct Cas {
    pub(super) entry: String,
    pub(super) seen: Option<Bytes>,
}
