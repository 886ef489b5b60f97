//! Fills Redis with a product's sale: for the first time, and again whenever what Redis has cannot be trusted.
//!
//! | step | what | if it ends here |
//! |---|---|---|
//! | close | Redis sells no more of the old epoch | the next loader goes on |
//! | drain | the ledger takes every grant that survived | the same |
//! | seal | one transaction: the old epoch stays at what was sold, the rest goes to the next | the old epoch can take no more, for ever |
//! | load | Redis gets every order and customer of the ledger | `loading` grants nothing; the next loader begins again |
//! | open | nodes offer what they accepted and the ledger lacks | after a moment anyone may start selling |
//! | sell | buyers are served again | – |
//!
//! Why no unit is sold twice: grants of an epoch enter the ledger only while `sold <= units` of that epoch, and the
//! units of all epochs together are the stock, at every commit. Redis may say what it likes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisError;
use uuid::Uuid;

use super::keys::{GROUP, SaleKeys};
use super::look::is_of_another_type;
use super::outcome::wants_new_connection;
use super::script;
use super::servers::{NoServer, Server, Servers};
use super::worker::{CarryError, Worker};
use super::{Shared, checks};
use crate::failpoint;
use crate::node::order_id::to_hex;
use crate::postgres::{
    CreditKind, LoadedOrder, Postgres, PostgresError, ProductRow, SaleSnapshot, SaleState, SettingsCheck,
};

/// A loader that is silent for this long may be replaced by another.
const LEASE_SECONDS: f64 = 3.0;
/// How often a loader says that it is still at it.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long nodes may offer what they accepted before, while buyers wait.
pub(crate) const OFFERS_WAIT: Duration = Duration::from_millis(400);
/// What came late to a sealed epoch is with the ledger after this long, unless something is wrong.
const BURIED_WITHIN: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LATE_PAUSE: Duration = Duration::from_millis(50);
/// Orders that are read and written at once.
const PAGE_ORDERS: usize = 1_000;
/// Fields that one call writes at most.
const FIELDS_MAX: usize = 1_000;

/// When the mistake of a stock that expires happens.
#[cfg(feature = "faults")]
const STOCK_LASTS: Duration = Duration::from_secs(1);

/// Why a sale was not loaded. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    NoServer(#[from] NoServer),
    #[error("Redis failed: {0}")]
    Redis(#[from] RedisError),
    #[error("the ledger failed: {0}")]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Carry(#[from] CarryError),
    #[error("Redis refused to load it: {0}")]
    Refused(String),
    #[error("Redis at {0} writes its log anew, and what it says before that is done may be in no file")]
    Rewriting(String),
    #[error("its stream holds {entries} entries that the ledger does not have yet")]
    Late { entries: usize },
    #[error("{}", .0.join(". "))]
    Settings(Vec<String>),
    #[error(
        "Redis at {0} holds the sales of another ledger; give this engine a Redis (or a database of one) of its own"
    )]
    OtherLedger(String),
}

/// Whether this loader had its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    Yes,
    /// Another one is at it.
    NotNow,
}

/// Loads sales.
pub(crate) struct Loader {
    pub(crate) me: Uuid,
    pub(crate) postgres: Postgres,
    pub(crate) servers: Arc<Servers>,
    pub(crate) shared: Arc<Shared>,
}

/// What Redis says of a sale.
struct Found {
    epoch: Option<i32>,
    server: Option<String>,
    state: Option<String>,
    ledger: Option<String>,
}

impl Loader {
    /// Makes Redis sell a product from the ledger's present epoch, or from a new one if that is distrusted or if what is
    /// in Redis belongs to another incarnation of it. Does nothing while another loader is at it.
    pub(crate) async fn load(&self, product: i32, distrusted: Option<i32>) -> Result<Loaded, LoadError> {
        if !self.postgres.become_loader(product, self.me, LEASE_SECONDS).await? {
            return Ok(Loaded::NotNow);
        }
        let Some(row) = self.postgres.product_numbered(product).await? else { return Ok(Loaded::NotNow) };
        let server = self.servers.of(product).await?;
        let loaded = match self.is_fit(&server).await {
            Ok(()) => tokio::select! {
                loaded = self.load_on(&server, &row, distrusted == Some(row.epoch)) => loaded,
                () = self.renew(product) => Ok(()),
            },
            unfit => unfit,
        };
        if let Err(LoadError::Redis(error)) = &loaded
            && wants_new_connection(error)
        {
            self.servers.forget(&server, product);
        }
        loaded.map(|()| Loaded::Yes)
    }

