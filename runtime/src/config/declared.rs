//! Every setting there is, declared once; see [`super::setting`].
//!
//! The order is that of the reference.

pub(super) mod breaker;
pub(super) mod handler;
pub(super) mod host;
pub(super) mod policy;

use super::setting::Declared;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static dyn Declared> {
    let parts = [host::ALL, handler::ALL, policy::ALL, breaker::ALL];
    parts.into_iter().flatten().map(|setting| *setting as &dyn Declared)
}
