//! The servers of a run, and the shop's process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;
use yoink_testkit::{Client as HttpClient, Postgres, RabbitServer, RedisServer, free_port};

use crate::catalogue::{Entry, Needs};
use crate::scene::Act;
use crate::shop::Addresses;
use crate::yoink::find_program;

/// How long a shop may take to open, and what was accepted to be written.
pub(crate) const OPEN_MAX: Duration = Duration::from_secs(20);
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What every shop's database begins with. No rule keeps the stock above zero, as in the older systems.
const SCHEMA: &str = "
CREATE TABLE products (id text PRIMARY KEY, name text NOT NULL, stock integer NOT NULL);
CREATE TABLE orders (
    id text PRIMARY KEY,
    user_id text NOT NULL,
    product_id text NOT NULL REFERENCES products,
    quantity integer NOT NULL,
    request text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);";

/// Where servers are that the lab does not start itself.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Of a PostgreSQL in which databases may be created.
    pub postgres: Option<String>,
    /// Of a Redis.
    pub redis: Option<String>,
    /// Of a RabbitMQ.
    pub amqp: Option<String>,
    /// The `yoink` program, which sells for the engines.
    pub yoink: Option<PathBuf>,
}

/// Private servers, started when they are first needed and kept for the next strategy.
#[derive(Default)]
pub struct Servers {
    given: Given,
    pub(crate) postgres: Option<Postgres>,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) rabbit: Option<RabbitServer>,
    /// The names of those made on a server that was given.
    databases: Vec<String>,
}

impl Servers {
    /// No server yet. Those that are given are used instead of private ones.
    #[must_use]
    pub fn new(given: Given) -> Servers {
        Servers { given, ..Servers::default() }
    }

    /// Starts what is needed and not there. Redis is always a fresh one, unless it is given. A server that the scene
    /// harms, or that must be set up in its own way, is never one that was given.
    ///
    /// # Errors
    /// One does not start; `cargo xtask setup` installs them.
    pub fn start(&mut self, needs: Needs, scene: &[Act]) -> Result<()> {
        const ADVICE: &str = "; `cargo xtask setup` installs it, or say where one is";
        if needs.postgres && self.given_postgres(scene).is_none() && self.postgres.is_none() {
            self.postgres =
                Some(Postgres::start().with_context(|| format!("cannot start PostgreSQL{ADVICE}"))?);
        }
        if let (Some(lines), None) = (needs.redis, self.given_redis(needs, scene)) {
            self.redis = None;
            let mut builder = RedisServer::builder();
            for line in lines {
                builder = builder.config(*line);
            }
            self.redis = Some(builder.start().with_context(|| format!("cannot start Redis{ADVICE}"))?);
        }
        if needs.rabbit && self.given.amqp.is_none() && self.rabbit.is_none() {
            self.rabbit =
                Some(RabbitServer::start().with_context(|| format!("cannot start RabbitMQ{ADVICE}"))?);
        }
        Ok(())
    }

    fn given_postgres(&self, scene: &[Act]) -> Option<&str> {
        self.given.postgres.as_deref().filter(|_| !scene.contains(&Act::PostgresDown))
    }

    fn given_redis(&self, needs: Needs, scene: &[Act]) -> Option<&str> {
        let is_special = needs.redis.is_some_and(|lines| !lines.is_empty());
        self.given.redis.as_deref().filter(|_| !is_special && !scene.contains(&Act::RedisPowerCut))
    }

    /// Where they are, with a new database for this run.
    ///
    /// # Errors
    /// The database cannot be made.
    pub async fn addresses(&mut self, needs: Needs, scene: &[Act]) -> Result<Addresses> {
        let mut addresses = Addresses::default();
        if needs.postgres {
            let name = format!("lab_{}", Uuid::new_v4().simple());
            let given = self.given_postgres(scene).map(str::to_owned);
            let is_given = given.is_some();
            let server = given.or_else(|| self.postgres.as_ref().map(Postgres::url));
            let server = server.context("PostgreSQL was not started")?;
            addresses.postgres = Some(create_database(&server, &name).await?);
            if is_given {
                self.databases.push(name);
            }
        }
        if needs.redis.is_some() {
            let private = self.redis.as_ref().map(RedisServer::url);
            addresses.redis = self.given_redis(needs, scene).map(str::to_owned).or(private);
        }
        if needs.rabbit {
            let private = self.rabbit.as_ref().map(RabbitServer::url);
            addresses.amqp = self.given.amqp.clone().or(private);
        }
        Ok(addresses)
    }

    /// Drops the databases that were made on a PostgreSQL that was given, whoever still uses them.
    ///
    /// # Errors
    /// One stays; it is named.
    pub async fn clear(&mut self) -> Result<()> {
        let Some(server) = self.given.postgres.clone() else { return Ok(()) };
        for name in std::mem::take(&mut self.databases) {
            connect(&server)
                .await?
                .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                .await
                .with_context(|| format!("the database {name} cannot be dropped and stays"))?;
        }
        Ok(())
    }

    /// The `yoink` program.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn yoink(&self) -> Result<PathBuf> {
        self.given.yoink.clone().map_or_else(find_program, Ok)
    }
}

