//! One `yoink` process: started in a process group of its own, ready when it says so, ended for certain.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::client::Client;
use crate::leash::{KILL, Leash};
use crate::memory::resident_bytes;

/// Lines that the reader of the output may be ahead; more than any start-up writes.
const ADDRESSES_WAITING_MAX: usize = 16;
const POLL_EVERY: Duration = Duration::from_millis(2);

/// Why a process did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The binary, its folder or its leash could not be set up.
    #[error("cannot start {}", binary.display())]
    Spawn {
        /// The binary.
        binary: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process ended instead of becoming ready.
    #[error("yoink ended with {status} instead of becoming ready; it wrote:\n{output}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to both outputs.
        output: String,
    },
    /// The process is there but does not become ready. It was killed.
    #[error("yoink was not ready after {waited_ms} ms; it wrote:\n{output}")]
    NotReady {
        /// How long was waited.
        waited_ms: u128,
        /// What it wrote to both outputs.
        output: String,
    },
}

/// How to start `yoink`. Everything has a default, so whatever a test sets matters to it.
#[derive(Debug)]
pub struct Yoink {
    binary: PathBuf,
    data: Option<PathBuf>,
    has_data: bool,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    admin_key: Option<String>,
    ready_within: Duration,
    open_files_max: Option<u32>,
}

impl Yoink {
    /// `binary` is the path of the executable; in an integration test `env!("CARGO_BIN_EXE_yoink")`.
    ///
    /// Without further words: `serve --dev` on a free loopback port, on a data folder of its own that is removed at
    /// the end, with [`crate::ADMIN_KEY`] as the admin key.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Yoink {
        Yoink {
            binary: binary.into(),
            data: None,
            has_data: true,
            args: vec!["serve".into(), "--dev".into()],
            envs: Vec::new(),
            admin_key: Some(crate::ADMIN_KEY.to_owned()),
            ready_within: Duration::from_secs(30),
            open_files_max: None,
        }
    }

    /// Uses this data folder and leaves it where it is.
    #[must_use]
    pub fn data(mut self, folder: impl Into<PathBuf>) -> Yoink {
        self.data = Some(folder.into());
        self
    }

    /// Gives it no `--data`, for commands that keep nothing.
    #[must_use]
    pub fn without_data(mut self) -> Yoink {
        self.has_data = false;
        self
    }

    /// The arguments instead of `serve --dev`; `--listen` and `--data` are added.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Yoink {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Yoink {
        self.args.push(arg.into());
        self
    }

    /// One environment variable more. Variables that start with `YOINK_` are not inherited from the test's own.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Yoink {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Starts without `YOINK_ADMIN_KEY`, so that the process makes or finds its own key.
    #[must_use]
    pub fn without_admin_key(mut self) -> Yoink {
        self.admin_key = None;
        self
    }

    /// How long the start may take.
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Yoink {
        self.ready_within = limit;
        self
    }

    /// How many files and connections the process may have open, as if an operator had said `ulimit -n`.
    #[must_use]
    pub fn open_files_max(mut self, count: u32) -> Yoink {
        self.open_files_max = Some(count);
        self
    }

    /// Starts the process and waits until it says where it listens and `/readyz` answers 200.
    ///
    /// # Errors
    /// [`StartError`] with everything that the process wrote.
    pub fn start(self) -> Result<YoinkProcess, StartError> {
        let mut process = self.spawn()?;
        process.wait_ready(self.ready_within)?;
        Ok(process)
    }

    /// Starts the process and does not wait for anything.
    ///
    /// # Errors
    /// [`StartError::Spawn`] only.
    pub fn spawn(&self) -> Result<YoinkProcess, StartError> {
        let spawn_error = |source| StartError::Spawn { binary: self.binary.clone(), source };
        let own_folder = match self.data {
            None => Some(TempDir::new().map_err(spawn_error)?),
            Some(_) => None,
        };
        let data = match (&self.data, &own_folder) {
            (Some(data), _) => data.clone(),
            (None, Some(folder)) => folder.path().join("data"),
            (None, None) => PathBuf::new(),
        };
        let mut child = self.command(&data).spawn().map_err(spawn_error)?;
        let leash = Leash::on(child.id(), KILL).map_err(|source| {
            child.kill().ok();
            spawn_error(source)
        })?;
        let (sender, addresses) = sync_channel(ADDRESSES_WAITING_MAX);
        let output = Arc::new(Mutex::new(String::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(read_lines(stdout, Arc::clone(&output), Some(sender)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(read_lines(stderr, Arc::clone(&output), None));
        }
        Ok(YoinkProcess {
            child,
            leash,
            readers,
            output,
            addresses,
            address: None,
            admin_key: self.admin_key.clone(),
            data,
            status: None,
            ready_after: Duration::ZERO,
            _own_folder: own_folder,
        })
    }

    fn program(&self) -> Command {
        let Some(count) = self.open_files_max else {
            return Command::new(&self.binary);
        };
        // The shell becomes the program, so it stays one process.
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("ulimit -n {count} && exec \"$0\" \"$@\"")).arg(&self.binary);
        command
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = self.program();
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("YOINK_"))
        {
            command.env_remove(name);
        }
        command.args(&self.args);
        command.args(if self.has_data { vec![OsStr::new("--data"), data.as_os_str()] } else { Vec::new() });
        if !self.args.iter().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if let Some(key) = &self.admin_key {
            command.env("YOINK_ADMIN_KEY", key);
        }
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }
}

