//! What every audit of a ledger in PostgreSQL counts, whichever engine sells from it.

use yoink_core::audit::{Audit, InvariantId, Report};

use crate::postgres::{LedgerAudit, Postgres, ProductCounts};
use crate::reconciliation::{Invariant, OrderCounts, ProductFigures, from_findings};
use crate::{CallError, limits};

/// Recounts the ledger's events up to `last`.
///
/// # Errors
/// The ledger cannot be asked.
pub(crate) async fn replay(postgres: &Postgres, last: u64) -> Result<Report, CallError> {
    let mut audit = Audit::new();
    while audit.seq() < last {
        let events = postgres.events(audit.seq(), limits::READ_EVENTS_MAX).await?;
        if events.is_empty() {
            break; // the ledger counts events that it does not have: the report says so
        }
        events.iter().filter(|event| event.seq <= last).for_each(|event| audit.observe(event));
    }
    Ok(audit.report())
}

/// What the events tell; `untold` are those of which they cannot tell anything.
pub(crate) fn told(report: &Report, untold: &[InvariantId]) -> Vec<Invariant> {
    let told = InvariantId::ALL.into_iter().filter(|id| !untold.contains(id));
    told.map(|id| from_findings(id, report)).collect()
}

/// Whether the ledger's rows add up.
pub(crate) fn adds_up(ledger: &LedgerAudit) -> Invariant {
    let broken: Vec<String> = ledger
        .products
        .iter()
        .filter(|product| product.conservation_error_units() != 0 || product.oversold > 0)
        .map(|product| format!("{} by {}", product.product, product.conservation_error_units()))
        .collect();
    Invariant {
        id: "ledger-adds-up",
        ok: broken.is_empty() && ledger.duplicates == 0,
        detail: match broken.is_empty() {
            true => format!("{} products at event {}", ledger.products.len(), ledger.last_seq),
            false => format!("units that do not add up: {}", broken.join(", ")),
        },
    }
}

/// Whether no customer has more units than the product's limit ever allowed.
pub(crate) fn within_limit(ledger: &LedgerAudit) -> Invariant {
    let above = ledger.products.iter().filter(|product| product.customers_above_limit > 0);
    let above: Vec<String> =
        above.map(|product| format!("{} of {}", product.customers_above_limit, product.product)).collect();
    Invariant {
        id: "customers-within-limit",
        ok: above.is_empty(),
        detail: match above.is_empty() {
            true => "no customer has more than was ever allowed".to_owned(),
            false => format!("customers with more than was ever allowed: {}", above.join(", ")),
        },
    }
}

/// The orders of all products, as the rows say; `waiting` are on their way to the ledger.
pub(crate) fn order_counts(ledger: &LedgerAudit, waiting: u64) -> OrderCounts {
    let sum = |figure: fn(&ProductCounts) -> u64| ledger.products.iter().map(figure).sum::<u64>();
    OrderCounts {
        accepted: sum(|of| of.refused_orders).saturating_add(waiting),
        confirmed: sum(|of| of.live_orders),
        cancelled: sum(|of| of.cancelled),
        failed: sum(|of| of.failed.saturating_add(of.revoked)),
    }
}

/// The units of every product, as its rows say.
pub(crate) fn product_figures(ledger: &LedgerAudit) -> Vec<ProductFigures> {
    ledger.products.iter().map(figures).collect()
}

fn figures(counts: &ProductCounts) -> ProductFigures {
    let sold = counts.live_units.saturating_add(counts.refused_units);
    let available = counts.stocked.saturating_sub(counts.withheld).saturating_sub(sold);
    ProductFigures {
        id: counts.product,
        figures: yoink_core::Figures {
            stocked: counts.stocked,
            available,
            held: 0,
            sold,
            withheld: counts.withheld,
        },
    }
}
