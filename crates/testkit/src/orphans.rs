//! Processes that a server started and that may outlive it for a moment, found by the folder they work in.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::service::{LIMIT, is_stopped};

/// How long they may take to notice that the server is gone.
const END_WITHIN: Duration = Duration::from_secs(2);
const POLL_EVERY: Duration = Duration::from_millis(2);

/// The processes that work in `folder`, which must be a path without links: all of a server's, also those whose parent
/// is gone.
pub(crate) fn processes_in(folder: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        Some((pid, entry.path()))
    });
    let here =
        numbered.filter(|(_, path)| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == folder));
    here.map(|(pid, _)| pid).collect()
}

/// Waits until no process works in `folder` any more, and kills who still does after 2 s or stands still.
pub(crate) fn wait_for_orphans(folder: &Path) {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let orphans = processes_in(folder);
        if orphans.is_empty() {
            return;
        }
        let is_late = begun.elapsed() >= END_WITHIN;
        for orphan in orphans.into_iter().filter(|orphan| is_late || is_stopped(*orphan)) {
            kill_process(orphan, Signal::KILL).ok();
        }
        thread::sleep(POLL_EVERY);
    }
}
