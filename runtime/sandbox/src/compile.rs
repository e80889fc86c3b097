//! Where modules are compiled: on threads of low priority, one module at a time.
//!
//! So compiling delays no message, and takes the memory of one module, however many are loaded at once.

use super::error::LoadError;
use super::text::short;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// Most threads: each may take some hundred megabytes for a function that was made to be slow.
const THREADS_MAX: usize = 4;
/// The weight of such a thread is a third of a usual one's: messages hardly notice, and a busy host still gets its module.
const NICE: i32 = 5;
/// The compiler recurses over what a module has; this is far more than what the bounds on modules leave it.
const STACK_BYTES: usize = 16 * 1024 * 1024;

pub(super) struct Compiler {
    threads: ThreadPool,
    /// Held while one compiles.
    turn: Mutex<()>,
}

impl Compiler {
    pub(super) fn new() -> Result<Self, ThreadPoolBuildError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads_on(cores))
            .stack_size(STACK_BYTES)
            .thread_name(|number| format!("compiler-{number}"))
            .start_handler(|_| lower_priority())
            .build()?;
        Ok(Self { threads, turn: Mutex::new(()) })
    }

    /// Does the work on the threads; what it runs in parallel runs there too. A panic in the compiler is an error of the
    /// module.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, LoadError> + Send) -> Result<T, LoadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let done = catch_unwind(AssertUnwindSafe(|| self.threads.install(work)));
        done.unwrap_or_else(|panic| Err(LoadError::Compile { reason: describe(&*panic) }))
    }
}

/// At most half of the cores: the others have messages alone.
fn threads_on(cores: usize) -> usize {
    (cores / 2).clamp(1, THREADS_MAX)
}

/// Of the thread that calls it, alone.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "cannot lower the priority of a thread that compiles");
    }
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    short(format!("the compiler failed on it: {}", text.unwrap_or("no reason given")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // After the name, which ends with the last parenthesis, the priority is the 16th field and nice the 17th.
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn work_runs_at_low_priority_and_the_caller_keeps_its_own() {
        let before = nice();
        let compiler = Compiler::new().unwrap();
        assert_eq!(compiler.run(|| Ok(nice())).unwrap(), before.max(0) + NICE.min(19 - before.max(0)));
        assert_eq!(nice(), before);
    }

    #[test]
    fn compiling_takes_no_more_than_half_of_the_cores() {
        assert_eq!([1, 2, 3, 4, 8, 100].map(threads_on), [1, 1, 1, 2, 4, 4]);
        let cores = std::thread::available_parallelism().unwrap().get();
        let compiler = Compiler::new().unwrap();
        let threads = compiler.run(|| Ok(rayon::current_num_threads())).unwrap();
        assert!(threads == 1 || threads * 2 <= cores, "{threads} threads on {cores} cores");
    }

    #[test]
    fn a_panic_of_the_compiler_is_an_error_and_the_next_module_compiles() {
        let compiler = Compiler::new().unwrap();
        let error = compiler.run::<()>(|| panic!("no such {}", "register")).unwrap_err().to_string();
        assert_eq!(error, "the module cannot be compiled: the compiler failed on it: no such register");
        assert_eq!(compiler.run(|| Ok(1)).unwrap(), 1);
    }
}