/// Creates a database beside the one of `url`, and gives its URL.
async fn create_database(url: &str, name: &str) -> Result<String> {
    connect(url)
        .await?
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .context("cannot create a database")?;
    let (server, query) = url.split_once('?').map_or((url, None), |(server, query)| (server, Some(query)));
    let end = server.rfind('/').filter(|end| !server.get(..*end).unwrap_or("").ends_with('/'));
    let base = end.and_then(|end| server.get(..end)).unwrap_or(server);
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Ok(format!("{base}/{name}{query}"))
}

/// One connection, for the lab's own questions.
///
/// # Errors
/// PostgreSQL cannot be reached.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("the lab cannot reach PostgreSQL")?;
    tokio::spawn(async move {
        // Whoever asks next sees that it has ended.
        let _ = connection.await;
    });
    Ok(client)
}

/// Makes the tables and puts the products on the shelf.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn open_books(client: &Client, entry: &Entry, products: &[String], units: u64) -> Result<()> {
    client.batch_execute(SCHEMA).await.context("cannot make the tables")?;
    client.batch_execute(entry.schema).await.context("cannot make the strategy's tables")?;
    let units = i32::try_from(units).context("more units than a shop can count")?;
    client
        .execute(
            "INSERT INTO products SELECT id, 'Flash Sale Item', $2 FROM unnest($1::text[]) AS id",
            &[&products, &units],
        )
        .await
        .context("cannot put the products on the shelf")?;
    Ok(())
}

/// The shop's process. Started again by [`ShopProcess::keep_open`] when it has died, as a supervisor would. Dropped, it
/// is ended.
#[derive(Debug)]
pub struct ShopProcess {
    command: ShopCommand,
    address: SocketAddr,
    child: Child,
}

/// How to start a shop.
#[derive(Clone, Debug)]
pub struct ShopCommand {
    /// The program of the lab itself.
    pub program: PathBuf,
    /// The strategy's name.
    pub strategy: &'static str,
    /// Where the servers are.
    pub addresses: Addresses,
    /// A name that no other run has.
    pub run: String,
    /// Where events are written down.
    pub trace: PathBuf,
    /// What happens at a named point, the first time that the shop is opened.
    pub point: Option<&'static str>,
}

impl ShopCommand {
    fn spawn(&self, address: SocketAddr) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["shop", self.strategy, "--run", &self.run, "--listen", &address.to_string()]);
        command.arg("--trace").arg(&self.trace);
        let Addresses { postgres, redis, amqp } = &self.addresses;
        for (flag, url) in [("--postgres", postgres), ("--redis", redis), ("--amqp", amqp)] {
            command.args(url.iter().flat_map(|url| [flag, url]));
        }
        command.args(self.point.iter().flat_map(|point| ["--point", point]));
        // It ends when this pipe does, so also with a lab that is killed.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }
}

impl ShopProcess {
    /// Opens the shop.
    ///
    /// # Errors
    /// It does not open.
    pub fn open(command: ShopCommand) -> Result<ShopProcess> {
        let address = free_port().context("no port is free")?;
        let child = command.spawn(address)?;
        let mut shop = ShopProcess { command, address, child };
        shop.command.point = None;
        shop.wait_until_open()?;
        Ok(shop)
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> HttpClient {
        HttpClient::new(self.address).with_timeout(Duration::from_secs(5))
    }

    /// Opens it again if it has died.
    ///
    /// # Errors
    /// It does not open.
    pub fn keep_open(&mut self) -> Result<()> {
        if self.child.try_wait().context("cannot look at the shop")?.is_none() {
            return Ok(());
        }
        self.child = self.command.spawn(self.address)?;
        self.wait_until_open()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // It may be dead already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        yoink_testkit::resident_bytes(self.child.id())
    }

    fn wait_until_open(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < OPEN_MAX {
            if self.client().get("/livez").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("cannot look at the shop")? {
                bail!("the shop did not open: {status}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("the shop did not open within {OPEN_MAX:?}")
    }

    /// Waits until nothing is queued; gives what is left if that does not happen in time. The shop is kept open.
    ///
    /// # Errors
    /// The shop does not open again.
    pub fn drain(&mut self) -> Result<u64> {
        let begun = Instant::now();
        let (mut left, mut empty) = (u64::MAX, 0);
        while begun.elapsed() < DRAIN_MAX {
            self.keep_open()?;
            let answer = self.client().get("/backlog").ok().filter(|answer| answer.status == 200);
            let count = answer.and_then(|answer| answer.json().get("backlog").and_then(Value::as_u64));
            left = count.unwrap_or(left);
            // Twice, because a job between two lists is counted in neither.
            empty = if count == Some(0) { empty + 1 } else { 0 };
            if empty == 2 {
                return Ok(0);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(left)
    }
}

impl Drop for ShopProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The lab's own program, which is also the shop's.
///
/// # Errors
/// The system does not say.
pub fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("the lab does not know its own program")
}

/// Where reports go if nothing else is said: `target/lab` beside the program's build, or the working folder's.
#[must_use]
pub fn lab_folder() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|program| {
        program.ancestors().find(|folder| folder.ends_with("target")).map(Path::to_owned)
    });
    beside.unwrap_or_else(|| PathBuf::from("target")).join("lab")
}
