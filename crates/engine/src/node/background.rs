//! The runtime of a node's background: connections belong there, and what goes on by itself.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads: for workers, publishing or loading, and what the edge asks of the ledger.
const THREADS: usize = 2;

/// The runtime of the background. Whoever drops it ends what goes on there, and waits for nothing: the last clone of an engine
/// may go on another runtime, where waiting is not allowed.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// Starts it. Returns the way to it, too.
    ///
    /// # Errors
    /// The operating system gave no threads.
    pub(crate) fn start() -> std::io::Result<(Self, Handle)> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("yoink-background")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok((Self(Some(runtime)), handle))
    }

    /// Ends it, and waits at most `wait` for what cannot be interrupted.
    pub(crate) fn end(mut self, wait: Duration) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(wait);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