    /// Keeps others from loading the same product, for ever. Should it fail, another may begin too: every step is
    /// conditional, so that costs time only.
    async fn renew(&self, product: i32) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let _ = self.postgres.become_loader(product, self.me, LEASE_SECONDS).await;
        }
    }

    /// Whether what this server says it has it keeps.
    async fn is_fit(&self, server: &Server) -> Result<(), LoadError> {
        if self.shared.options.settings == SettingsCheck::Relaxed {
            return Ok(());
        }
        let complaints = checks::redis_complaints(server).await?;
        if !complaints.is_empty() {
            self.shared.node.note_settings(complaints.clone());
            return Err(LoadError::Settings(complaints));
        }
        match checks::is_rewriting(server).await? {
            true => Err(LoadError::Rewriting(super::servers::shown(&server.address))),
            false => Ok(()),
        }
    }

    async fn load_on(&self, server: &Server, row: &ProductRow, is_distrusted: bool) -> Result<(), LoadError> {
        let found = self.look(server, row).await?;
        if found.ledger.as_ref().is_some_and(|ledger| *ledger != self.postgres.identity().id.to_string()) {
            return Err(LoadError::OtherLedger(server.address.to_string()));
        }
        let is_ours = found.epoch == Some(row.epoch) && found.server.as_deref() == Some(&*server.identity);
        let is_open = matches!(found.state.as_deref(), Some("open" | "offers"));
        if is_ours && is_open && !is_distrusted {
            if !is_open_in_ledger(row) {
                self.tell_opened(row.number, row.epoch).await?;
                if found.state.as_deref() == Some("offers") && row.epoch > 1 {
                    // Nodes begin to offer now.
                    tokio::time::sleep(OFFERS_WAIT).await;
                }
            }
            return self.sell(server, row.number, row.epoch).await;
        }
        #[cfg(feature = "faults")]
        if self.shared.mistakes().reseed && found.epoch.is_none() && is_open_in_ledger(row) {
            return self.reseed(server, row).await;
        }
        let is_first = row.epoch == 1 && !is_open_in_ledger(row);
        // An epoch that was opened, here or in a Redis that is gone, is never filled again.
        let is_known = found.epoch.is_some_and(|epoch| epoch >= row.epoch);
        let was_opened = is_open_in_ledger(row) || (is_known && found.state.as_deref() != Some("loading"));
        let epoch = if was_opened {
            tracing::warn!(product = %row.id, epoch = row.epoch, "Redis is filled anew with a product: selling stops for a moment");
            // Redis is ahead of a ledger that was restored from a backup: what it granted since is revoked.
            let last = found.epoch.map_or(row.epoch, |epoch| epoch.max(row.epoch));
            self.close(server, row.number, last).await?;
            failpoint::hit("loader.closed");
            for epoch in row.epoch..=last {
                self.worker(row.number).drain(epoch).await?;
            }
            failpoint::hit("loader.drained");
            let mut epoch = row.epoch;
            while epoch <= last {
                epoch = self.postgres.seal(row.number, epoch).await?;
            }
            epoch
        } else {
            row.epoch
        };
        failpoint::hit("loader.sealed");
        self.fill(server, row.number, epoch).await?;
        failpoint::hit("loader.opened");
        self.tell_opened(row.number, epoch).await?;
        if !is_first {
            tokio::time::sleep(OFFERS_WAIT).await;
        }
        self.sell(server, row.number, epoch).await?;
        if was_opened {
            self.shared.gauges.rebuilt();
            tracing::warn!(product = %row.id, epoch, "Redis sells the product again");
            if let Err(error) = self.bury(server, row.number, row.epoch).await {
                // The sale goes on all the same, and a new filling would not help.
                tracing::warn!(%error, product = %row.id, epoch = row.epoch, "what came late to the old epoch is left");
            }
        }
        Ok(())
    }

    /// Writes down that an epoch was opened, before anything is sold from it: it is never filled again.
    async fn tell_opened(&self, product: i32, epoch: i32) -> Result<(), LoadError> {
        if !self.postgres.set_open(product, epoch).await? {
            return Err(LoadError::Refused("another epoch is on sale by now".to_owned()));
        }
        self.shared.node.catalogue.replace(self.postgres.products().await?);
        Ok(())
    }

    async fn look(&self, server: &Server, row: &ProductRow) -> Result<Found, LoadError> {
        let mut connection = server.connection.clone();
        // Whoever edits it by hand may write what is no number.
        let asked: Result<(Option<String>, _, _, _), RedisError> = redis::cmd("HMGET")
            .arg(SaleKeys::new(row.number, row.epoch).sale)
            .arg("epoch")
            .arg("server")
            .arg("state")
            .arg("ledger")
            .query_async(&mut connection)
            .await;
        let (epoch, server, state, ledger) = match asked {
            Err(error) if is_of_another_type(&error) => (None, None, None, None),
            asked => asked?,
        };
        Ok(Found { epoch: epoch.and_then(|epoch| epoch.parse().ok()), server, state, ledger })
    }

    async fn fill(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        let Some(mut snapshot) = self.postgres.sale_snapshot(product, epoch).await? else {
            return Err(LoadError::Refused("another epoch is on sale by now".to_owned()));
        };
        self.step(server, product, epoch, |call| call.arg("begin").arg(GROUP)).await?;
        let mut fields = 0_usize;
        let mut customers: HashMap<String, (u64, String)> = HashMap::new();
        loop {
            let page = snapshot.next_page(PAGE_ORDERS).await?;
            if page.is_empty() {
                break;
            }
            let records = page.iter().map(|order| (format!("o{}", to_hex(order.order)), record(order)));
            fields += self.add(server, product, epoch, records.collect()).await?;
            for order in page.iter().filter(|order| !order.has_ended) {
                let (units, ids) = customers.entry(order.customer.clone()).or_default();
                *units = units.saturating_add(u64::from(order.quantity.unsigned_abs()));
                // The newest first, as the script keeps them.
                ids.insert_str(0, &to_hex(order.order));
                ids.truncate(20 * 32);
            }
        }
        let customers = customers
            .into_iter()
            .map(|(customer, (units, ids))| (format!("c{customer}"), format!("{units}|{ids}")));
        fields += self.add(server, product, epoch, customers.collect()).await?;
        fields += self.add(server, product, epoch, marks(&snapshot)).await?;
        let sale = self.sale_fields(server, &snapshot.product);
        self.step(server, product, epoch, |call| {
            call.arg("open").arg(fields);
            sale.iter().fold(call, |call, (name, value)| call.arg(*name).arg(value))
        })
        .await?;
        #[cfg(feature = "faults")]
        if self.shared.mistakes().reseed {
            let mut expiry = redis::cmd("PEXPIRE");
            expiry.arg(SaleKeys::new(product, epoch).sale).arg(STOCK_LASTS.as_millis() as u64);
            let _: i64 = expiry.query_async(&mut server.connection.clone()).await?;
        }
        Ok(snapshot.finish().await?)
    }

    /// The mistake: what the ledger says is left may be on its way to somebody.
    #[cfg(feature = "faults")]
    async fn reseed(&self, server: &Server, row: &ProductRow) -> Result<(), LoadError> {
        let mut fields = self.sale_fields(server, row);
        fields.extend([("epoch", row.epoch.to_string()), ("state", "open".to_owned())]);
        let sale = SaleKeys::new(row.number, row.epoch).sale;
        let mut call = redis::cmd("HSET");
        call.arg(sale).arg(fields);
        Ok(call.query_async(&mut server.connection.clone()).await?)
    }

    async fn add(
        &self,
        server: &Server,
        product: i32,
        epoch: i32,
        fields: Vec<(String, String)>,
    ) -> Result<usize, LoadError> {
        for some in fields.chunks(FIELDS_MAX) {
            self.step(server, product, epoch, |call| {
                some.iter().fold(call.arg("add"), |call, (name, value)| call.arg(name).arg(value))
            })
            .await?;
        }
        Ok(fields.len())
    }

    fn sale_fields(&self, server: &Server, row: &ProductRow) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("server", server.identity.to_string()),
            ("ledger", self.postgres.identity().id.to_string()),
            ("state", "offers".to_owned()),
            ("available", row.units.saturating_sub(row.sold).to_string()),
            ("credited", row.units.to_string()),
            ("granted", row.sold.to_string()),
            ("number", "0".to_owned()),
            ("done", "0".to_owned()),
            ("backlog", self.shared.options.backlog_max.to_string()),
            ("version", row.version.to_string()),
        ];
        fields.extend(description(row));
        fields
    }

    pub(crate) async fn sell(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        self.step(server, product, epoch, |call| call.arg("sell")).await
    }

    pub(crate) async fn close(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        self.step(server, product, epoch, |call| call.arg("close")).await
    }

    /// The stream of a sealed epoch. What came to it after all and the ledger does not know is offered to the epoch on
    /// sale, as what nodes accepted is; when the ledger has it, it leaves the stream.
    async fn bury(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        let grants = SaleKeys::new(product, epoch).grants;
        let begun = Instant::now();
        loop {
            self.worker(product).drain(epoch).await?;
            let mut connection = server.connection.clone();
            let left: usize = redis::cmd("XLEN").arg(&grants).query_async(&mut connection).await?;
            if left == 0 {
                let _: i64 = redis::cmd("DEL").arg(grants).query_async(&mut connection).await?;
                return Ok(());
            }
            if begun.elapsed() >= BURIED_WITHIN {
                return Err(LoadError::Late { entries: left });
            }
            tokio::time::sleep(LATE_PAUSE).await;
        }
    }

    async fn step<'a>(
        &self,
        server: &Server,
        product: i32,
        epoch: i32,
        say: impl for<'b> FnOnce(
            &'b mut redis::ScriptInvocation<'static>,
        ) -> &'b mut redis::ScriptInvocation<'static>,
    ) -> Result<(), LoadError> {
        let keys = SaleKeys::new(product, epoch);
        let mut call = script::LOAD.prepare_invoke();
        call.key(&keys.sale).key(&keys.buyers).key(&keys.grants).arg(epoch).arg(self.me.to_string());
        say(&mut call);
        match call.invoke_async(&mut server.connection.clone()).await? {
            redis::Value::Int(1) => Ok(()),
            other => Err(LoadError::Refused(format!("{other:?}"))),
        }
    }

    fn worker(&self, product: i32) -> Worker {
        Worker {
            product,
            name: format!("loader-{}", self.me.simple()),
            postgres: self.postgres.clone(),
            servers: Arc::clone(&self.servers),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// An order as `purchase.lua` keeps it: one that the ledger has.
fn record(order: &LoadedOrder) -> String {
    format!(
        "{}|{}|{}|{}|{}|{}|{}",
        if order.has_ended { 'X' } else { 'L' },
        order.number,
        order.quantity,
        order.accepted_at,
        order.price,
        order.currency,
        order.customer
    )
}

/// What was given to the epoch, or taken from it, before it was loaded: its units tell already.
fn marks(snapshot: &SaleSnapshot) -> Vec<(String, String)> {
    let credits = snapshot.credits.iter().filter(|credit| credit.kind == CreditKind::Restocked);
    let credits = credits.map(|credit| (credit.id, credit.units));
    let withdrawals = snapshot.withdrawals.iter().map(|taken| (taken.adjustment, -taken.units));
    credits.chain(withdrawals).map(|(id, units)| (format!("m{}", id.simple()), units.to_string())).collect()
}

fn is_open_in_ledger(row: &ProductRow) -> bool {
    row.state == SaleState::Open
}

/// What is said about a product, as `purchase.lua` reads it.
pub(crate) fn description(row: &ProductRow) -> Vec<(&'static str, String)> {
    let or_empty = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    let details = &row.details;
    vec![
        ("limit", or_empty(details.limit_per_customer.map(i64::from))),
        ("max", details.max_per_order.to_string()),
        ("starts_at", or_empty(details.window.starts_at.map(|at| at.0))),
        ("ends_at", or_empty(details.window.ends_at.map(|at| at.0))),
        ("paused", u8::from(row.paused).to_string()),
        ("price", format!("{}|{}", details.price.amount, details.price.currency.as_str())),
    ]
}
