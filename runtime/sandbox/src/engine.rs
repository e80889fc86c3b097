//! The one wasmtime engine, configured so that a sandbox for each message costs microseconds.
//!
//! The pooling allocator keeps memories, tables and stacks mapped, copy-on-write puts a memory back, and `pagemap_scan`
//! finds the few pages that a run touched. Features that cost something in each store (concurrency inside a component,
//! garbage collection) are off; handlers are synchronous WIT.

use super::limits::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};
use super::settings::Pool;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Bytes of each memory that are put back by copying instead of being given back to the kernel: the pages a small handler
/// touches. More makes no call faster, and keeps more of an idle pool resident.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 128 * 1024;
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 * 1024;
/// A memory whose data are further apart, and less than half of what is between them, is not put back from an image but by
/// copying them. wasmtime's own bound lets each part of a component have 16 MiB of nothing.
const IMAGE_BYTES: u64 = 256 * 1024;
/// For the guest's own frames. Recursion beyond it is a trap.
const WASM_STACK_BYTES: usize = 512 * 1024;
/// For the guest's frames and those of the imports it calls.
const STACK_BYTES: usize = 1024 * 1024;
/// Frames looked at to name the function that trapped.
const BACKTRACE_FRAMES_MAX: usize = 8;

/// The engine and, for people, what is in force.
pub(super) struct Built {
    pub(super) engine: Engine,
    pub(super) description: String,
    pub(super) reset: Reset,
}

pub(super) fn build(pool: &Pool) -> wasmtime::Result<Built> {
    let reset = Reset::of_this_host();
    let slots = pool.running.saturating_add(pool.idle);

    let mut allocation = PoolingAllocationConfig::new();
    allocation
        .total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(TABLES_MAX))
        .total_stacks(slots)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        .pagemap_scan(if reset == Reset::Scan { Enabled::Yes } else { Enabled::No });

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(allocation))
        .epoch_interruption(true)
        // Only for tools that unwind the host's stack from outside: it would be registered, and read, for every module.
        .native_unwind_info(false)
        .memory_guaranteed_dense_image_size(IMAGE_BYTES)
        .concurrency_support(false)
        .gc_support(false)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    let engine = Engine::new(&config)?;
    let description = format!(
        "{} sandboxes at once and {} idle, pooled, copy-on-write; memory is put back {}",
        pool.running,
        pool.idle,
        reset.describe()
    );
    Ok(Built { engine, description, reset })
}

/// How a memory is put back to its first state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// The kernel says which pages were written.
    Scan,
    /// The kernel could say, but pages may be swapped out. The scan passes over those, so what one guest wrote would be
    /// there for the next.
    SwapInUse,
    /// The kernel is older than 6.7 or does not let us ask.
    NotAvailable,
}

impl Reset {
    fn of_this_host() -> Self {
        if !PoolingAllocationConfig::is_pagemap_scan_available() {
            return Self::NotAvailable;
        }
        match std::fs::read_to_string("/proc/swaps") {
            Ok(swaps) if !lists_swap(&swaps) => Self::Scan,
            // Not to know is no licence to risk it.
            _ => Self::SwapInUse,
        }
    }

    /// Whether memory may not be put back any more as it is done here; wasmtime cannot change how once the engine is made.
    pub(super) fn is_unsafe(self) -> bool {
        self.is_unsafe_with(std::fs::read_to_string("/proc/swaps"))
    }

    fn is_unsafe_with(self, swaps: std::io::Result<String>) -> bool {
        self == Self::Scan && swaps.map_or(true, |swaps| lists_swap(&swaps))
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Scan => "by the kernel's page scan (PAGEMAP_SCAN; this host has no swap)",
            Self::SwapInUse => "without the kernel's page scan, which is slower: this host may swap",
            Self::NotAvailable => "without the kernel's page scan, which is slower: it needs Linux 6.7",
        }
    }
}

/// What is swapped out the scan passes over.
pub(super) const SWAP_APPEARED: &str = "swap was switched on while the host runs, and memory that is swapped out is not put back between \
                             messages: one message may find what another left. Restart the host, which then does without the \
                             page scan, or switch swap off first";

/// `/proc/swaps` is a heading and a line for each swap space.
fn lists_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_seen() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!lists_swap(heading));
        assert!(lists_swap(&format!("{heading}/dev/zram0 partition 1 0 100\n")));
    }

    #[test]
    fn swap_that_is_switched_on_later_is_a_danger_only_to_the_page_scan() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let swaps = |lines: &str| Ok(format!("{heading}{lines}"));
        assert!(!Reset::Scan.is_unsafe_with(swaps("")));
        assert!(Reset::Scan.is_unsafe_with(swaps("/swapfile file 1 0 -2\n")));
        assert!(Reset::Scan.is_unsafe_with(Err(std::io::ErrorKind::NotFound.into())), "not to know is no licence");
        assert!(!Reset::SwapInUse.is_unsafe_with(swaps("/swapfile file 1 0 -2\n")));
    }
}
