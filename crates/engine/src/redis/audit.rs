//! Do the numbers add up? Recounts the ledger's events with [`yoink_core::audit`], counts the ledger's rows, and holds
//! both against what Redis says and what is in the stream.

use yoink_core::audit::{InvariantId, Report};

use super::RedisEngine;
use super::entry::parse_line;
use super::foreign::Foreign;
use super::look::{every_field, is_of_another_type, look};
use super::seen::{SALE_FIELDS, Sale, SaleFigures};
use super::servers::Server;
use super::stream::StreamEntry;
use crate::CallError;
use crate::node::audit;
use crate::postgres::{Grant, LedgerAudit, ProductRow};
use crate::reconciliation::{Invariant, Reconciliation};

/// Entries of the stream that are read at once.
const PAGE_ENTRIES: usize = 500;
/// How often a product is looked at before a difference is believed: orders move while it is counted.
pub(super) const LOOKS_MAX: usize = 20;

/// Redis decides these, by what is true when it decides; the ledger hears of an order a moment later, and may have heard
/// of a pause, a new price or another limit in between. Its events cannot tell.
const DECIDED_IN_REDIS: [InvariantId; 6] = [
    InvariantId::InsideWindow,
    InvariantId::NotWhilePaused,
    InvariantId::PriceAsListed,
    InvariantId::QuantityInRange,
    InvariantId::LimitPerCustomer,
    InvariantId::TimeForward,
];

/// What Redis says about one sale.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InRedis {
    figures: SaleFigures,
    /// Where what is said about the product is not what the ledger says, in words.
    differences: Vec<String>,
    /// Orders in the stream that the ledger does not have, whether somebody has them in hand or not.
    waiting_orders: u64,
    /// Their units.
    waiting_units: u64,
}

/// One sale, ledger and Redis side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Units that Redis would sell beyond what the ledger has.
    surplus_units: u64,
    /// Units that the ledger has and Redis does not sell.
    stuck_units: u64,
    /// Grants that are neither in the ledger nor in the stream.
    lost_orders: u64,
    /// Orders on their way.
    waiting_orders: u64,
    /// What is wrong, in words.
    detail: Option<String>,
    /// Neither agreement nor a difference could be told.
    is_moving: bool,
}

impl Compared {
    /// It never stood still for long enough to be counted.
    fn moving() -> Self {
        let detail = Some("it could not be compared while it moves; try again when less is sold".to_owned());
        Self { detail, is_moving: true, ..Self::default() }
    }

    /// What two looks both show to be wrong; `None` if one of them found nothing.
    fn in_both(&self, later: &Self) -> Option<Self> {
        self.detail.as_ref()?;
        Some(Self {
            surplus_units: self.surplus_units.min(later.surplus_units),
            stuck_units: self.stuck_units.min(later.stuck_units),
            lost_orders: self.lost_orders.min(later.lost_orders),
            waiting_orders: later.waiting_orders,
            detail: Some(later.detail.clone()?),
            is_moving: false,
        })
    }

    /// The same, and what else is certainly wrong, in words.
    fn with(mut self, wrong: Option<String>) -> Self {
        if let Some(wrong) = wrong {
            self.is_moving = false;
            self.detail = Some(self.detail.into_iter().chain([wrong]).collect::<Vec<_>>().join("; "));
        }
        self
    }

    /// How Redis differs from the ledger, in words, if it certainly does.
    pub(super) fn difference(self) -> Option<String> {
        self.detail.filter(|_| !self.is_moving)
    }
}

/// One look at Redis, between two at the ledger.
struct Look {
    before: LedgerSide,
    after: LedgerSide,
    /// Redis, held against the first.
    compared: Compared,
}

impl Look {
    /// Whether the ledger moved meanwhile.
    fn has_moved(&self) -> bool {
        self.before != self.after
    }
}

/// A product, and how many grants of its epoch the ledger has.
type LedgerSide = (ProductRow, u64);

impl RedisEngine {
    /// Recounts everything. Selling goes on; what moves while it is counted is looked at again.
    ///
    /// # Errors
    /// The ledger or Redis cannot be asked.
    pub(crate) async fn reconcile(&self) -> Result<Reconciliation, CallError> {
        self.desk().in_background_with(self, |engine| async move { engine.recount().await }).await
    }

    async fn recount(&self) -> Result<Reconciliation, CallError> {
        let ledger = self.postgres().audit().await?;
        let report = audit::replay(self.postgres(), ledger.last_seq).await?;
        let mut compared = Vec::new();
        for row in self.postgres().products().await? {
            compared.push((row.id, self.compare(row.number).await?));
        }
        Ok(judge(&ledger, &report, &compared))
    }

