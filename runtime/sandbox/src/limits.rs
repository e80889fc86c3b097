//! Bounds on a module, and on what wasmtime allocates for one sandbox.

pub use sluicebox_core::handler::MODULE_BYTES_MAX;

use wasmtime::ResourceLimiter;

/// Most elements in all tables of a sandbox together.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Most core instances of a component: language runtimes and their adapters have some ten.
pub(super) const CORE_INSTANCES_MAX: u32 = 64;
/// Most memories of a component. Rust, JavaScript and Python components have one; compositions one for each part.
pub(super) const MEMORIES_MAX: u32 = 4;
/// Most tables of a component.
pub(super) const TABLES_MAX: u32 = 32;
/// Most bytes a guest may pass in one call of an import. Above what any import accepts, so that a message or value that
/// is merely too large is refused with a reason; a list that names the same memory again and again is a trap.
pub(super) const CALL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most open resources (buckets, streams, pollables) of a sandbox.
pub(super) const RESOURCES_MAX: usize = 1024;

/// Sums the memory of a sandbox over all its memories and refuses growth beyond the limit.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    /// Allowed but perhaps not carried out.
    growing_bytes: usize,
    memory_refused: bool,
}

impl Limiter {
    pub(super) fn new(memory_bytes_max: u64) -> Self {
        let memory_bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        Self { memory_bytes: 0, memory_bytes_max, table_elements: 0, growing_bytes: 0, memory_refused: false }
    }

    /// Bytes of all memories.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether growth was refused since the last [`reset`](Self::reset).
    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused
    }

    /// Begins a new run in the same sandbox.
    pub(super) fn reset(&mut self) {
        self.memory_refused = false;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growing = desired.saturating_sub(current);
        let fits = self.memory_bytes.saturating_add(growing) <= self.memory_bytes_max
            && maximum.is_none_or(|maximum| desired <= maximum);
        if fits {
            self.memory_bytes += growing;
            self.growing_bytes = growing;
        } else {
            self.memory_refused = true;
        }
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes -= std::mem::take(&mut self.growing_bytes);
        self.memory_refused = true;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growing = desired.saturating_sub(current);
        let fits = self.table_elements.saturating_add(growing) <= TABLE_ELEMENTS_MAX
            && maximum.is_none_or(|maximum| desired <= maximum);
        if fits {
            self.table_elements += growing;
        }
        Ok(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 65536;

    #[test]
    fn memory_is_summed_over_all_memories() {
        let mut limiter = Limiter::new(3 * PAGE as u64);
        assert!(limiter.memory_growing(0, PAGE, None).unwrap());
        assert!(limiter.memory_growing(0, 2 * PAGE, None).unwrap());
        assert!(!limiter.memory_growing(PAGE, 2 * PAGE, None).unwrap());
        assert!(limiter.memory_refused());
        limiter.reset();
        assert!(!limiter.memory_refused());
        assert_eq!(limiter.memory_bytes(), 3 * PAGE);
    }

    #[test]
    fn growth_that_failed_is_not_counted() {
        let mut limiter = Limiter::new(2 * PAGE as u64);
        assert!(limiter.memory_growing(0, PAGE, None).unwrap());
        assert!(limiter.memory_growing(PAGE, 2 * PAGE, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!(limiter.memory_bytes(), PAGE);
        assert!(!limiter.memory_growing(PAGE, 2 * PAGE, Some(PAGE)).unwrap(), "beyond the module's own maximum");
    }

    #[test]
    fn table_elements_are_summed() {
        let mut limiter = Limiter::new(0);
        assert!(limiter.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
    }
}
