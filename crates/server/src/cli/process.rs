//! What the operating system should know about this process before it handles secrets and orders.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// New files are the owner's alone, nothing of memory reaches a core file or a debugger of another user, and as many
/// connections may be open as the system grants.
pub(super) fn harden() {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    // None of these can fail for an ordinary process; where a container forbids one, the others still help.
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    open_many_files();
}

/// Lets this process have as many connections as the system grants: the usual limit is 1024, and a crowd has more.
pub(super) fn open_many_files() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    // Where it is forbidden, the limit is named when it is met.
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).ok();
}

/// Whether this process may do anything.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
