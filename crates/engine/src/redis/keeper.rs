//! What goes on in the background on every node: the catalogue is read, Redis is looked at, and what is between the
//! ledger and Redis (credits, withdrawals, orders to be offered again) is brought to its end. Everything here may run on
//! any number of nodes at once: each step is conditional, or leaves a mark.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use yoink_core::{Rejection, Timestamp};

use super::answer::Answer;
use super::changes::{Credited, apply_credit, describe};
use super::entry::number_of;
use super::lane::{Lane, Mode, Sent, Ticket};
use super::loader::{Loaded, Loader, OFFERS_WAIT};
use super::look::{is_of_another_type, look};
use super::offers::Offer;
use super::seen::{SALE_FIELDS, Sale, SaleFigures, Seen, Told};
use super::servers::{Server, Servers};
use super::shown::Shown;
use super::status::Command;
use super::stock::{Taking, withdraw};
use super::worker::Worker;
use super::{Shared, checks};
use crate::node::catalogue::Listed;
use crate::node::check_postgres;
use crate::postgres::{Credit, Postgres, PostgresError, Way};

/// How often Redis is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So many products are all looked at in every turn; of more, those that nobody buys take turns.
const ALL_LOOKED_AT_MAX: usize = 16;
/// A product that nobody buys is looked at in one of so many turns.
const IDLE_TURNS: u64 = 8;
/// Turns for which a product whose stock has moved is looked at every time.
const BUSY_TURNS: u64 = 40;
/// How often the ledger is asked for products, credits and the like.
const LEDGER_EVERY: Duration = Duration::from_millis(100);
/// How often each Redis is asked whether it is still what it was when it was connected to.
const IDENTITY_EVERY: Duration = Duration::from_secs(1);
/// A withdrawal that is not finished after this long is finished by whoever sees it.
const WITHDRAWAL_AGE: Duration = Duration::from_secs(3);
/// Rows that one look at the ledger takes.
const ROWS_MAX: usize = 500;

/// The background of one node.
pub(crate) struct Keeper {
    pub(crate) postgres: Postgres,
    pub(crate) servers: Arc<Servers>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) loader: Arc<Loader>,
    /// Sales that this node is loading.
    pub(crate) loading: Arc<Mutex<HashSet<i32>>>,
}

impl Keeper {
    /// Looks at Redis, for ever.
    pub(crate) async fn watch_redis(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut busy_until: HashMap<i32, u64> = HashMap::new();
        for turn in 0_u64.. {
            ticks.tick().await;
            let all = self.shared.node.catalogue.all();
            let is_due = |listed: &&Arc<Listed>| {
                let number = listed.row.number;
                all.len() <= ALL_LOOKED_AT_MAX
                    || !listed.is_selling()
                    || self.shared.offers.has(number)
                    || busy_until.get(&number).is_some_and(|until| *until > turn)
                    || turn % IDLE_TURNS == u64::from(number.unsigned_abs()) % IDLE_TURNS
            };
            let due: Vec<(Arc<Listed>, u64)> =
                all.iter().filter(is_due).map(|listed| (Arc::clone(listed), listed.available())).collect();
            join_all(due.iter().map(|(listed, _)| self.look(Arc::clone(listed)))).await;
            let moved = due.iter().filter(|(listed, before)| listed.available() != *before);
            busy_until.extend(moved.map(|(listed, _)| (listed.row.number, turn + BUSY_TURNS)));
            self.shared.node.publish_storefront();
        }
    }

