//! Ends a process group if the process that started it dies without a word, even by kill -9.
//!
//! The kernel's parent-death signal is tied to the *thread* that started the child, which is wrong for test runners
//! that start a thread per test. A pipe is tied to the process: the watchdog is a shell that reads from it, and the
//! end of file tells it that nobody is there any more.

use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// While it lives, the group is ended when this process dies. [`Watchdog::dismiss`] calls it off.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    leash: Option<ChildStdin>,
}

impl Watchdog {
    /// Watches over the process group `group`.
    pub(crate) fn over(group: u32) -> io::Result<Watchdog> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", r#"read -r word || kill -KILL -- "-$1" 2>/dev/null"#, "yoink-watchdog"])
            .arg(group.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let leash = shell.stdin.take();
        Ok(Watchdog { shell, leash })
    }

    /// Calls it off. Must happen as soon as the group has ended, so that a later owner of its number is never hit.
    pub(crate) fn dismiss(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            // A watchdog that is gone already needs no word.
            leash.write_all(b"done\n").ok();
        }
        self.shell.wait().ok();
    }
}