/// A running `yoink`. Dropped, it is killed together with whatever it started.
#[derive(Debug)]
pub struct YoinkProcess {
    child: Child,
    leash: Leash,
    readers: Vec<thread::JoinHandle<()>>,
    output: Arc<Mutex<String>>,
    addresses: Receiver<SocketAddr>,
    address: Option<SocketAddr>,
    admin_key: Option<String>,
    data: PathBuf,
    status: Option<ExitStatus>,
    ready_after: Duration,
    _own_folder: Option<TempDir>,
}

impl YoinkProcess {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens. Port 0 before it has said so.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The admin key: the one given, or the one that the process wrote into its data folder. Empty if there is none.
    #[must_use]
    pub fn admin_key(&self) -> String {
        let from_file = || std::fs::read_to_string(self.data.join("admin.key")).unwrap_or_default();
        self.admin_key.clone().unwrap_or_else(|| from_file().trim().to_owned())
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// How long the start took until `/readyz` answered 200.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// A new connection to it, with the admin key.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address()).with_key(self.admin_key())
    }

    /// A new connection to it, without a key.
    #[must_use]
    pub fn anonymous_client(&self) -> Client {
        Client::new(self.address())
    }

    /// What it has written so far, both outputs in the order in which they arrived.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |output| output.clone())
    }

    /// Waits until it has written `text`, and gives all that it has written; after `limit` also without.
    #[must_use]
    pub fn output_with(&self, text: &str, limit: Duration) -> String {
        let until = Instant::now() + limit;
        loop {
            let output = self.output();
            if output.contains(text) || Instant::now() >= until {
                return output;
            }
            thread::sleep(POLL_EVERY);
        }
    }

    /// Kills the process and all that it started with SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        if self.status.is_none() {
            if let Some(group) = pid_of(&self.child) {
                kill_process_group(group, Signal::KILL).ok();
            }
            self.status = self.child.wait().ok();
        }
        self.leash.release();
        self.join_readers();
    }

    /// Asks the process to end with SIGTERM and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends the process SIGINT, as Ctrl-C does, and does not wait.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Stops the process where it is, until [`YoinkProcess::thaw`]: no thread of it runs, no clock stops for it.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a stopped process go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Bytes of memory that the process has, or `None` if it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(self.pid())
    }

    fn signal(&self, signal: Signal) {
        if let (None, Some(pid)) = (self.status, pid_of(&self.child)) {
            kill_process(pid, signal).ok();
        }
    }

    /// As [`YoinkProcess::wait_ready`], but waits only until it says where it listens.
    ///
    /// # Errors
    /// [`StartError`] with everything that the process wrote.
    pub fn wait_listening(&mut self, limit: Duration) -> Result<SocketAddr, StartError> {
        self.wait_until(limit, |process| process.heard_address().is_some())?;
        Ok(self.address())
    }

    /// Waits until the process says where it listens and `/readyz` answers 200. Kills it if that takes longer than
    /// `limit`.
    ///
    /// # Errors
    /// [`StartError`] with everything that the process wrote.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), StartError> {
        let begun = Instant::now();
        self.wait_until(limit, Self::is_ready)?;
        self.ready_after = begun.elapsed();
        Ok(())
    }

    fn wait_until(&mut self, limit: Duration, is_so: fn(&mut Self) -> bool) -> Result<(), StartError> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.exit_status() {
                self.join_readers();
                return Err(StartError::Ended { status, output: self.output() });
            }
            if is_so(self) {
                return Ok(());
            }
        }
        self.kill9();
        Err(StartError::NotReady { waited_ms: limit.as_millis(), output: self.output() })
    }

    /// How the process ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
            if self.status.is_some() {
                self.leash.release();
            }
        }
        self.status
    }

    /// Waits until the process has ended. `None` if it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                self.join_readers();
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(POLL_EVERY);
        }
    }

    /// Where it listens, once it has said so; waits up to one poll for it.
    fn heard_address(&mut self) -> Option<SocketAddr> {
        if self.address.is_none() {
            match self.addresses.recv_timeout(POLL_EVERY) {
                Ok(address) => self.address = Some(address),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL_EVERY),
            }
        }
        self.address
    }

    /// Waits up to one poll for the address, then asks `/readyz`.
    fn is_ready(&mut self) -> bool {
        let Some(address) = self.heard_address() else { return false };
        let answer = Client::new(address).with_timeout(Duration::from_secs(2)).get("/readyz");
        let is_ready = answer.is_ok_and(|answer| answer.status == 200);
        if !is_ready {
            thread::sleep(POLL_EVERY);
        }
        is_ready
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().ok();
        }
    }
}

