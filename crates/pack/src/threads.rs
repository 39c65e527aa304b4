//! Work that any number of threads can share, down to the caller alone.

use std::thread::{Builder, available_parallelism, scope};

/// Runs `work` in `threads` threads side by side, the caller's among them, and returns their results.
/// 0 stands for one per core. Where the system refuses a thread there are fewer: `work` takes what is
/// to be done from a shared list, so all of it is done.
pub(crate) fn side_by_side<R: Send>(threads: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    let threads = match threads {
        0 => available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    scope(|scope| {
        let others: Vec<_> =
            (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, &work).ok()).collect();
        let mut results = vec![work()];
        // A panic of a thread is a bug and goes on as one.
        let joined = others.into_iter().map(|thread| thread.join());
        results.extend(joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        results
    })
}