    /// Holds a sale against the ledger: its figures, what is said about it, and what its customers have.
    pub(super) async fn compare(&self, product: i32) -> Result<Compared, CallError> {
        let compared = self.compare_sale(product).await?;
        Ok(compared.with(self.compare_customers(product).await?))
    }

    /// Looks at a sale until what the ledger and Redis say agrees: in one look during which the ledger stood still, or
    /// in two, one after the other. What differs is believed as far as two looks, one after the other, show it while the
    /// ledger stands still, and no later look finds that they agree.
    async fn compare_sale(&self, product: i32) -> Result<Compared, CallError> {
        let (mut last, mut believed): (Option<Look>, Option<Compared>) = (None, None);
        for _ in 0..LOOKS_MAX {
            let look = self.look_at_both(product).await?;
            if let Some(last) = &last
                && !last.has_moved()
                && !look.has_moved()
                && last.after == look.before
            {
                believed = last.compared.in_both(&look.compared).or(believed);
            }
            let is_second = last.is_some_and(|last| last.compared.detail.is_none());
            if look.compared.detail.is_none() && (!look.has_moved() || is_second) {
                return Ok(look.compared);
            }
            last = Some(look);
            tokio::time::sleep(super::keeper_pause()).await;
        }
        Ok(believed.unwrap_or_else(Compared::moving))
    }

    async fn look_at_both(&self, product: i32) -> Result<Look, CallError> {
        let before = self.ledger_side(product).await?;
        let redis = self.redis_side(&before.0).await?;
        let after = self.ledger_side(product).await?;
        let compared = match redis {
            Ok(redis) => hold_against(&before.0, before.1, redis),
            // Being filled anew, if it is so only for a moment.
            Err(why) => Compared { detail: Some(why), ..Compared::default() },
        };
        Ok(Look { before, after, compared })
    }

    /// A product, and how many grants of its epoch the ledger has.
    async fn ledger_side(&self, product: i32) -> Result<LedgerSide, CallError> {
        let row = self.postgres().product_numbered(product).await?.ok_or(CallError::OutcomeUnknown)?;
        let grants = self.postgres().grants_of(product, row.epoch).await?;
        Ok((row, grants))
    }

    /// What Redis says about a product that the ledger says this of. Inside: why there is nothing to compare, in words.
    async fn redis_side(&self, row: &ProductRow) -> Result<Result<InRedis, String>, CallError> {
        let server = self.servers().of(row.number).await.map_err(|_| CallError::Unreachable)?;
        let (mut waiting_orders, mut waiting_units) = (0_u64, 0_u64);
        let sale = self.read_sale(&server, row, |grant| {
            waiting_orders += 1;
            waiting_units += u64::from(grant.quantity.unsigned_abs());
        });
        let sale = sale.await?.filter(|sale| sale.is_of(row.epoch));
        let mut foreign = Foreign::default();
        let key = self.shared().keys(row.number, row.epoch).sale;
        let read = every_field(&server, &key, |field, value| foreign.note(field, &value)).await;
        read.map_err(|_| CallError::Unreachable)?;
        let foreign = foreign.in_words("sale");
        let Some((sale, figures)) = sale.and_then(|sale| sale.figures().map(|figures| (sale, figures)))
        else {
            let words = ["Redis does not sell it".to_owned()].into_iter().chain(foreign);
            return Ok(Err(words.collect::<Vec<_>>().join("; ")));
        };
        let differences = sale.differences(row).into_iter().chain(foreign).collect();
        Ok(Ok(InRedis { figures, differences, waiting_orders, waiting_units }))
    }

    /// A sale, and every grant in its stream that the ledger does not have, which `take` is told of; nothing if one of its
    /// keys is of another type. (The ledger has a grant before it leaves the stream.)
    pub(super) async fn read_sale(
        &self,
        server: &Server,
        row: &ProductRow,
        mut take: impl FnMut(&Grant),
    ) -> Result<Option<Sale>, CallError> {
        let keys = self.shared().keys(row.number, row.epoch);
        let mut from = "-".to_owned();
        loop {
            let asked = look(server, &keys, &SALE_FIELDS, (&from, PAGE_ENTRIES), "e").await;
            let (sale, page, _) = match asked {
                Err(error) if is_of_another_type(&error) => return Ok(None),
                asked => asked.map_err(|_| CallError::Unreachable)?,
            };
            let lines = page.iter().filter_map(StreamEntry::lines).flat_map(str::lines);
            let grants: Vec<Grant> = lines.filter_map(|line| parse_line(line).ok()).collect();
            let known = self.postgres().grants_among(row.number, row.epoch, &grants).await?;
            let waiting = grants.iter().filter(|grant| !known.contains(&(grant.order, grant.number)));
            waiting.for_each(&mut take);
            match page.last() {
                Some(last) if page.len() == PAGE_ENTRIES => from = format!("({}", last.id),
                _ => return Ok(Some(Sale(sale))),
            }
        }
    }
}

