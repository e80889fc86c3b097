//! Every setting there is, declared once; see [`super::setting`].
//!
//! The order is that of the reference.

pub(super) mod breaker;
pub(super) mod handler;
pub(super) mod host;
pub(super) mod policy;

use super::setting::Declared;

/// Declares settings and lists them, so that none can be declared and left out of the reference.
macro_rules! settings {
    ($($name:ident: $kind:ty, $default:ty = $setting:expr;)+) => {
        $(pub(in crate::config) static $name: $crate::config::setting::Setting<$kind, $default> = $setting;)+
        pub(super) static ALL: &[&(dyn $crate::config::setting::Declared + Sync)] = &[$(&$name),+];
    };
}
use settings;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static dyn Declared> {
    let parts = [host::ALL, handler::ALL, policy::ALL, breaker::ALL];
    parts.into_iter().flatten().map(|setting| *setting as &dyn Declared)
}
