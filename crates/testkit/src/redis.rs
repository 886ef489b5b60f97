//! A private Redis server that may be killed, paused, robbed of its last writes and replaced by a replica.

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use tempfile::TempDir;

use crate::leash;
use crate::reserved_port::ReservedPort;
use crate::resp::{RedisClient, RedisError, Reply};
use crate::service::{ServerError, Service, cannot};

const PROGRAM: &str = "redis-server";
/// What a single command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// What a question whether the server is there may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What Redis needs in order not to lose what it has acknowledged, and to start quickly.
const SETTINGS: &str = "\
bind 127.0.0.1
daemonize no
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
save \"\"
maxmemory-policy noeviction
repl-diskless-sync-delay 0
";

/// How to start a Redis server. Without further words it loses nothing that it has acknowledged: `appendonly yes`,
/// `appendfsync always`, `save ""`, `maxmemory-policy noeviction`.
#[derive(Clone, Debug, Default)]
pub struct RedisBuilder {
    lines: Vec<String>,
    primary: Option<SocketAddr>,
    is_in_cluster: bool,
}

impl RedisBuilder {
    /// One more line of `redis.conf`, such as `maxmemory 10mb`. It wins against the defaults and earlier lines.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> RedisBuilder {
        self.lines.push(line.into());
        self
    }

    /// Makes it a replica of the server at `primary`, which may be a [`crate::Proxy`] in front of one.
    #[must_use]
    pub fn replica_of(mut self, primary: SocketAddr) -> RedisBuilder {
        self.primary = Some(primary);
        self
    }

    /// Makes it a node of a cluster that does not know any other yet.
    #[must_use]
    pub(crate) fn in_cluster(mut self) -> RedisBuilder {
        self.is_in_cluster = true;
        self
    }

    /// Starts it on a free loopback port and waits until it answers PING. A replica may not be in sync by then:
    /// [`RedisServer::wait_in_sync`].
    ///
    /// # Errors
    /// [`ServerError`] with the end of its log.
    pub fn start(self) -> Result<RedisServer, ServerError> {
        let reserve = || ReservedPort::new().map_err(cannot("reserve a port for Redis"));
        let folder = TempDir::with_prefix("yoink-redis-").map_err(cannot("make a folder for Redis"))?;
        let service = Service::new(PROGRAM, folder.path().join("redis.log"), leash::KILL);
        let bus_port = if self.is_in_cluster { Some(reserve()?) } else { None };
        let mut server = RedisServer {
            service,
            port: reserve()?,
            bus_port,
            lines: self.lines,
            primary: self.primary,
            folder,
        };
        server.start_again()?;
        Ok(server)
    }
}

/// A private Redis server with a data folder of its own. Dropped, it is killed and its folder removed.
#[derive(Debug)]
pub struct RedisServer {
    service: Service,
    port: ReservedPort,
    bus_port: Option<ReservedPort>,
    lines: Vec<String>,
    primary: Option<SocketAddr>,
    folder: TempDir,
}

