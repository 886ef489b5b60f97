//! Do the numbers add up? Recounts the log with [`yoink_core::audit`], which shares no code with what it counts, and
//! holds the recount against the inventory in memory and against the ledger.

use std::path::Path;

use hashbrown::HashMap;
use yoink_core::audit::{Audit, InvariantId, Report};
use yoink_core::{Event, Figures, ProductId, Seq};

use crate::embedded::engine::EmbeddedEngine;
use crate::embedded::folder::Folder;
use crate::embedded::log::{LogFile, Stretch};
use crate::embedded::recovery::{AcceptLoss, recover};
use crate::embedded::ticket::Books;
use crate::ledger::{FILE_NAME, Ledger, LedgerCounts, LedgerFault};
use crate::views::Change;
use crate::{CallError, Durability, OpenError, limits};

/// The figures of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductFigures {
    /// Which product.
    pub id: ProductId,
    /// Its units, as the inventory has them.
    pub figures: Figures,
}

/// How many orders are where in their life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderCounts {
    /// Live, and not in the ledger yet.
    pub accepted: u64,
    /// Live, and in the ledger.
    pub confirmed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Failed.
    pub failed: u64,
}

/// One promise, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// Its name; stable.
    pub id: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// The figures it was judged by, or what breaks it.
    pub detail: String,
}

/// The result of a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// Whether every invariant holds.
    pub ok: bool,
    /// The event up to which was counted.
    pub seq: Seq,
    /// Units sold beyond what there was.
    pub oversold: u64,
    /// Accepted orders that are neither in the ledger nor on their way there.
    pub lost: u64,
    /// Orders accepted twice.
    pub duplicated: u64,
    /// Units that nobody has and nobody can buy.
    pub stuck: u64,
    /// Every product, in order of creation.
    pub products: Vec<ProductFigures>,
    /// Orders by status.
    pub orders: OrderCounts,
    /// Every promise.
    pub invariants: Vec<Invariant>,
}

impl EmbeddedEngine {
    /// Recounts everything. Reads the whole log, so it takes about a second per million events; selling goes on. A
    /// product whose recount differs from what memory says is paused.
    ///
    /// # Errors
    /// The log or the ledger cannot be read, or the engine is closing.
    pub async fn reconcile(&self) -> Result<Reconciliation, CallError> {
        // The ledger first: it lags behind the log, so its position lies within what is recounted.
        let ledger = self.delivery().counts().await.map_err(CallError::from)?;
        let books = self.books().await?;
        let mut recount = Recount::new(ledger.position);
        while recount.audit.seq() < books.seq {
            match self.stretch(recount.audit.seq(), limits::READ_EVENTS_MAX).await? {
                // Fewer events than the inventory applied: the report says so.
                Stretch::Events(events) if events.is_empty() => break,
                Stretch::Events(events) => {
                    let counted = events.iter().filter(|event| event.seq <= books.seq);
                    counted.for_each(|event| recount.observe(event));
                }
                Stretch::Lost { to } => recount.skip_lost(to),
            }
        }
        let (reconciliation, broken) = recount.judge(&books, &ledger);
        for product in broken {
            tracing::error!(%product, "the units of a product do not add up: its sale is paused");
            self.change(product, Change::Pause).await?;
        }
        Ok(reconciliation)
    }
}

/// Recounts a data folder that no process has open.
///
/// # Errors
/// It is in use, or damaged; nothing was changed then.
pub fn audit_data_folder(path: &Path) -> Result<Reconciliation, OpenError> {
    if !path.join("log.db").exists() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log.db in it");
        return Err(OpenError::DataFolder { path: path.to_path_buf(), source });
    }
    let folder = Folder::open(path)?;
    let file = LogFile { path: folder.file("log.db"), vfs: None };
    let recovered = recover(folder.path(), &file, Durability::Fsync, AcceptLoss::No, None)?;
    let ledger = count_ledger(folder.path())?;
    let inventory = &recovered.inventory;
    let books = Books {
        seq: inventory.last_seq(),
        products: inventory.products().map(|product| (product.id, product.figures())).collect(),
    };
    let mut recount = Recount::new(ledger.position);
    recovered
        .log
        .read(0, |row| {
            if row.events.is_empty() {
                recount.skip_lost(row.last_seq);
            }
            row.events.iter().for_each(|event| recount.observe(event));
            true
        })
        .map_err(|error| crate::embedded::recovery::open_error(&file.path, error))?;
    Ok(recount.judge(&books, &ledger).0)
}

fn count_ledger(folder: &Path) -> Result<LedgerCounts, OpenError> {
    let path = folder.join(FILE_NAME);
    if !path.exists() {
        return Ok(LedgerCounts::default());
    }
    let ledger = Ledger::open(folder, None, LedgerFault::default())?;
    ledger.counts().map_err(|source| OpenError::Sqlite { operation: "count", path, source })
}

/// A recount under way. Keeps what it had at the ledger's position.
struct Recount {
    audit: Audit,
    ledger_position: Seq,
    at_ledger: Option<Report>,
}

impl Recount {
    fn new(ledger_position: Seq) -> Self {
        let audit = Audit::new();
        let at_ledger = (ledger_position == 0).then(|| audit.report());
        Self { audit, ledger_position, at_ledger }
    }

