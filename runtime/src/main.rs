//! The program; see [`sluicebox::cli`].

/// Messages are many small allocations that end on another thread than they began: the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sluicebox::cli::main()
}