impl Drop for YoinkProcess {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// How a process ended, in words: the exit code or the signal.
#[must_use]
pub fn ended_by(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown cause".to_owned(),
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Collects what the process writes and hands on the first address of each line that names one.
fn read_lines(
    pipe: impl Read + Send + 'static,
    output: Arc<Mutex<String>>,
    addresses: Option<std::sync::mpsc::SyncSender<SocketAddr>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if let (Some(addresses), Some(address)) = (&addresses, address_in(&text)) {
                // Nobody waits for a second address; a full channel only means that.
                addresses.try_send(address).ok();
            }
            if let Ok(mut output) = output.lock() {
                output.push_str(&text);
            }
            line.clear();
        }
    })
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':' | '[' | ']')))
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_line_for_people() {
        let address = address_in("  listening on  http://127.0.0.1:3000  (local only)\n");
        assert_eq!(address, Some(SocketAddr::from(([127, 0, 0, 1], 3000))));
        assert_eq!(address_in("  curl http://127.0.0.1:81/v1"), Some(SocketAddr::from(([127, 0, 0, 1], 81))));
        assert_eq!(address_in("see https://example.org"), None);
    }

    #[test]
    fn a_process_that_ends_at_once_is_reported_with_its_words() {
        let error = Yoink::new("/bin/sh").args(["-c", "echo no such luck >&2; exit 3"]).start().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StartError::Ended { status, .. } if status.code() == Some(3)), "{text}");
        assert!(text.contains("no such luck"), "{text}");
    }

    #[test]
    fn a_process_that_never_becomes_ready_is_killed() {
        let yoink =
            Yoink::new("/bin/sh").args(["-c", "exec sleep 60"]).ready_within(Duration::from_millis(50));
        assert!(matches!(yoink.start().unwrap_err(), StartError::NotReady { .. }));
    }

    #[test]
    fn dropping_the_handle_ends_the_process_and_its_children() {
        let process = Yoink::new("/bin/sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let group = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).unwrap();
        drop(process);
        // Children of the killed shell are reaped by somebody else a moment later, so ask until the group is empty.
        let until = Instant::now() + Duration::from_secs(10);
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < until, "the process group is still there");
            thread::sleep(POLL_EVERY);
        }
    }

    #[test]
    fn a_process_may_open_as_many_files_as_it_is_allowed_and_has_some_memory() {
        // It stops where it is: a shell that became another program would have no memory for an instant.
        let shell = Yoink::new("/bin/sh").args(["-c", "ulimit -n; kill -STOP $$"]).open_files_max(77);
        let mut process = shell.spawn().unwrap();
        assert_eq!(process.output_with("77", Duration::from_secs(10)), "77\n");
        assert!(process.resident_bytes().unwrap() > 10_000);
        process.kill9();
        assert_eq!(process.resident_bytes(), None);
    }

    #[test]
    fn a_frozen_process_does_nothing_until_it_is_thawed() {
        let state = |process: &YoinkProcess| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
            stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
        };
        let until_state = |process: &YoinkProcess, wanted: fn(char) -> bool| {
            let until = Instant::now() + Duration::from_secs(10);
            while !wanted(state(process)) {
                assert!(Instant::now() < until, "its state is {}", state(process));
                thread::sleep(POLL_EVERY);
            }
        };
        let process = Yoink::new("/bin/sh").args(["-c", "exec sleep 60"]).spawn().unwrap();
        process.freeze();
        until_state(&process, |state| state == 'T');
        process.thaw();
        until_state(&process, |state| state != 'T');
    }

    #[test]
    fn a_process_that_was_asked_to_end_says_how() {
        let mut process = Yoink::new("/bin/sh").args(["-c", "exec sleep 60"]).spawn().unwrap();
        process.terminate();
        let status = process.wait_exit(Duration::from_secs(10)).unwrap();
        assert_eq!(ended_by(status), "signal 15");
    }
}
