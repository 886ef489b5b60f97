//! The shop of a drill: one Redis, one PostgreSQL, nodes and workers, and the proxies between them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use yoink_testkit::{
    ADMIN_KEY, Client, Postgres, Proxy, RedisServer, Reply, Rows, SqlSession, StartError, Yoink,
    YoinkProcess, ended_by,
};

/// Nodes that serve buyers.
pub(super) const NODES: usize = 2;
/// Processes that carry orders to the ledger.
pub(super) const WORKERS: usize = 2;
/// Entries of a silent worker are taken over after this long.
pub(super) const CLAIM_AFTER: Duration = Duration::from_millis(400);
/// How long a process may take to start while servers come and go.
const START_WITHIN: Duration = Duration::from_secs(30);
const DATABASE: &str = "postgres";

/// A process of ours: which, and whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `yoink serve`.
    Node(usize),
    /// `yoink worker`.
    Worker(usize),
}

/// Everything that runs.
pub(super) struct Stage {
    binary: PathBuf,
    folder: PathBuf,
    pub(super) postgres: Postgres,
    pub(super) redis: RedisServer,
    /// From buyers to each node.
    pub(super) to_nodes: Vec<Proxy>,
    pub(super) nodes_to_redis: Proxy,
    pub(super) workers_to_redis: Proxy,
    pub(super) workers_to_postgres: Proxy,
    nodes: Vec<Option<YoinkProcess>>,
    workers: Vec<Option<YoinkProcess>>,
}

impl Stage {
    /// Starts everything, with records and logs in `folder`.
    pub(super) fn open(binary: &Path, folder: &Path) -> Result<Stage> {
        let (postgres, redis) = (Postgres::start()?, RedisServer::start()?);
        let migrated = Command::new(binary)
            .args(["migrate", "--postgres", &postgres.url()])
            .output()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        ensure!(
            migrated.status.success(),
            "yoink migrate ended with {}: {}",
            ended_by(migrated.status),
            String::from_utf8_lossy(&migrated.stderr)
        );
        let to_redis = redis.address();
        // A node says where it listens when it has started.
        let to_nodes = (0..NODES).map(|_| Proxy::start(to_redis)).collect::<Result<_, _>>()?;
        let mut stage = Stage {
            binary: binary.to_path_buf(),
            folder: folder.to_path_buf(),
            to_nodes,
            nodes_to_redis: Proxy::start(to_redis)?,
            workers_to_redis: Proxy::start(to_redis)?,
            workers_to_postgres: Proxy::start(postgres.address())?,
            postgres,
            redis,
            nodes: (0..NODES).map(|_| None).collect(),
            workers: (0..WORKERS).map(|_| None).collect(),
        };
        stage.roles().into_iter().try_for_each(|role| stage.start(role, None))?;
        Ok(stage)
    }

