//! Fills Redis with a product's sale: for the first time, and again whenever what Redis has cannot be trusted.
//!
//! | step | what | if it ends here |
//! |---|---|---|
//! | close | Redis sells no more of the old epoch | the next loader goes on |
//! | drain | the ledger takes every grant that survived | the same |
//! | seal | one transaction: the old epoch stays at what was sold, the rest goes to the next | the old epoch can take no more, for ever |
//! | rescue | only if the ledger went back: it gets what Redis knows of orders that it lacks | what is there is there; the next loader begins again |
//! | load | Redis gets every order and customer of the ledger | `loading` grants nothing; the next loader begins again |
//! | open | nodes offer what they accepted and the ledger lacks | after a moment anyone may start selling |
//! | sell | buyers are served again | – |
//!
//! Why no unit is sold twice: grants of an epoch enter the ledger only while `sold <= units` of that epoch, and the
//! units of all epochs together are the stock, at every commit. Redis may say what it likes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisError;
use uuid::Uuid;

use super::look::{is_of_another_type, text_of};
use super::outcome::wants_new_connection;
use super::script;
use super::seen::{SALE_FIELDS, Sale};
use super::servers::{NoServer, Server, Servers};
use super::worker::{CarryError, Worker};
use super::{Shared, checks};
use crate::failpoint;
use crate::postgres::{Postgres, PostgresError, ProductRow, SaleState, SettingsCheck};

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
/// Epochs before the one on sale whose streams are looked for.
const STREAMS_MAX: i32 = 16;
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
                loaded = self.load_on(&server, &row, distrusted) => loaded,
                () = self.renew(product) => Ok(Loaded::NotNow),
            },
            Err(unfit) => Err(unfit),
        };
        if let Err(LoadError::Redis(error)) = &loaded
            && wants_new_connection(error)
        {
            self.servers.forget(&server, product);
        }
        loaded
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
            self.shared.node.note_settings(&server.address, complaints.clone());
            return Err(LoadError::Settings(complaints));
        }
        match checks::is_rewriting(server).await? {
            true => Err(LoadError::Rewriting(super::servers::shown(&server.address))),
            false => Ok(()),
        }
    }

    /// `before` is what the ledger said before Redis is looked at.
    async fn load_on(
        &self,
        server: &Server,
        before: &ProductRow,
        distrusted: Option<i32>,
    ) -> Result<Loaded, LoadError> {
        let found = self.look(server, before).await?;
        // Again, because only what it says after Redis was looked at tells whether it went back.
        let Some(row) = self.postgres.product_numbered(before.number).await? else {
            return Ok(Loaded::NotNow);
        };
        if (row.epoch, row.state) != (before.epoch, before.state) {
            return Ok(Loaded::NotNow);
        }
        let has_gone_back = found.shown().is_some_and(|shown| shown.is_beyond(&row));
        let is_ours = found.is_of(row.epoch)
            && found.text("server") == Some(&*server.identity)
            && !found.is_of_another_product_than(&row);
        let is_open = matches!(found.text("state"), Some("open" | "offers"));
        // Of an epoch that the ledger does not know any more, something may be left in this one.
        let is_distrusted = distrusted.is_some_and(|epoch| epoch >= row.epoch);
        #[cfg(feature = "faults")]
        if self.shared.mistakes().reseed && found.shown().is_none() && is_open_in_ledger(&row) {
            return self.reseed(server, &row).await.map(|()| Loaded::Yes);
        }
        let epoch = if is_ours && is_open && !is_distrusted && !has_gone_back {
            self.resume(server, &row, &found).await?;
            row.epoch
        } else {
            self.fill_anew(server, &row, &found, has_gone_back).await?
        };
        self.bury_all(server, &row, epoch).await;
        Ok(Loaded::Yes)
    }

    /// Goes on where a loader died that had filled Redis.
    async fn resume(&self, server: &Server, row: &ProductRow, found: &Sale) -> Result<(), LoadError> {
        if !is_open_in_ledger(row) {
            self.tell_opened(row.number, row.epoch).await?;
            if found.text("state") == Some("offers") && row.epoch > 1 {
                // Nodes begin to offer now.
                tokio::time::sleep(OFFERS_WAIT).await;
            }
        }
        self.sell(server, row.number, row.epoch).await
    }

    /// Fills Redis, with a new epoch if the present one was opened. Gives the epoch that is sold from then.
    async fn fill_anew(
        &self,
        server: &Server,
        row: &ProductRow,
        found: &Sale,
        has_gone_back: bool,
    ) -> Result<i32, LoadError> {
        // What a loader that died meant to do is not to be seen any more once the epoch is sealed.
        let rescues = has_gone_back || found.text("rescue").is_some();
        // An epoch that was opened, here or in a Redis that is gone, is never filled again.
        let last = found.epoch().map_or(row.epoch, |epoch| epoch.max(row.epoch));
        let is_known = found.is_of(row.epoch) && found.text("state") != Some("loading");
        let was_opened = is_open_in_ledger(row) || last > row.epoch || is_known;
        let mut epoch = row.epoch;
        if was_opened {
            tracing::warn!(product = %row.id, epoch, "Redis is filled anew with a product: selling stops for a moment");
            self.close(server, row.number, last, rescues).await?;
            failpoint::hit("loader.closed");
            // Without a ledger that went back it is the name that is wrong: what is in the stream was granted.
            match rescues && found.is_of_another_product_than(row) {
                true => self.forget_stream(server, row.number, last).await?,
                false => self.worker(row.number).drain(epoch).await?,
            }
            failpoint::hit("loader.drained");
            while epoch <= last {
                epoch = self.postgres.seal(row.number, epoch, last).await?;
            }
        }
        failpoint::hit("loader.sealed");
        if rescues {
            self.rescue_from(server, row, found, epoch).await?;
        }
        self.fill(server, row.number, epoch, rescues).await?;
        failpoint::hit("loader.opened");
        self.tell_opened(row.number, epoch).await?;
        if epoch > 1 {
            tokio::time::sleep(OFFERS_WAIT).await;
        }
        self.sell(server, row.number, epoch).await?;
        if was_opened {
            self.shared.gauges.rebuilt();
            tracing::warn!(product = %row.id, epoch, "Redis sells the product again");
        }
        Ok(epoch)
    }

    async fn forget_stream(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        let mut forget = redis::cmd("DEL");
        forget.arg(self.shared.keys(product, epoch).grants);
        Ok(forget.query_async(&mut server.connection.clone()).await?)
    }

    /// Unless what Redis has is of another product: a restored ledger may give a number a second time.
    async fn rescue_from(
        &self,
        server: &Server,
        row: &ProductRow,
        found: &Sale,
        epoch: i32,
    ) -> Result<(), LoadError> {
        if found.is_of_another_product_than(row) {
            tracing::error!(
                product = %row.id, other = found.text("product"),
                "Redis has the orders of a product that the restored ledger does not know: they are dropped"
            );
            return Ok(());
        }
        self.rescue(server, row, epoch).await
    }

    /// Writes down that an epoch was opened, before anything is sold from it: it is never filled again.
    async fn tell_opened(&self, product: i32, epoch: i32) -> Result<(), LoadError> {
        if !self.postgres.set_open(product, epoch).await? {
            return Err(LoadError::Refused("another epoch is on sale by now".to_owned()));
        }
        Ok(self.shared.node.catalogue.refresh(&self.postgres).await?)
    }

    /// What Redis says of a sale. Whoever edits it by hand may write anything.
    async fn look(&self, server: &Server, row: &ProductRow) -> Result<Sale, LoadError> {
        let sale = self.shared.keys(row.number, row.epoch).sale;
        let asked: Result<Vec<Option<Vec<u8>>>, RedisError> = redis::cmd("HMGET")
            .arg(sale)
            .arg(&SALE_FIELDS[..])
            .query_async(&mut server.connection.clone())
            .await;
        match asked {
            Err(error) if is_of_another_type(&error) => Ok(Sale(Vec::new())),
            asked => Ok(Sale(asked?.into_iter().map(text_of).collect())),
        }
    }

    pub(crate) async fn sell(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        self.step(server, product, epoch, |call| call.arg("sell")).await
    }

    /// `rescues`: whoever fills it anew brings its orders back into the ledger first.
    pub(crate) async fn close(
        &self,
        server: &Server,
        product: i32,
        epoch: i32,
        rescues: bool,
    ) -> Result<(), LoadError> {
        let what = if rescues { "rescue" } else { "" };
        self.step(server, product, epoch, |call| call.arg("close").arg(what)).await
    }

    /// Buries the streams of epochs before the one on sale, also those that a loader left that died.
    async fn bury_all(&self, server: &Server, row: &ProductRow, epoch: i32) {
        let near = epoch.saturating_sub(STREAMS_MAX).max(1)..epoch;
        let far = (row.epoch < near.start).then_some(row.epoch);
        for old in far.into_iter().chain(near) {
            if let Err(error) = self.bury(server, row.number, old).await {
                // The sale goes on all the same, and a new filling would not help.
                tracing::warn!(%error, product = %row.id, epoch = old, "what came late to an old epoch is left");
            }
        }
    }

    /// The stream of a sealed epoch. What came to it after all and the ledger does not know is offered to the epoch on
    /// sale, as what nodes accepted is; when the ledger has it, it leaves the stream.
    async fn bury(&self, server: &Server, product: i32, epoch: i32) -> Result<(), LoadError> {
        let grants = self.shared.keys(product, epoch).grants;
        let mut connection = server.connection.clone();
        let exists: bool = redis::cmd("EXISTS").arg(&grants).query_async(&mut connection).await?;
        if !exists {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            self.worker(product).drain(epoch).await?;
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

    pub(super) async fn step<'a>(
        &self,
        server: &Server,
        product: i32,
        epoch: i32,
        say: impl for<'b> FnOnce(
            &'b mut redis::ScriptInvocation<'static>,
        ) -> &'b mut redis::ScriptInvocation<'static>,
    ) -> Result<(), LoadError> {
        let keys = self.shared.keys(product, epoch);
        let mut call = script::LOAD.prepare_invoke();
        call.key(&keys.sale).key(&keys.buyers).key(&keys.grants).arg(epoch).arg(self.me.to_string());
        say(&mut call);
        match call.invoke_async(&mut server.connection.clone()).await? {
            redis::Value::Int(1) => Ok(()),
            other => Err(LoadError::Refused(format!("{other:?}"))),
        }
    }

    pub(super) fn worker(&self, product: i32) -> Worker {
        Worker {
            product,
            name: format!("loader-{}", self.me.simple()),
            postgres: self.postgres.clone(),
            servers: Arc::clone(&self.servers),
            shared: Arc::clone(&self.shared),
        }
    }
}

fn is_open_in_ledger(row: &ProductRow) -> bool {
    row.state == SaleState::Open
}
