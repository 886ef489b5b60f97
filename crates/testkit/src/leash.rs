//! Ends the process group of a server if the process that started it dies without a word, even by kill -9.

use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

// In the form of `kill` that every POSIX shell knows: dash takes no `--` after `kill -KILL`, and would kill nothing.
/// For a server that leaves nothing in the kernel.
pub(crate) const KILL: &str = r#"read -r word || kill -s KILL -- "-$1" 2>/dev/null"#;
/// For PostgreSQL, which leaves shared memory in the kernel when it is killed: immediate shutdown, also if it is paused.
pub(crate) const QUIT_OR_KILL: &str = r#"
read -r word || {
    kill -s QUIT -- "-$1" && kill -s CONT -- "-$1"
    for second in 1 2 3 4 5 6 7 8 9 10; do
        sleep 1
        kill -s 0 -- "-$1" || exit
    done
    kill -s KILL -- "-$1"
} 2>/dev/null"#;

/// A shell that waits for the end of a pipe, which comes when nobody holds its other end any more. The kernel's
/// parent-death signal would not do: it is tied to the thread that started the child, and tests come and go in threads.
#[derive(Debug)]
pub(crate) struct Leash {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Leash {
    /// Holds the process group `group`, and ends it with `script`.
    pub(crate) fn on(group: u32, script: &str) -> io::Result<Leash> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", script, "yoink-leash"])
            .arg(group.to_string())
            // Whoever ends a test with everything in its group (Ctrl-C, a test runner) must not end the leash before it
            // has done its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Leash { shell, pipe })
    }

    /// Lets go, without ending anything. Must happen as soon as the group has ended, so that a later owner of its
    /// number is never hit.
    pub(crate) fn release(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A shell that is gone already needs no word.
            pipe.write_all(b"done\n").ok();
        }
        self.shell.wait().ok();
    }
}