    fn observe(&mut self, event: &Event) {
        self.audit.observe(event);
        self.look_at_ledger();
    }

    fn skip_lost(&mut self, to: Seq) {
        self.audit.skip_lost(to);
        self.look_at_ledger();
    }

    fn look_at_ledger(&mut self) {
        if self.audit.seq() == self.ledger_position {
            self.at_ledger = Some(self.audit.report());
        }
    }

    /// The verdict, and the products that must not be sold until somebody looked.
    fn judge(&self, books: &Books, ledger: &LedgerCounts) -> (Reconciliation, Vec<ProductId>) {
        let report = self.audit.report();
        let (broken, stuck) = differences(books, &report);
        let (lost, surplus, delivery) = compare_ledger(self.at_ledger.as_ref(), ledger);
        let mut invariants: Vec<Invariant> =
            InvariantId::ALL.into_iter().map(|id| from_findings(id, &report)).collect();
        invariants.push(Invariant {
            id: "memory-equals-log",
            ok: broken.is_empty() && report.seq == books.seq,
            detail: match broken.is_empty() {
                true => format!("{} products at event {} of {}", books.products.len(), report.seq, books.seq),
                false => format!("the recount differs for {broken:?}"),
            },
        });
        invariants.push(Invariant {
            id: "accepted-orders-in-ledger",
            ok: lost == 0 && surplus == 0 && ledger.duplicates == 0,
            detail: delivery,
        });
        let unfinished = ledger.retrying.saturating_add(ledger.dead_letters_open);
        let live_now = report.orders.live;
        let confirmed = ledger.confirmed.min(live_now);
        let reconciliation = Reconciliation {
            ok: invariants.iter().all(|invariant| invariant.ok) && stuck == 0,
            seq: report.seq,
            oversold: report.oversold_units,
            lost,
            duplicated: report.duplicated_orders.saturating_add(ledger.duplicates),
            stuck,
            products: books
                .products
                .iter()
                .map(|(id, figures)| ProductFigures { id: *id, figures: *figures })
                .collect(),
            orders: OrderCounts {
                accepted: live_now.saturating_sub(confirmed).max(unfinished.min(live_now)),
                confirmed,
                cancelled: report.orders.cancelled,
                failed: report.orders.failed,
            },
            invariants,
        };
        (reconciliation, broken)
    }
}

pub(crate) fn from_findings(id: InvariantId, report: &Report) -> Invariant {
    let count = report.count(id);
    let detail = match report.findings.iter().find(|finding| finding.invariant == id) {
        None => id.promise().to_owned(),
        Some(first) => format!("broken {count} times, first at event {}: {}", first.seq, first.detail),
    };
    Invariant { id: id.name(), ok: count == 0, detail }
}

/// Products whose figures in memory are not the recounted ones, and units that memory keeps from being sold.
fn differences(books: &Books, report: &Report) -> (Vec<ProductId>, u64) {
    let mut broken = Vec::new();
    let mut stuck = 0_u64;
    for (id, figures) in &books.products {
        let recounted = report.product(id);
        let same = recounted.is_some_and(|recounted| {
            recounted.stocked == i128::from(figures.stocked)
                && recounted.available == i128::from(figures.available)
                && recounted.held == i128::from(figures.held)
                && recounted.sold == i128::from(figures.sold)
                && recounted.withheld == i128::from(figures.withheld)
        });
        if !same || figures.conservation_error_units() != 0 {
            broken.push(*id);
        }
        let missing = recounted
            .map_or(0, |recounted| recounted.available.saturating_sub(i128::from(figures.available)));
        stuck = stuck.saturating_add(u64::try_from(missing).unwrap_or(0));
    }
    (broken, stuck)
}

/// Orders that the ledger lacks, orders that it has too many, and a sentence.
fn compare_ledger(recounted: Option<&Report>, ledger: &LedgerCounts) -> (u64, u64, String) {
    let Some(recounted) = recounted else {
        let detail = format!("the ledger is at event {}, which the log does not have", ledger.position);
        return (0, ledger.confirmed.max(1), detail);
    };
    let mut units: HashMap<ProductId, i128> =
        recounted.products.iter().map(|product| (product.id, product.sold)).collect();
    for product in &ledger.products {
        let has = i128::from(product.live_units.saturating_add(product.undelivered_units));
        *units.entry(product.product).or_insert(0) -= has;
    }
    let has: u64 = ledger
        .products
        .iter()
        .map(|product| product.live_orders.saturating_add(product.undelivered_orders))
        .sum();
    let (mut lost, mut surplus) =
        (recounted.orders.live.saturating_sub(has), has.saturating_sub(recounted.orders.live));
    // Orders may balance while their units do not: a row with a wrong quantity, or of a wrong product.
    if units.values().any(|difference| *difference > 0) {
        lost = lost.max(1);
    }
    if units.values().any(|difference| *difference < 0) {
        surplus = surplus.max(1);
    }
    let detail = format!(
        "{} live orders at event {}: {} in the ledger, {} to be tried again, {} dead letters",
        recounted.orders.live, ledger.position, ledger.confirmed, ledger.retrying, ledger.dead_letters_open
    );
    (lost, surplus, detail)
}
