//! A private PostgreSQL server that may be killed, crashed and paused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::leash;
use crate::orphans::{processes_in, wait_for_orphans};
use crate::postgres_template::{Programs, copy_folder};
use crate::reserved_port::ReservedPort;
use crate::service::{ServerError, Service, cannot, is_stopped};
use crate::sql::{SqlError, SqlSession};

const PROGRAM: &str = "postgres";
/// What a single statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a question whether the server is there may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What PostgreSQL needs in order not to lose what it has committed, and to be small. Dynamic shared memory is kept in
/// files of the data folder, so that nothing is left in /dev/shm when the server is killed. Recovery syncs the file
/// system once instead of a thousand files one by one, which takes a tenth of the time.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 60
shared_buffers = '16MB'
dynamic_shared_memory_type = mmap
recovery_init_sync_method = syncfs
logging_collector = off
";

/// How to start a PostgreSQL server. Without further words it loses nothing that it has committed: `fsync = on`,
/// `synchronous_commit = on`.
#[derive(Clone, Debug, Default)]
pub struct PostgresBuilder {
    lines: Vec<String>,
}

impl PostgresBuilder {
    /// One more line of `postgresql.conf`, such as `fsync = off`. It wins against the defaults and earlier lines.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> PostgresBuilder {
        self.lines.push(line.into());
        self
    }

    /// Starts it on a free loopback port and waits until it answers a query.
    ///
    /// The very first start on a machine makes a data folder with `initdb`, in a second or two, and keeps it beside the
    /// program that runs this; every other start copies that.
    ///
    /// # Errors
    /// [`ServerError`] with the end of its log.
    pub fn start(self) -> Result<Postgres, ServerError> {
        let programs = Programs::find()?;
        let template = programs.template()?;
        let folder = programs.make_folder()?;
        // Its processes are found by the folder they work in, which the kernel knows without links.
        let root = folder.path().canonicalize().map_err(cannot("find the folder of PostgreSQL"))?;
        let data = root.join("data");
        copy_folder(&template, &data, programs.user()).map_err(cannot("copy a PostgreSQL data folder"))?;
        let port = ReservedPort::new().map_err(cannot("reserve a port for PostgreSQL"))?;
        let service = Service::new(PROGRAM, root.join("postgres.log"), leash::QUIT_OR_KILL);
        let mut server = Postgres { service, port, programs, data, _folder: folder };
        server.write_settings(&self.lines)?;
        server.start_again()?;
        Ok(server)
    }
}

/// A private PostgreSQL server with a data folder of its own, which trusts everybody on loopback. Dropped, it is ended
/// at once and its folder removed.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    port: ReservedPort,
    programs: Programs,
    data: PathBuf,
    _folder: TempDir,
}

impl Postgres {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// Starts one with the defaults.
    ///
    /// # Errors
    /// As [`PostgresBuilder::start`].
    pub fn start() -> Result<Postgres, ServerError> {
        Postgres::builder().start()
    }