/// The ledger has `grants` of the epoch.
fn hold_against(row: &ProductRow, grants: u64, redis: InRedis) -> Compared {
    let SaleFigures { available, credited, granted, number, .. } = redis.figures;
    let mut details = redis.differences;
    let in_ledger = row.units.saturating_sub(row.sold);
    // What waits in the stream is taken in Redis and not yet in the ledger.
    let in_redis = available.saturating_add(redis.waiting_units);
    if !redis.figures.adds_up() {
        details
            .push(format!("Redis has {credited} units given, {granted} granted, but {available} available"));
    }
    if in_ledger != in_redis {
        details.push(format!(
            "the ledger has {in_ledger} units to sell, Redis {available} and {} on their way",
            redis.waiting_units
        ));
    }
    let known = grants.saturating_add(redis.waiting_orders);
    if number > known {
        details.push(format!(
            "Redis made {number} grants, of which the ledger has {grants} and the stream {}",
            redis.waiting_orders
        ));
    }
    Compared {
        surplus_units: in_redis.saturating_sub(in_ledger),
        stuck_units: in_ledger.saturating_sub(in_redis),
        lost_orders: number.saturating_sub(known),
        waiting_orders: redis.waiting_orders,
        detail: (!details.is_empty()).then(|| details.join("; ")),
        is_moving: false,
    }
}

fn judge(
    ledger: &LedgerAudit,
    report: &Report,
    compared: &[(yoink_core::ProductId, Compared)],
) -> Reconciliation {
    let in_redis = |figure: fn(&Compared) -> u64| compared.iter().map(|(_, of)| figure(of)).sum::<u64>();
    let mut invariants = audit::told(report, &DECIDED_IN_REDIS);
    invariants.push(audit::adds_up(ledger));
    invariants.push(audit::within_limit(ledger));
    let details: Vec<String> = compared
        .iter()
        .filter_map(|(id, compared)| compared.detail.as_ref().map(|detail| format!("{id}: {detail}")))
        .collect();
    invariants.push(Invariant {
        id: "redis-equals-ledger",
        ok: details.is_empty(),
        detail: match details.is_empty() {
            true => format!(
                "{} products, {} orders on their way",
                compared.len(),
                in_redis(|of| of.waiting_orders)
            ),
            false => details.join("; "),
        },
    });
    Reconciliation {
        ok: invariants.iter().all(|invariant| invariant.ok),
        seq: ledger.last_seq,
        oversold: report.oversold_units.max(in_redis(|of| of.surplus_units)),
        lost: in_redis(|of| of.lost_orders),
        duplicated: report.duplicated_orders.saturating_add(ledger.duplicates),
        stuck: in_redis(|of| of.stuck_units),
        products: audit::product_figures(ledger),
        orders: audit::order_counts(ledger, in_redis(|of| of.waiting_orders)),
        invariants,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_neither_counted_nor_repaired() {
        let moving = Compared::moving();
        assert_eq!((moving.surplus_units, moving.stuck_units, moving.lost_orders), (0, 0, 0));
        assert!(moving.detail.is_some(), "it is told");
        assert_eq!(moving.difference(), None, "and no reason to repair");
    }

    #[test]
    fn of_two_looks_what_both_show_is_believed() {
        let detail = Some("wrong".to_owned());
        let first =
            Compared { lost_orders: 3, surplus_units: 1, detail: detail.clone(), ..Compared::default() };
        let second =
            Compared { lost_orders: 1, stuck_units: 1, detail: detail.clone(), ..Compared::default() };
        let both = first.in_both(&second).unwrap();
        assert_eq!((both.lost_orders, both.surplus_units, both.stuck_units), (1, 0, 0));
        assert_eq!(both.difference(), detail);
        assert_eq!(first.in_both(&Compared::default()), None);
        assert_eq!(Compared::default().in_both(&second), None);
    }
}
