//! Where the programs of RabbitMQ are, and with which words and variables they run privately.
//!
//! Erlang nodes usually find each other through a daemon, epmd, which the first of them starts and nobody ends. These
//! do without: each node is told its own port, and whoever talks to it is told the same.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::service::{ServerError, cannot};

/// Debian's programs. Those of the same names in PATH insist on being run by root or by the user `rabbitmq`.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
const SERVER: &str = "rabbitmq-server";
pub(crate) const CTL: &str = "rabbitmqctl";
const ERL_CALL: &str = "erl_call";
/// Only the owner may read the cookie: Erlang insists.
const COOKIE_MODE: u32 = 0o400;
/// A list of Erlang with nothing in it, where nothing more is to be set.
const NOTHING: &str = "[].\n";
/// The one library whose name begins as those of the plugins do, and which is none.
const NO_PLUGIN: &str = "rabbitmq_prelaunch";
/// Small tables instead of ones for a million processes, and no thread that spins while it waits for work.
const EMULATOR: &str = "+P 65536 +t 1048576 +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";
/// What one question may take, in seconds.
const CALL_TIMEOUT: &str = "30";

/// One node: its folder, its name, its secret, and the ports it is told.
#[derive(Debug)]
pub(crate) struct Node {
    folder: PathBuf,
    name: String,
    cookie: String,
    distribution_port: u16,
}

impl Node {
    /// Prepares a node in `folder`, which must be empty, have no links in its path, and end in a name of its own.
    pub(crate) fn prepare(folder: PathBuf, distribution_port: u16) -> Result<Node, ServerError> {
        let random = RandomState::new().build_hasher().finish();
        let own_name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let node = Node {
            folder,
            name: format!("{own_name}@localhost"),
            cookie: format!("yoink{random:016x}"),
            distribution_port,
        };
        let server = Path::new(PROGRAMS).join(SERVER).canonicalize();
        let server = server.map_err(|_| ServerError::NotInstalled { program: SERVER })?;
        node.write_files().map_err(cannot("prepare a folder for RabbitMQ"))?;
        node.link_libraries(&server).map_err(cannot("find the libraries of RabbitMQ"))?;
        Ok(node)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn write_files(&self) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut cookie = options
            .write(true)
            .create_new(true)
            .mode(COOKIE_MODE)
            .open(self.folder.join(".erlang.cookie"))?;
        cookie.write_all(self.cookie.as_bytes())?;
        std::fs::write(self.folder.join("enabled_plugins"), NOTHING)?;
        std::fs::write(self.folder.join("advanced.config"), NOTHING)?;
        // Stands for /etc/rabbitmq/conf.d, and stays empty.
        std::fs::create_dir(self.folder.join("conf.d"))?;
        std::fs::create_dir(self.folder.join("mnesia"))
    }

    /// Makes a home for the server that links to its libraries and leaves out its plugins. None is used, and looking
    /// through all of them takes half of the time of a start.
    fn link_libraries(&self, server: &Path) -> io::Result<()> {
        let scripts = server.parent().ok_or(io::ErrorKind::NotFound)?;
        let defaults = "rabbitmq-defaults";
        std::fs::create_dir_all(self.scripts())?;
        symlink(scripts.join(defaults), self.scripts().join(defaults))?;
        let libraries = self.folder.join("home/plugins");
        std::fs::create_dir(&libraries)?;
        for entry in std::fs::read_dir(scripts.with_file_name("plugins"))? {
            let entry = entry?;
            let name = entry.file_name();
            let is_plugin = name.to_string_lossy().starts_with("rabbitmq_");
            if !is_plugin || name.to_string_lossy().starts_with(NO_PLUGIN) {
                symlink(entry.path(), libraries.join(name))?;
            }
        }
        Ok(())
    }

    fn scripts(&self) -> PathBuf {
        self.folder.join("home/sbin")
    }

    /// The server, to listen on `port`. It writes its log to standard output.
    pub(crate) fn server(&self, port: u16) -> Command {
        let mut command = self.command(SERVER);
        let distribution = format!("-sname {} -kernel inet_dist_use_interface {{127,0,0,1}}", self.name);
        command
            .current_dir(&self.folder)
            // Makes the script become the server, instead of waiting for it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_SCRIPTS_DIR", self.scripts())
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq"))
            .env("RABBITMQ_CONFIG_FILES", self.folder.join("conf.d"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", self.folder.join("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", &self.folder)
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_SERVER_ERL_ARGS", EMULATOR)
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", distribution)
            .env("ERL_CRASH_DUMP_SECONDS", "0");
        command
    }

    /// Runs `rabbitmqctl`, and gives what it wrote to standard output.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Result<String, ServerError> {
        let mut command = self.command(CTL);
        command
            .current_dir("/")
            .env("RABBITMQ_CTL_ERL_ARGS", "+S 1:1 +sbwt none -dist_listen false")
            .args(["--node", &self.name])
            .args(arguments);
        let output = command.output().map_err(|source| not_run(CTL, source))?;
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = [output.stdout, output.stderr].concat();
        Err(ServerError::Helper { program: CTL, status: output.status, output: text(&said) })
    }

    /// Has the node evaluate Erlang expressions, separated by commas, and gives the last one's value as Erlang writes
    /// it. Takes milliseconds, where `rabbitmqctl` starts an Erlang system of its own first.
    pub(crate) fn eval(&self, expressions: &str) -> Result<String, ServerError> {
        let mut command = Command::new(ERL_CALL);
        command
            .args(["-R", "-timeout", CALL_TIMEOUT, "-c", &self.cookie, "-e", "-address"])
            .arg(format!("127.0.0.1:{}", self.distribution_port));
        let output =
            tell(&mut command, &format!("{expressions}.\n")).map_err(|source| not_run(ERL_CALL, source))?;
        let answer = text(&output.stdout);
        // It writes `{ok, VALUE}` or `{error, WHY}`.
        let value = answer.trim().strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}'));
        value.map(str::to_owned).ok_or_else(|| ServerError::Rabbit {
            asked: expressions.to_owned(),
            answer: text(&[answer.as_bytes(), &output.stderr].concat()),
        })
    }

    /// The program `name` of RabbitMQ, without variables and files of the machine that would change what it does.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            // IMPORTANT: not as words of the command, because both programs also start an Erlang system with no other
            // purpose than to start epmd, and that must not do so either.
            .env("ERL_AFLAGS", format!("-start_epmd false -erl_epmd_port {}", self.distribution_port))
            // Should anything start it nevertheless, then it finds its port taken, and ends.
            .env("ERL_EPMD_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", &self.name);
        command
    }
}

/// Runs `command` with `words` as its standard input.
fn tell(command: &mut Command, words: &str) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // Who does not listen to the end says why not.
        input.write_all(words.as_bytes()).ok();
    }
    child.wait_with_output()
}

fn not_run(program: &'static str, source: io::Error) -> ServerError {
    match source.kind() {
        io::ErrorKind::NotFound => ServerError::NotInstalled { program },
        _ => ServerError::System { action: format!("run {program}"), source },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