    /// Where buyers connect, whatever becomes of the nodes.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.to_nodes.iter().map(Proxy::address).collect()
    }

    /// A client of a node.
    pub(super) fn client(&self, node: usize) -> Result<Client> {
        let proxy = self.to_nodes.get(node).context("there is no such node")?;
        Ok(Client::new(proxy.address()).with_key(ADMIN_KEY))
    }

    /// Every process there should be.
    pub(super) fn roles(&self) -> Vec<Role> {
        (0..WORKERS).map(Role::Worker).chain((0..NODES).map(Role::Node)).collect()
    }

    fn place(&mut self, role: Role) -> Result<&mut Option<YoinkProcess>> {
        let place = match role {
            Role::Node(index) => self.nodes.get_mut(index),
            Role::Worker(index) => self.workers.get_mut(index),
        };
        place.context("there is no such process")
    }

    /// The process, which must run.
    pub(super) fn process(&mut self, role: Role) -> Result<&mut YoinkProcess> {
        self.place(role)?.as_mut().with_context(|| format!("{role:?} does not run"))
    }

    fn command(&self, role: Role, failpoint: Option<&str>) -> Yoink {
        let yoink = Yoink::new(&self.binary)
            .env("YOINK_LOG", "warn")
            .env("YOINK_REDIS_CLAIM_AFTER_MS", CLAIM_AFTER.as_millis().to_string());
        let yoink = match failpoint {
            Some(failpoint) => yoink.env("YOINK_FAILPOINT", failpoint),
            None => yoink,
        };
        let url = |proxy: &Proxy| format!("redis://{}", proxy.address());
        match role {
            Role::Node(_) => yoink
                .args(["serve", "--dev", "--engine", "redis", "--workers", "0"])
                .arg("--redis")
                .arg(url(&self.nodes_to_redis))
                .arg("--postgres")
                .arg(self.postgres.url()),
            Role::Worker(_) => yoink
                .args(["worker"])
                .without_data()
                .arg("--redis")
                .arg(url(&self.workers_to_redis))
                .arg("--postgres")
                .arg(format!("postgres://postgres@{}/{DATABASE}", self.workers_to_postgres.address())),
        }
    }

    /// Starts a process until it stays: while servers are down it may end at once. `failpoint` is where it kills itself.
    pub(super) fn start(&mut self, role: Role, failpoint: Option<&str>) -> Result<()> {
        let until = Instant::now() + START_WITHIN;
        let command = self.command(role, failpoint);
        loop {
            let mut process = command.spawn()?;
            match process.wait_listening(START_WITHIN) {
                Ok(address) => {
                    if let Role::Node(index) = role
                        && let Some(proxy) = self.to_nodes.get(index)
                    {
                        proxy.retarget(address);
                    }
                    *self.place(role)? = Some(process);
                    return Ok(());
                }
                Err(StartError::Ended { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error).with_context(|| format!("{role:?} does not start")),
            }
        }
    }

    /// kill -9, and keeps what it wrote. It may have ended before, by a failpoint only.
    pub(super) fn kill(&mut self, role: Role) -> Result<()> {
        if let Some(mut process) = self.place(role)?.take() {
            process.kill9();
            self.keep_output(role, &process.output())?;
        }
        Ok(())
    }

    /// Processes that ended although nobody killed them, and what they wrote.
    pub(super) fn ended_by_themselves(&mut self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        for role in self.roles() {
            let ended = self
                .place(role)?
                .as_mut()
                .and_then(|process| Some((process.exit_status()?, process.output())));
            if let Some((status, output)) = ended {
                findings
                    .push(format!("{role:?} ended by itself with {}; it wrote:\n{output}", ended_by(status)));
            }
        }
        Ok(findings)
    }

    /// Writes the output of all processes into the folder of the drill.
    pub(super) fn keep_outputs(&mut self) -> Result<()> {
        for role in self.roles() {
            if let Some(output) = self.place(role)?.as_ref().map(YoinkProcess::output) {
                self.keep_output(role, &output)?;
            }
        }
        Ok(())
    }

    /// Writes what the ledger and Redis have into the folder of the drill, but for orders, for whoever looks for the
    /// cause of a finding.
    pub(super) fn keep_state(&self) -> Result<()> {
        let mut text = String::new();
        for table in
            ["products", "allocations", "adjustments WHERE NOT done", "credits WHERE NOT applied", "refused"]
        {
            text.push_str(&format!("{table}\n"));
            for row in self.query(&format!("SELECT t.* FROM (SELECT * FROM {table}) t LIMIT 200"))? {
                let columns: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
                text.push_str(&format!("  {}\n", columns.join(" | ")));
            }
        }
        let mut redis = self.redis.client()?;
        for key in redis.command(&["KEYS", "*"])?.items().iter().filter_map(Reply::text) {
            let is_stream = redis.command(&["TYPE", &key])?.text().as_deref() == Some("stream");
            let (length, content) = match is_stream {
                true => (
                    redis.command(&["XLEN", &key])?,
                    redis.command(&["XRANGE", &key, "-", "+", "COUNT", "20"])?,
                ),
                false => (redis.command(&["HLEN", &key])?, redis.command(&["HGETALL", &key])?),
            };
            let content: Vec<String> =
                content.items().iter().take(60).map(|item| format!("{item:?}")).collect();
            text.push_str(&format!("{key} {length:?}\n  {}\n", content.join("\n  ")));
        }
        Ok(std::fs::write(self.folder.join("state.txt"), text)?)
    }

    fn keep_output(&self, role: Role, output: &str) -> Result<()> {
        let name = format!("{role:?}.log").to_lowercase().replace(['(', ')'], "-");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(name));
        Ok(writeln!(file?, "--- a process\n{output}")?)
    }

    /// Asks the ledger itself, past every process of ours.
    pub(super) fn query(&self, statement: &str) -> Result<Rows> {
        let mut session: SqlSession = self.postgres.session(DATABASE)?;
        Ok(session.query(statement)?)
    }

    /// Waits until every process says that it is ready.
    pub(super) fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        for role in self.roles() {
            let address = self.process(role)?.address();
            let mut client = Client::new(address).with_timeout(Duration::from_secs(5));
            loop {
                let last = match client.get("/readyz") {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => format!("{} {}", answer.status, answer.text()),
                    Err(error) => error.to_string(),
                };
                if Instant::now() > until {
                    bail!("{role:?} is not ready {} s after everything was mended: {last}", limit.as_secs());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}