    /// Follows the ledger, for ever.
    pub(crate) async fn watch_ledger(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LEDGER_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let followed = self.follow_ledger().await;
            self.shared.node.note_ledger(followed.as_ref().err());
        }
    }

    /// Watches which Redis answers, and the settings of all servers, for ever.
    pub(crate) async fn watch_servers(self: Arc<Self>) {
        let mut all_told_at: Option<Instant> = None;
        loop {
            tokio::time::sleep(IDENTITY_EVERY).await;
            for server in self.servers.all().await.into_iter().flatten() {
                self.servers.forget_changed(&server, 0).await;
            }
            let is_due = all_told_at.is_none_or(|at| at.elapsed() >= self.shared.options.settings_every);
            // While nothing is sold because of them, that they were mended is seen soon.
            if is_due || !self.shared.node.may_sell() {
                all_told_at = self.check_settings().await.then(Instant::now);
            }
        }
    }

    /// Asks every server for its settings. Whether all of them told: of PostgreSQL and of a single Redis that did not, what
    /// they told last holds. Of a cluster's servers one that is silent may have been replaced by another.
    async fn check_settings(&self) -> bool {
        let node = &self.shared.node;
        let mut have_all_told = true;
        let mut used = self.servers.addresses();
        if used.len() > 1 {
            used.clear();
        }
        for server in self.servers.all().await {
            let told = match &server {
                Ok(server) => {
                    checks::redis_complaints(server).await.ok().map(|told| (&*server.address, told))
                }
                Err(_) => None,
            };
            have_all_told &= told.is_some();
            if let Some((address, complaints)) = told {
                node.note_settings(address, complaints);
                used.push(address.to_owned());
            }
        }
        have_all_told &= check_postgres(node, &self.postgres).await;
        used.push(self.postgres.target().to_owned());
        node.forget_settings_but(&used);
        have_all_told
    }

    /// One worker per product and place, for ever.
    pub(crate) async fn employ_workers(self: Arc<Self>, per_product: usize) {
        let mut workers = JoinSet::new();
        let mut employed = HashSet::new();
        loop {
            for listed in self.shared.node.catalogue.all() {
                let product = listed.row.number;
                if !employed.insert(product) {
                    continue;
                }
                for place in 0..per_product {
                    let worker = Worker {
                        product,
                        name: format!("{}-{place}", self.loader.me.simple()),
                        postgres: self.postgres.clone(),
                        servers: Arc::clone(&self.servers),
                        shared: Arc::clone(&self.shared),
                    };
                    workers.spawn(worker.run());
                }
            }
            tokio::time::sleep(LEDGER_EVERY).await;
        }
    }

    /// Looks at every product, now.
    pub(crate) async fn look_at_all(&self) {
        join_all(self.shared.node.catalogue.all().into_iter().map(|listed| self.look(listed))).await;
        self.shared.node.publish_storefront();
    }

    pub(crate) async fn look(&self, listed: Arc<Listed>) {
        let seen = self.see(&listed).await;
        let distrusted = listed.distrusted();
        match seen {
            Ok(Seen::Selling) if distrusted.is_none() => {
                listed.set_selling(true);
                if !listed.is_open_in_ledger() {
                    // Its loader died before it told the ledger.
                    self.load(&listed, None);
                }
            }
            Ok(Seen::Offers) if distrusted.is_none() => {}
            Ok(Seen::NewerEpoch) if distrusted.is_none() => listed.set_selling(false),
            Ok(seen) => {
                listed.set_selling(false);
                let distrusted = distrusted.or(matches!(seen, Seen::Wrong).then_some(listed.epoch()));
                self.load(&listed, distrusted);
            }
            Err(error) => {
                listed.set_selling(false);
                tracing::debug!(%error, "Redis could not be looked at");
            }
        }
        if let Some(epoch) = distrusted
            && self.shared.options.workers == 0
        {
            self.close(&listed, epoch).await;
        }
        // An epoch whose opening the ledger does not know might be filled once more.
        if listed.is_open_in_ledger() && self.shared.offers.has(listed.row.number) {
            self.offer(&listed).await;
        }
    }

    /// What this node distrusts others may not: they see that it is closed, and fill it anew.
    async fn close(&self, listed: &Listed, epoch: i32) {
        let Ok(server) = self.servers.of(listed.row.number).await else { return };
        if let Err(error) = self.loader.close(&server, listed.row.number, epoch, false).await {
            tracing::debug!(%error, "Redis goes on with what is distrusted; it is asked again");
        }
    }

    async fn see(&self, listed: &Listed) -> Result<Seen, String> {
        let (product, epoch) = (listed.row.number, listed.epoch());
        let server = self.servers.of(product).await.map_err(|error| error.to_string())?;
        let keys = self.shared.keys(product, epoch);
        let begun = Instant::now();
        // Before Redis is asked: whatever is granted meanwhile has a higher number.
        let (newest, arrivals) = (self.shared.offers.newest(product, epoch), listed.arrivals());
        let asked = look(&server, &keys, &SALE_FIELDS, ("-", 1), "e").await;
        self.shared.gauges.asked(Command::Look, begun);
        let (sale, oldest, buyers) = match asked {
            Ok((sale, oldest, buyers)) => (Sale(sale), oldest, buyers),
            Err(error) if is_of_another_type(&error) => return Ok(Seen::Wrong),
            Err(error) => {
                self.servers.forget(&server, product);
                return Err(error.to_string());
            }
        };
        if self.shows_another_product(listed, &sale) {
            return Ok(Seen::Missing);
        }
        self.shared.note_difference(product, sale.difference());
        if let Some(seen) = sale.obstacle(epoch, &server.identity) {
            return Ok(seen);
        }
        let Some(figures) = sale.figures() else { return Ok(Seen::Wrong) };
        let SaleFigures { available, number, done, .. } = figures;
        // Each grant is in the stream until it is done; an order that is in neither was lost here.
        let is_complete = !oldest.is_empty() || done == number;
        // Redis has forgotten what it granted.
        let is_back_in_time = number < newest || number < done;
        if is_back_in_time {
            listed.distrust(epoch);
        }
        let is_sound =
            figures.adds_up() && is_complete && !is_back_in_time && buyers == Some(epoch.to_string());
        if !is_sound || !self.is_described(&server, listed, &sale).await {
            return Ok(Seen::Wrong);
        }
        listed.saw_available(arrivals, available);
        let first = oldest.first().and_then(|entry| number_of(entry.lines()?));
        let below = if oldest.is_empty() { number.saturating_add(1) } else { first.unwrap_or(0) };
        // Those before the oldest that waits are with the ledger, unless somebody cut off the stream before it.
        if done.saturating_add(1) >= below {
            self.shared.offers.settle_below(product, epoch, below);
        }
        self.shared.note_backlog(product, number, done, oldest.first().map(|entry| entry.id.as_str()));
        match sale.text("state") {
            Some("open") => Ok(Seen::Selling),
            _ => Ok(self.end_offers(&server, listed).await),
        }
    }

    /// Notes what a sale shows of the ledger. Whether it is another product's: a restored ledger gives numbers again.
    fn shows_another_product(&self, listed: &Listed, sale: &Sale) -> bool {
        self.shared.note_shown(listed.row.number, sale.shown());
        sale.is_of_another_product_than(&listed.row)
    }

    /// Whether what Redis says about the product is what the ledger says, or may be. What the ledger was told since, Redis
    /// is told.
    async fn is_described(&self, server: &Server, listed: &Listed, sale: &Sale) -> bool {
        match sale.told(&listed.row) {
            Told::Same => {}
            Told::Older => self.describe(server, listed).await,
            // What is shown is held against the ledger.
            Told::Newer => {}
            Told::Wrong => return false,
        }
        true
    }

    /// The loader ends the time of offers; if it is gone, whoever has seen it for long enough does, unless the ledger
    /// does not know yet that the epoch was opened: sold from and then lost, it could be filled a second time.
    async fn end_offers(&self, server: &Server, listed: &Listed) -> Seen {
        let (product, epoch) = (listed.row.number, listed.epoch());
        if self.shared.offers_since(product, epoch).elapsed() <= OFFERS_WAIT.saturating_mul(4) {
            return Seen::Offers;
        }
        if !listed.is_open_in_ledger() {
            return Seen::Unopened;
        }
        let _ = self.loader.sell(server, product, epoch).await;
        Seen::Offers
    }

    async fn describe(&self, server: &Server, listed: &Listed) {
        if let Err(error) = describe(&self.shared, server, listed).await {
            tracing::debug!(%error, "Redis was not told of a change; it will be");
        }
    }

    fn load(&self, listed: &Arc<Listed>, distrusted: Option<i32>) {
        let product = listed.row.number;
        if self.shared.options.workers == 0 || !self.loading.lock().insert(product) {
            return;
        }
        let (loader, loading) = (Arc::clone(&self.loader), Arc::clone(&self.loading));
        let listed = Arc::clone(listed);
        tokio::spawn(async move {
            match (loader.load(product, distrusted).await, distrusted) {
                (Ok(Loaded::Yes), Some(epoch)) => listed.trust_again(epoch),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    tracing::warn!(%error, product = %listed.row.id, "Redis could not be filled; trying again");
                    tokio::time::sleep(LEDGER_EVERY).await;
                }
            }
            loading.lock().remove(&product);
        });
    }

    async fn follow_ledger(&self) -> Result<(), PostgresError> {
        // Before the ledger is asked.
        let shown = self.shared.shown();
        self.shared.node.follow_products(&self.postgres).await?;
        self.distrust_what_the_ledger_lacks(&shown);
        self.apply_credits().await?;
        let backlog = self.shared.node.follow_backlog(&self.postgres).await?;
        self.shared.gauges.note_credits_waiting(backlog.credits_waiting);
        if self.shared.options.workers == 0 {
            return Ok(());
        }
        let now = self.shared.node.now();
        let old = Timestamp(now.0.saturating_sub(WITHDRAWAL_AGE.as_micros() as i64));
        for withdrawal in self.postgres.withdrawals_waiting(old).await? {
            let taking = Taking {
                adjustment: withdrawal.adjustment,
                product: withdrawal.product,
                epoch: withdrawal.epoch,
                units: withdrawal.units,
            };
            // What it comes to is the next look's business.
            let _ = withdraw(&self.postgres, &self.servers, &self.shared, taking).await;
        }
        self.shared.node.retry_refused(&self.postgres, now).await
    }

    /// What Redis showed of the ledger, which does not have it now, is of a ledger that was there before: whoever fills
    /// Redis anew brings it back.
    fn distrust_what_the_ledger_lacks(&self, shown: &HashMap<i32, Shown>) {
        for listed in self.shared.node.catalogue.all() {
            let is_beyond = shown.get(&listed.row.number).is_some_and(|shown| shown.is_beyond(&listed.row));
            if !is_beyond {
                continue;
            }
            if listed.distrusted().is_none() {
                let product = &listed.row.id;
                tracing::error!(%product, "Redis knows more than the ledger, which has gone back to an earlier state");
            }
            listed.distrust(listed.row.epoch);
            listed.set_selling(false);
        }
    }

    /// Gives Redis the units that wait for it.
    pub(crate) async fn apply_credits(&self) -> Result<(), PostgresError> {
        // Where one cannot be given the others of that product wait too: each would take as long to fail.
        let mut waiting = HashSet::new();
        for credit in self.postgres.credits_waiting(ROWS_MAX).await? {
            if !waiting.contains(&credit.product) && !self.apply(&credit).await? {
                waiting.insert(credit.product);
            }
        }
        Ok(())
    }

    /// Gives Redis the units of a credit, once. Whether it has them now.
    async fn apply(&self, credit: &Credit) -> Result<bool, PostgresError> {
        let Ok(server) = self.servers.of(credit.product).await else { return Ok(false) };
        #[cfg(feature = "faults")]
        if self.shared.mistakes().no_mark {
            return Ok(super::changes::apply_credit_twice(&self.shared, &server, credit).await.is_ok());
        }
        let begun = Instant::now();
        let applied = apply_credit(&self.shared, &server, credit).await;
        self.shared.gauges.asked(Command::Credit, begun);
        match applied {
            Ok(Credited::Yes) => self.postgres.mark_credit_applied(credit.id, credit.epoch).await,
            Ok(Credited::NotYet) => Ok(false),
            Ok(Credited::Never) => {
                // Redis does not know whose units they are: what it has is not what the ledger gave it.
                self.shared.node.catalogue.distrust(credit.product, credit.epoch);
                Ok(false)
            }
            Err(error) => {
                tracing::debug!(%error, "Redis was not given units; it will be");
                self.servers.forget(&server, credit.product);
                Ok(false)
            }
        }
    }

    /// Offers what this node accepted in an epoch that is sealed to the one that is on sale.
    async fn offer(&self, listed: &Listed) {
        let (product, epoch) = (listed.row.number, listed.epoch());
        let offers = self.shared.offers.before(product, epoch);
        if offers.is_empty() {
            return;
        }
        tracing::warn!(product = %listed.row.id, orders = offers.len(), "offering orders again that Redis lost");
        let sent = offers.into_iter().map(|(grant, offer)| async move {
            let (reply, answered) = oneshot::channel();
            self.lane.push(Ticket {
                product,
                epoch,
                order: offer.order,
                customer: offer.customer.clone(),
                quantity: offer.quantity,
                mode: Mode::Offer { number: grant.1, accepted_at: offer.accepted_at, price: offer.price },
                reply,
            });
            let sent = answered.await.unwrap_or_else(|_| Sent::Unknown("the engine is closing".into()));
            self.heed_offer(product, epoch, grant, offer, sent).await;
        });
        join_all(sent).await;
    }

    /// An order waits under its old grant until its offer is decided.
    async fn heed_offer(&self, product: i32, epoch: i32, grant: (i32, u64), offer: Offer, sent: Sent) {
        let (offers, order) = (&self.shared.offers, offer.order);
        match sent {
            Sent::Answered(Answer::Granted(new) | Answer::Replay(new)) => {
                offers.add(product, (epoch, new.number), offer);
            }
            // The ledger has it, or the order of that id is another one by now: its buyer asked again, for another
            // quantity, when nobody knew it.
            Sent::Answered(Answer::OldReplay(_) | Answer::KeyReused) => {}
            // Where something cannot be read, nobody knows what is left: it is filled anew.
            Sent::Answered(Answer::Refused(Rejection::ConservationBroken)) => {
                return self.shared.node.catalogue.distrust(product, epoch);
            }
            Sent::Answered(
                Answer::NotLoaded(_)
                | Answer::OtherEpoch(_)
                | Answer::Expired
                | Answer::TooOften { .. }
                | Answer::Backlog,
            )
            | Sent::NotSent(_)
            | Sent::Unknown(_) => return,
            Sent::Answered(Answer::Refused(_)) => {
                // Its units went to somebody else: the buyer is told. Redis remembers it as an order that has ended.
                let (now, revoked) = (self.shared.node.now(), [offer.grant(grant.1)]);
                let told = self.postgres.deliver(Way::Deliver, (product, grant.0), (now, now), &revoked);
                if told.await.is_err() {
                    return;
                }
            }
        }
        offers.remove(product, grant, order);
    }
}