    /// The URL of the database `postgres`, as the superuser `postgres`, without a password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of the database `name`.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        format!("postgres://postgres@{}/{name}", self.address())
    }

    /// Where it listens. The same after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of [`Postgres::address`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The folder of its Unix socket, which also holds `postgres.log` and the data folder `data`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.data.parent().unwrap_or(&self.data)
    }

    /// The process id of the postmaster, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.service.pid().and_then(|pid| u32::try_from(pid.as_raw_pid()).ok())
    }

    /// Makes a database, and gives its URL. `name` is of lower-case letters, digits and underscores.
    ///
    /// # Errors
    /// PostgreSQL refuses or does not answer.
    pub fn create_database(&self, name: &str) -> Result<String, SqlError> {
        self.session("postgres")?.query(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.url_of(name))
    }

    /// A new session with a time limit of 10 s per read or write.
    ///
    /// # Errors
    /// PostgreSQL refuses or does not answer.
    pub fn session(&self, database: &str) -> Result<SqlSession, SqlError> {
        SqlSession::connect(self.address(), database, STATEMENT_TIMEOUT)
    }

    /// SIGKILL to the postmaster. Its backends notice and end, some after finishing a statement, which is what happens
    /// in life; who still runs after 2 s, or stands still, is killed. Returns when all are gone, so that it can be
    /// started again.
    pub fn kill(&mut self) {
        self.service.kill();
        wait_for_orphans(&self.data);
    }

    /// SIGKILL to one backend, which makes the postmaster end all others and recover from a crash. All sessions are
    /// lost. Returns when it answers again.
    ///
    /// # Errors
    /// It is down, or has not recovered after 30 s.
    pub fn crash_backend(&mut self) -> Result<(), ServerError> {
        self.service.must_run("crash a backend")?;
        let mut victim = self.session("postgres")?;
        let before = checkpointer(&mut victim)?;
        if let Some(pid) = Pid::from_raw(victim.backend_pid()) {
            kill_process(pid, Signal::KILL).map_err(|error| cannot("kill a backend")(error.into()))?;
        }
        // The checkpointer is started once per recovery: another one has another number.
        let address = self.address();
        self.service.wait_until("recovery from the crash of a backend", || {
            let after = probe(address).and_then(|mut session| checkpointer(&mut session).ok().flatten());
            after.is_some() && after != before
        })
    }

    /// Fast shutdown: sessions are ended, what they did not commit is undone, and everything is written. Waits until
    /// it has ended, at most 30 s.
    ///
    /// # Errors
    /// [`ServerError::NotInTime`].
    pub fn terminate(&mut self) -> Result<(), ServerError> {
        self.end(Signal::INT)
    }

    /// Starts it again on the same folder and port, and waits until it has recovered and answers. If it still runs,
    /// it is terminated first.
    ///
    /// # Errors
    /// [`ServerError`] with the end of its log.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.terminate()?;
        self.start_again()
    }

    /// Pauses the postmaster and all backends with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    /// It is down.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        // IMPORTANT: the postmaster first, so that it starts no backend that would be overlooked.
        self.service.stop()?;
        let data = self.data.clone();
        self.service.wait_until("all backends standing still after SIGSTOP", || {
            let moving: Vec<_> = processes_in(&data).into_iter().filter(|pid| !is_stopped(*pid)).collect();
            for pid in &moving {
                kill_process(*pid, Signal::STOP).ok();
            }
            moving.is_empty()
        })
    }

    /// Lets all of it go on after [`Postgres::stop`].
    pub fn cont(&self) {
        for pid in processes_in(&self.data) {
            kill_process(pid, Signal::CONT).ok();
        }
    }

    fn end(&mut self, signal: Signal) -> Result<(), ServerError> {
        self.cont();
        self.service.end(signal)
    }

    fn start_again(&mut self) -> Result<(), ServerError> {
        let mut command = self.programs.command(PROGRAM);
        command.arg("-D").arg(&self.data);
        self.service.spawn(&mut command)?;
        let address = self.address();
        self.service.wait_until("an answer to a query", || probe(address).is_some())
    }

    fn write_settings(&self, lines: &[String]) -> Result<(), ServerError> {
        let file = self.data.join("postgresql.conf");
        let action = || format!("write {}", file.display());
        let mut settings = std::fs::read_to_string(&file).map_err(cannot(action()))?;
        settings.push_str(SETTINGS);
        let folder = self.folder().display();
        settings.push_str(&format!("port = {}\nunix_socket_directories = '{folder}'\n", self.port()));
        for line in lines {
            settings.push_str(line);
            settings.push('\n');
        }
        std::fs::write(&file, settings).map_err(cannot(action()))
    }

    /// Removes the System V shared memory of a server that was killed and not started again: the kernel would keep it
    /// for ever, and has room for a few thousand only.
    fn remove_shared_memory(&self) {
        let pid_file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        if let Some(id) = shared_memory_in(&pid_file) {
            Command::new("ipcrm").args(["-m", id]).output().ok();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown ends all at once, but in good order.
        if self.end(Signal::QUIT).is_err() {
            self.service.kill();
        }
        wait_for_orphans(&self.data);
        self.remove_shared_memory();
    }
}

fn probe(address: SocketAddr) -> Option<SqlSession> {
    let mut session = SqlSession::connect(address, "postgres", PROBE_TIMEOUT).ok()?;
    session.query("SELECT 1").ok()?;
    Some(session)
}

fn checkpointer(session: &mut SqlSession) -> Result<Option<String>, SqlError> {
    session.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
}

/// The segment's number: the second one in the seventh line of `postmaster.pid`.
fn shared_memory_in(pid_file: &str) -> Option<&str> {
    let id = pid_file.lines().nth(6)?.split_whitespace().nth(1)?;
    id.bytes().all(|byte| byte.is_ascii_digit()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_memory_is_found_in_the_pid_file() {
        let pid_file = "41\n/tmp/data\n1790000000\n20001\n/tmp\n127.0.0.1\n  1234567        98\nready\n";
        assert_eq!(shared_memory_in(pid_file), Some("98"));
        assert_eq!(shared_memory_in(""), None);
    }
}