impl RedisServer {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Starts one with the defaults.
    ///
    /// # Errors
    /// As [`RedisBuilder::start`].
    pub fn start() -> Result<RedisServer, ServerError> {
        RedisServer::builder().start()
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where it listens. The same after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of [`RedisServer::address`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The port on which it talks to other nodes, if it is in a cluster.
    pub(crate) fn bus_port(&self) -> Option<u16> {
        self.bus_port.as_ref().map(ReservedPort::port)
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.service.pid().and_then(|pid| u32::try_from(pid.as_raw_pid()).ok())
    }

    /// Its data folder, which also holds `redis.conf` and `redis.log`.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A new connection with a time limit of 10 s per read or write.
    ///
    /// # Errors
    /// No connection.
    pub fn client(&self) -> Result<RedisClient, RedisError> {
        RedisClient::connect(self.address(), COMMAND_TIMEOUT)
    }

    /// Sends one command on a connection of its own.
    ///
    /// # Errors
    /// Redis refuses, or there is no answer.
    pub fn command<P: AsRef<[u8]>>(&self, parts: &[P]) -> Result<Reply, RedisError> {
        self.client()?.command(parts)
    }

    /// A field of `INFO`, for example `run_id` or `master_link_status`. `None` if there is no such field.
    ///
    /// # Errors
    /// As [`RedisServer::command`].
    pub fn info(&self, field: &str) -> Result<Option<String>, RedisError> {
        Ok(field_of(&self.command(&["INFO", "everything"])?, field))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// SIGTERM, and waits until it has ended by itself, at most 30 s.
    ///
    /// # Errors
    /// [`ServerError::NotInTime`].
    pub fn terminate(&mut self) -> Result<(), ServerError> {
        self.service.end(Signal::TERM)
    }

    /// Starts it again on the same folder and port, and waits until it has loaded its data. If it still runs, it is
    /// ended first with SIGTERM.
    ///
    /// # Errors
    /// [`ServerError`] with the end of its log.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.terminate()?;
        self.start_again()
    }

    /// Pauses it with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    /// It is down.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        self.service.stop()
    }

    /// Lets it go on after [`RedisServer::stop`].
    pub fn cont(&self) {
        self.service.signal(Signal::CONT);
    }

    /// From now on none of its files can grow beyond `bytes` bytes: the append-only file meets there what it meets on a
    /// full disk, a write that is cut short. Holds until the process ends.
    ///
    /// # Errors
    /// It is down, or the operating system refuses.
    pub fn limit_files(&self, bytes: u64) -> Result<(), ServerError> {
        let pid = self.service.must_run("limit its files")?;
        let limit = Rlimit { current: Some(bytes), maximum: None };
        let limited = prlimit(Some(pid), Resource::Fsize, limit);
        limited.map(drop).map_err(|error| cannot("limit the files of Redis")(error.into()))
    }

    /// Waits until it has ended by itself, at most 60 s.
    ///
    /// # Errors
    /// [`ServerError::NotInTime`].
    pub fn wait_ended(&mut self) -> Result<(), ServerError> {
        self.service.wait_ended()
    }

    /// Cuts `bytes` bytes off the end of the append-only file, and gives the length of what remains.
    ///
    /// # Errors
    /// The server runs, or the file is shorter than that.
    pub fn truncate_aof(&mut self, bytes: u64) -> Result<u64, ServerError> {
        self.service.must_be_down("truncate its append-only file")?;
        let file = self.aof().map_err(cannot("find the append-only file of Redis"))?;
        let truncate = || {
            let opened = OpenOptions::new().write(true).open(&file)?;
            let length = opened.metadata()?.len().checked_sub(bytes).ok_or(io::ErrorKind::InvalidInput)?;
            opened.set_len(length)?;
            Ok(length)
        };
        truncate().map_err(cannot(format!("cut {bytes} bytes off {}", file.display())))
    }

    /// The part of the append-only file that is being written: the incremental one with the highest number.
    ///
    /// # Errors
    /// There is none.
    pub fn aof(&self) -> io::Result<PathBuf> {
        let mut newest = None;
        for entry in std::fs::read_dir(self.folder.path().join("appendonlydir"))? {
            let path = entry?.path();
            newest = newest.max(part_number(&path.to_string_lossy()).map(|number| (number, path)));
        }
        newest.map(|(_, path)| path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Waits until this replica has copied its primary's data, has them in a log of its own, and follows its writes.
    /// What was written since may still be under way; `WAIT` on the primary tells.
    ///
    /// Redis rewrites its log after it has copied a primary, and until that is done it acknowledges writes that are in
    /// no file: a replica that is promoted and killed earlier comes back without them.
    ///
    /// # Errors
    /// It ends, or is not in sync after 30 s.
    pub fn wait_in_sync(&mut self) -> Result<(), ServerError> {
        let address = self.address();
        self.service.wait_until("being in sync with its primary", || {
            let Some(info) = probe(address, &["INFO", "everything"]) else { return false };
            let says = |field, value| field_of(&info, field).as_deref() == Some(value);
            says("master_link_status", "up")
                && says("aof_rewrite_in_progress", "0")
                && says("aof_rewrite_scheduled", "0")
        })
    }

    /// Makes this replica a primary, for good: also after a restart.
    ///
    /// # Errors
    /// It does not answer.
    pub fn promote(&mut self) -> Result<(), ServerError> {
        self.command(&["REPLICAOF", "NO", "ONE"])?;
        self.primary = None;
        Ok(())
    }

    /// Waits until `is_so`, asking for as long as the server runs.
    pub(crate) fn wait_until(
        &mut self,
        awaited: &'static str,
        is_so: impl Fn(SocketAddr) -> bool,
    ) -> Result<(), ServerError> {
        let address = self.address();
        self.service.wait_until(awaited, || is_so(address))
    }

    fn start_again(&mut self) -> Result<(), ServerError> {
        let config = self.folder.path().join("redis.conf");
        std::fs::write(&config, self.settings()).map_err(cannot("write redis.conf"))?;
        self.service.spawn(Command::new(PROGRAM).arg(config).current_dir(self.folder.path()))?;
        self.wait_until("an answer to PING", |address| probe(address, &["PING"]).is_some())
    }

    fn settings(&self) -> String {
        let mut settings = format!("port {}\ndir \"{}\"\n", self.port(), self.folder.path().display());
        settings.push_str(SETTINGS);
        if let Some(bus_port) = self.bus_port() {
            settings.push_str(&format!("cluster-enabled yes\ncluster-port {bus_port}\n"));
        }
        if let Some(primary) = self.primary {
            settings.push_str(&format!("replicaof {} {}\n", primary.ip(), primary.port()));
        }
        for line in &self.lines {
            settings.push_str(line);
            settings.push('\n');
        }
        settings
    }
}

/// The answer to a command, if there is a good one soon.
pub(crate) fn probe(address: SocketAddr, parts: &[&str]) -> Option<Reply> {
    RedisClient::connect(address, PROBE_TIMEOUT).ok()?.command(parts).ok()
}

/// A field of an answer of lines `field:value`.
pub(crate) fn field_of(reply: &Reply, field: &str) -> Option<String> {
    let text = reply.text()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned())
}

/// The number N of `….N.incr.aof`.
fn part_number(path: &str) -> Option<u64> {
    path.strip_suffix(".incr.aof")?.rsplit('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_incremental_parts_have_a_number() {
        assert_eq!(part_number("appendonlydir/appendonly.aof.12.incr.aof"), Some(12));
        assert_eq!(part_number("appendonlydir/appendonly.aof.1.base.rdb"), None);
        assert_eq!(part_number("appendonlydir/appendonly.aof.manifest"), None);
    }
}
