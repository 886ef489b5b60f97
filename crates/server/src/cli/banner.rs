//! The few lines that a start prints.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use yoink_engine::{Durability, ProductView};

use super::admin_key;
use crate::config::{Config, EngineName, ServerUrl};

/// What there is to say. `Display` makes the lines.
pub(super) struct Banner<'a> {
    /// Where buyers connect.
    pub(super) listen: SocketAddr,
    /// Where operators connect, if elsewhere.
    pub(super) admin_listen: Option<SocketAddr>,
    /// Where orders are.
    pub(super) store: Store<'a>,
    /// When orders are on disk.
    pub(super) durability: Durability,
    /// Only in development.
    pub(super) key: Option<KeyLine<'a>>,
    /// What is on sale.
    pub(super) products: &'a [ProductView],
}

/// Where orders are kept.
pub(super) enum Store<'a> {
    /// In a data folder.
    Folder {
        /// Which.
        path: &'a Path,
        /// Events that it holds.
        events: u64,
        /// How long opening took, the log replayed.
        opened_in: Duration,
    },
    /// On servers.
    Servers(Servers<'a>),
}

/// The servers of an engine, and who works for it here.
pub(super) struct Servers<'a> {
    /// The RabbitMQ, with that engine.
    amqp: Option<&'a ServerUrl>,
    /// The Redis.
    redis: &'a ServerUrl,
    /// The PostgreSQL.
    postgres: &'a ServerUrl,
    /// Workers in this process, with the redis engine per product.
    workers: usize,
}

impl<'a> Servers<'a> {
    /// The servers in a configuration; `None` if its engine has none.
    pub(super) fn of(config: &'a Config, workers: usize) -> Option<Self> {
        let amqp = match config.engine {
            EngineName::Embedded => return None,
            EngineName::Redis => None,
            EngineName::Rabbitmq => Some(config.broker().ok()?),
        };
        let (redis, postgres) = config.servers().ok()?;
        Some(Self { amqp, redis, postgres, workers })
    }
}

impl std::fmt::Display for Servers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { amqp, redis, postgres, workers } = self;
        if let Some(amqp) = amqp {
            writeln!(f, "  rabbitmq    {amqp}")?;
        }
        writeln!(f, "  redis       {redis}")?;
        writeln!(f, "  postgres    {postgres}")?;
        match (workers, amqp) {
            (0, None) => writeln!(f, "  workers     none here; `yoink worker` carries orders to the ledger"),
            (0, Some(_)) => writeln!(f, "  workers     none here; `yoink worker` decides what is queued"),
            (workers, None) => writeln!(f, "  workers     {workers} per product"),
            (workers, Some(_)) => writeln!(f, "  workers     {workers}"),
        }
    }
}

impl std::fmt::Display for Store<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder { path, events, opened_in } => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
                let opened_ms = opened_in.as_millis();
                writeln!(f, "  data        {}  ({events} events, opened in {opened_ms} ms)", path.display())
            }
            Self::Servers(servers) => servers.fmt(f),
        }
    }
}

/// How the admin key is told.
pub(super) enum KeyLine<'a> {
    /// Made by us and kept in the data folder.
    Kept(&'a str),
    /// Given by the user, who knows it.
    Given,
}

impl std::fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = format!("http://{}", reachable(self.listen));
        writeln!(f, "Yoink {} is open for business.\n", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  listening   {url}  (page: {url}/docs)")?;
        if let Some(admin) = self.admin_listen {
            writeln!(f, "  operators   http://{}", reachable(admin))?;
        }
        write!(f, "{}", self.store)?;
        writeln!(f, "  durability  {}  ({})", self.durability.name(), self.durability.survives())?;
        match self.key {
            Some(KeyLine::Kept(key)) => {
                writeln!(f, "  admin key   {key}  (kept in {}; development only)", admin_key::FILE_NAME)?;
            }
            Some(KeyLine::Given) => writeln!(f, "  admin key   the one in YOINK_ADMIN_KEY")?,
            None => {}
        }
        self.write_products(f)?;
        let product = self.products.first().map_or_else(|| "1".to_owned(), |product| product.id.to_string());
        let is_default = self.listen.port() == 3000;
        let with_url = if is_default { String::new() } else { format!(" --url {url}") };
        writeln!(f, "\nTry in another terminal:")?;
        if self.products.is_empty() {
            writeln!(f, "  yoink seed{with_url}")?;
        }
        if self.key.is_some() {
            writeln!(
                f,
                "  curl -X POST {url}/v1/orders -H 'content-type: application/json' \\\n       \
                 -d '{{\"customer_id\":\"ann\",\"product_id\":\"{product}\"}}'"
            )?;
            writeln!(f, "  yoink storm{with_url}")?;
        }
        writeln!(f, "  yoink audit{with_url}\n\nCtrl-C ends it; nothing accepted is lost.")
    }
}

impl Banner<'_> {
    fn write_products(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for product in self.products.iter().take(3) {
            let (figures, details) = (&product.figures, &product.details);
            writeln!(
                f,
                "  on sale     product {}  \"{}\": {} of {} units available",
                product.id,
                super::output::printable(&details.name),
                figures.available,
                figures.stocked
            )?;
        }
        match self.products.len() {
            0 => writeln!(f, "  on sale     nothing yet"),
            1..=3 => Ok(()),
            more => writeln!(f, "  on sale     and {} more", more.saturating_sub(3)),
        }
    }
}

/// An address that one can connect to: not "any", but this machine.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
