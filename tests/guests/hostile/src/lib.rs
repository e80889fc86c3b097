//! A handler that does what its message says, good or bad.
