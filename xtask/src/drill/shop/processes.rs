//! A shop: nodes and workers on one PostgreSQL, and the proxies to the nodes. Its other servers belong to its engine.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use yoink_testkit::{
    ADMIN_KEY, Client, Postgres, Proxy, Rows, SqlSession, StartError, Yoink, YoinkProcess, ended_by,
};

use super::buyer::Promise;
use crate::drill::complain;

/// Nodes that serve buyers.
pub(in crate::drill) const NODES: usize = 2;
/// How long a process may take to start while servers come and go.
const START_WITHIN: Duration = Duration::from_secs(30);
/// Everything answers again within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The database of the shop.
pub(in crate::drill) const DATABASE: &str = "postgres";

/// A process of ours: which, and whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drill) enum Role {
    /// `yoink serve`.
    Node(usize),
    /// `yoink worker`.
    Worker(usize),
}

/// What an engine's processes are told.
pub(in crate::drill) struct Told {
    pub(in crate::drill) promise: Promise,
    pub(in crate::drill) workers: usize,
    /// The flags of `yoink serve`.
    pub(in crate::drill) serve: Vec<String>,
    /// The flags of `yoink worker`.
    pub(in crate::drill) work: Vec<String>,
    /// Variables of both.
    pub(in crate::drill) settings: Vec<(&'static str, String)>,
}

/// Nodes, workers and their ledger.
pub(in crate::drill) struct Shop {
    binary: PathBuf,
    folder: PathBuf,
    pub(in crate::drill) postgres: Postgres,
    told: Told,
    /// From buyers to each node.
    pub(in crate::drill) to_nodes: Vec<Proxy>,
    nodes: Vec<Option<YoinkProcess>>,
    workers: Vec<Option<YoinkProcess>>,
}

impl Shop {
    /// Prepares the ledger and starts everything, with records and logs in `folder`.
    pub(in crate::drill) fn open(
        binary: &Path,
        folder: &Path,
        postgres: Postgres,
        told: Told,
    ) -> Result<Shop> {
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
        // A node says where it listens when it has started.
        let nowhere = postgres.address();
        let to_nodes = (0..NODES).map(|_| Proxy::start(nowhere)).collect::<Result<_, _>>()?;
        let mut shop = Shop {
            binary: binary.to_path_buf(),
            folder: folder.to_path_buf(),
            postgres,
            to_nodes,
            nodes: (0..NODES).map(|_| None).collect(),
            workers: (0..told.workers).map(|_| None).collect(),
            told,
        };
        shop.roles().into_iter().try_for_each(|role| shop.start(role, None))?;
        shop.wait_ready()?;
        Ok(shop)
    }

    /// What 202 promises here.
    pub(in crate::drill) fn promise(&self) -> Promise {
        self.told.promise
    }

    /// Where buyers connect, whatever becomes of the nodes.
    pub(in crate::drill) fn addresses(&self) -> Vec<SocketAddr> {
        self.to_nodes.iter().map(Proxy::address).collect()
    }

    /// A client of a node.
    pub(in crate::drill) fn client(&self, node: usize) -> Result<Client> {
        let proxy = self.to_nodes.get(node).context("there is no such node")?;
        Ok(Client::new(proxy.address()).with_key(ADMIN_KEY))
    }

    /// A client of each node.
    pub(in crate::drill) fn clients(&self) -> impl Iterator<Item = Client> + '_ {
        self.addresses().into_iter().map(|address| Client::new(address).with_key(ADMIN_KEY))
    }

    /// Every process there should be.
    pub(in crate::drill) fn roles(&self) -> Vec<Role> {
        (0..self.told.workers).map(Role::Worker).chain((0..NODES).map(Role::Node)).collect()
    }

    fn place(&mut self, role: Role) -> Result<&mut Option<YoinkProcess>> {
        let place = match role {
            Role::Node(index) => self.nodes.get_mut(index),
            Role::Worker(index) => self.workers.get_mut(index),
        };
        place.context("there is no such process")
    }

    /// The process, which must run.
    pub(in crate::drill) fn process(&mut self, role: Role) -> Result<&mut YoinkProcess> {
        self.place(role)?.as_mut().with_context(|| format!("{role:?} does not run"))
    }

    fn command(&self, role: Role, failpoint: Option<&str>) -> Yoink {
        let mut yoink = Yoink::new(&self.binary).env("YOINK_LOG", "warn");
        for (name, value) in &self.told.settings {
            yoink = yoink.env(*name, value);
        }
        if let Some(failpoint) = failpoint {
            yoink = yoink.env("YOINK_FAILPOINT", failpoint);
        }
        match role {
            Role::Node(_) => yoink.args(["serve", "--dev"].map(str::to_owned).iter().chain(&self.told.serve)),
            Role::Worker(_) => yoink.without_data().args(["worker".to_owned()].iter().chain(&self.told.work)),
        }
    }

    /// Starts a process until it stays: while servers are down it may end at once. `failpoint` is where it kills itself.
    pub(in crate::drill) fn start(&mut self, role: Role, failpoint: Option<&str>) -> Result<()> {
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
    pub(in crate::drill) fn kill(&mut self, role: Role) -> Result<()> {
        if let Some(mut process) = self.place(role)?.take() {
            process.kill9();
            self.keep_output(role, &process.output())?;
        }
        Ok(())
    }

    /// Fails if processes ended although nobody killed them, with what they wrote; then waits until every process says
    /// that it is ready.
    pub(in crate::drill) fn check_processes(&mut self) -> Result<()> {
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
        complain(findings)?;
        self.wait_ready()
    }

    /// Writes the output of all processes into the folder of the drill.
    pub(in crate::drill) fn keep_outputs(&mut self) -> Result<()> {
        for role in self.roles() {
            if let Some(output) = self.place(role)?.as_ref().map(YoinkProcess::output) {
                self.keep_output(role, &output)?;
            }
        }
        Ok(())
    }

    /// Writes what `tables` of the ledger have into the folder of the drill, and what `others` says of other servers, for
    /// whoever looks for the cause of a finding.
    pub(in crate::drill) fn keep_state(&self, tables: &[&str], others: &str) -> Result<()> {
        let mut text = String::new();
        for table in tables {
            text.push_str(&format!("{table}\n"));
            for row in self.query(&format!("SELECT t.* FROM (SELECT * FROM {table}) t LIMIT 200"))? {
                let columns: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
                text.push_str(&format!("  {}\n", columns.join(" | ")));
            }
        }
        Ok(std::fs::write(self.folder.join("state.txt"), text + others)?)
    }

    fn keep_output(&self, role: Role, output: &str) -> Result<()> {
        let name = format!("{role:?}.log").to_lowercase().replace(['(', ')'], "-");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(name));
        Ok(writeln!(file?, "--- a process\n{output}")?)
    }

    /// Asks the ledger itself, past every process of ours.
    pub(in crate::drill) fn query(&self, statement: &str) -> Result<Rows> {
        let mut session: SqlSession = self.postgres.session(DATABASE)?;
        Ok(session.query(statement)?)
    }

    /// The one number that a statement gives.
    pub(in crate::drill) fn count(&self, statement: &str) -> Result<u64> {
        let value = self.postgres.session(DATABASE)?.value(statement)?.unwrap_or_default();
        value.parse().with_context(|| format!("{statement} gives {value:?}, which is no number"))
    }

    fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
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
                    let seconds = READY_WITHIN.as_secs();
                    bail!("{role:?} is not ready {seconds} s after everything was mended: {last}");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}
