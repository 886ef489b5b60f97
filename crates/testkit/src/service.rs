//! A server that others wrote, started privately: in a process group of its own, its log in a file, ended for certain.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::leash::Leash;
use crate::resp::RedisError;
use crate::sql::SqlError;

/// How long anything that a private server is asked to do may take: far more than it needs on a busy machine, where a
/// RabbitMQ has once needed more than half a minute to start.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(2);
/// Lines of the log that an error shows. RabbitMQ writes fifty after it has named the cause.
const LOG_LINES_SHOWN: usize = 70;

/// Why a private server is not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The program is not on this machine.
    #[error("{program} is not installed: run `cargo xtask setup`")]
    NotInstalled {
        /// The program.
        program: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// A helper program, such as `initdb`, failed.
    #[error("{program} ended with {status}; it wrote:\n{output}")]
    Helper {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// The server ended instead of becoming ready.
    #[error("{server} ended with {status} instead of becoming ready; its log ends with:\n{log}")]
    Ended {
        /// The program.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// Something that was waited for did not happen.
    #[error("{server}: not in {waited_ms} ms: {awaited}; its log ends with:\n{log}")]
    NotInTime {
        /// The program.
        server: &'static str,
        /// What was waited for.
        awaited: &'static str,
        /// How long was waited.
        waited_ms: u128,
        /// The end of its log.
        log: String,
    },
    /// It cannot be done while the server runs.
    #[error("{server} must be down to {action}: call kill() or terminate() first")]
    StillRunning {
        /// The program.
        server: &'static str,
        /// What was asked for.
        action: &'static str,
    },
    /// It cannot be done while the server is down.
    #[error("{server} must run to {action}: call restart() first")]
    NotRunning {
        /// The program.
        server: &'static str,
        /// What was asked for.
        action: &'static str,
    },
    /// RabbitMQ did not do as it was told.
    #[error("RabbitMQ was asked `{asked}` and answered: {answer}")]
    Rabbit {
        /// The Erlang expressions that it was to evaluate.
        asked: String,
        /// What it said, or why nothing arrived.
        answer: String,
    },
    /// Redis did not do as it was told.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// PostgreSQL did not do as it was told.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// Names what was tried when the operating system refused.
pub(crate) fn cannot(action: impl Into<String>) -> impl FnOnce(io::Error) -> ServerError {
    |source| ServerError::System { action: action.into(), source }
}

/// One server process, or the place for one. Dropped, the process is killed.
#[derive(Debug)]
pub(crate) struct Service {
    server: &'static str,
    log: PathBuf,
    script: &'static str,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    leash: Leash,
}

impl Service {
    /// A place for the program `server`, which writes into the file `log`, and is ended by `script` of the module
    /// [`crate::leash`] if this process dies.
    pub(crate) fn new(server: &'static str, log: PathBuf, script: &'static str) -> Service {
        Service { server, log, script, running: None }
    }

    /// Starts `command`. Must not run yet.
    pub(crate) fn spawn(&mut self, command: &mut Command) -> Result<(), ServerError> {
        let log = self.open_log().map_err(cannot(format!("write {}", self.log.display())))?;
        let both = log.try_clone().map_err(cannot(format!("write {}", self.log.display())))?;
        command.stdin(Stdio::null()).stdout(log).stderr(both).process_group(0);
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ServerError::NotInstalled { program: self.server },
            _ => ServerError::System { action: format!("start {}", self.server), source },
        })?;
        let leash = Leash::on(child.id(), self.script).map_err(|source| {
            child.kill().ok();
            child.wait().ok();
            ServerError::System { action: format!("leash {}", self.server), source }
        })?;
        self.running = Some(Running { child, leash });
        Ok(())
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.log)
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let running = self.running.as_ref()?;
        i32::try_from(running.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it was started and nobody has noticed its end.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Signals the server alone. Nothing happens if it is down.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            kill_process(pid, signal).ok();
        }
    }

    /// Pauses the server, and waits until it stands still.
    pub(crate) fn stop(&mut self) -> Result<(), ServerError> {
        let pid = self.must_run("be stopped")?;
        self.signal(Signal::STOP);
        self.wait_until("standing still after SIGSTOP", || is_stopped(pid))
    }

    /// SIGKILL to its process group, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            kill_process_group(pid, Signal::KILL).ok();
        }
        if let Some(mut running) = self.running.take() {
            running.child.wait().ok();
            running.leash.release();
        }
    }

    /// Sends `signal`, which asks it to end, and waits until it has. Wakes it first if it is stopped.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<(), ServerError> {
        self.signal(signal);
        self.signal(Signal::CONT);
        self.wait_ended()
    }

    /// Waits until it has ended, whatever made it.
    pub(crate) fn wait_ended(&mut self) -> Result<(), ServerError> {
        let until = Instant::now() + LIMIT;
        while self.exit_status().is_none() && self.is_running() {
            if Instant::now() >= until {
                return Err(self.not_in_time("its end"));
            }
            thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    /// How it ended, the first time that this is noticed.
    fn exit_status(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut()?;
        let status = running.child.try_wait().ok().flatten()?;
        if let Some(mut ended) = self.running.take() {
            ended.leash.release();
        }
        Some(status)
    }

    /// Asks again and again until the answer is yes, for as long as the server runs and up to [`LIMIT`].
    pub(crate) fn wait_until(
        &mut self,
        awaited: &'static str,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<(), ServerError> {
        let until = Instant::now() + LIMIT;
        while !is_so() {
            if let Some(status) = self.exit_status() {
                return Err(ServerError::Ended { server: self.server, status, log: self.log_end() });
            }
            if Instant::now() >= until {
                return Err(self.not_in_time(awaited));
            }
            thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    pub(crate) fn not_in_time(&self, awaited: &'static str) -> ServerError {
        let waited_ms = LIMIT.as_millis();
        ServerError::NotInTime { server: self.server, awaited, waited_ms, log: self.log_end() }
    }

    /// Refuses `action` unless the server is down.
    pub(crate) fn must_be_down(&self, action: &'static str) -> Result<(), ServerError> {
        match self.is_running() {
            true => Err(ServerError::StillRunning { server: self.server, action }),
            false => Ok(()),
        }
    }

    /// Refuses `action` unless the server runs.
    pub(crate) fn must_run(&self, action: &'static str) -> Result<Pid, ServerError> {
        self.pid().ok_or(ServerError::NotRunning { server: self.server, action })
    }

    /// The last lines of its log.
    pub(crate) fn log_end(&self) -> String {
        end_of(&self.log)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process stands still after SIGSTOP.
pub(crate) fn is_stopped(pid: Pid) -> bool {
    // The state follows the name, which is in brackets and may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| format!("(no log: {error})"));
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leash::KILL;

    fn shell(folder: &Path, script: &str) -> Result<Service, ServerError> {
        let mut service = Service::new("sh", folder.join("log"), KILL);
        service.spawn(Command::new("/bin/sh").args(["-c", script]))?;
        Ok(service)
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = shell(folder.path(), "echo no such luck; exit 3").unwrap();
        let error = service.wait_until("an answer", || false).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ServerError::Ended { status, .. } if status.code() == Some(3)), "{text}");
        assert!(text.contains("no such luck"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let mut service = Service::new("redis-server", folder.path().join("log"), KILL);
        let error = service.spawn(&mut Command::new("/nonexistent/redis-server")).unwrap_err();
        assert_eq!(error.to_string(), "redis-server is not installed: run `cargo xtask setup`");
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, (0..100).map(|line| format!("line {line}\n")).collect::<String>()).unwrap();
        let shown = end_of(&log);
        assert_eq!(shown.lines().count(), LOG_LINES_SHOWN);
        assert!(shown.ends_with("line 99"), "{shown}");
    }
}
