//! How much memory a piece of code takes at most, counted by thread.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Taken and not given back, and the most that it ever was.
    static TAKEN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn took(bytes: usize) {
    let _ = TAKEN.try_with(|taken| {
        let now = taken.get().0.saturating_add(bytes);
        taken.set((now, taken.get().1.max(now)));
    });
}

fn gave(bytes: usize) {
    let _ = TAKEN.try_with(|taken| taken.set((taken.get().0.saturating_sub(bytes), taken.get().1)));
}

// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `run` returns, and how much more memory it had at once than there was before.
pub(crate) fn most<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = TAKEN.get().0;
    TAKEN.set((before, before));
    let returned = run();
    (returned, TAKEN.get().1 - before)
}

#[test]
fn what_is_taken_and_given_back_is_counted() {
    let (_, most) = most(|| drop((0..3).map(|_| drop(vec![0u8; 1000])).collect::<Vec<_>>()));
    assert!((1000..1100).contains(&most), "{most}");
}
