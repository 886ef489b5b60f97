//! The transactions that carry events and refused orders to the ledger.

use std::error::Error;
use std::time::Duration;

use yoink_core::{Event, Fact, Seq, Timestamp};

use super::{DeadLetterState, DeliveryOptions, OnDeadLetter, retry::Backoff};
use crate::{
    OrderStatus,
    ledger::{Due, Ended, Inserted, OrderEndRow, OrderRow, Retry, Rows},
};

/// What decides about refused orders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub attempts_max: u32,
    pub backoff: Backoff,
    pub on_dead_letter: OnDeadLetter,
}

impl From<&DeliveryOptions> for Policy {
    fn from(options: &DeliveryOptions) -> Self {
        Self {
            attempts_max: options.attempts_max,
            backoff: Backoff { base: options.backoff_base, max: options.backoff_max },
            on_dead_letter: options.on_dead_letter,
        }
    }
}

/// What a transaction did, to be told once it is committed.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Live orders that are in the ledger now and were not before.
    pub confirmed: u64,
    /// Orders that were refused and will be tried again.
    pub refused: Vec<Due>,
    /// Orders that are dead letters now.
    pub dead: Vec<Seq>,
    /// Orders that no longer wait to be tried again: they are in the ledger.
    pub delivered: Vec<Seq>,
    /// Orders that ended while they were refused or dead letters.
    pub ended: Vec<Seq>,
}

/// Carries a batch of events and moves the position behind it.
pub(super) fn carry_events(
    rows: &Rows<'_>,
    events: Vec<Event>,
    policy: Policy,
    now: Timestamp,
) -> Result<Carried, rusqlite::Error> {
    let mut carried = Carried::default();
    let mut position = None;
    for event in events {
        position = Some(event.seq);
        carry_event(rows, event, policy, now, &mut carried)?;
    }
    if let Some(position) = position {
        rows.set_position(position)?;
    }
    Ok(carried)
}

fn carry_event(
    rows: &Rows<'_>,
    event: Event,
    policy: Policy,
    now: Timestamp,
    carried: &mut Carried,
) -> Result<(), rusqlite::Error> {
    let place = (event.seq, event.at);
    match event.fact {
        Fact::OrderAccepted(accepted) => {
            let order = OrderRow::accepted(event.seq, event.at, accepted);
            match rows.insert_order(&order)? {
                Inserted::New => carried.confirmed = carried.confirmed.saturating_add(1),
                Inserted::AlreadyThere => {}
                Inserted::Refused(error) => refuse(rows, (order, 1), &error, policy, now, carried)?,
            }
        }
        Fact::OrderCancelled { order, reason } => {
            let end = OrderEndRow::new(OrderStatus::Cancelled, place, reason);
            note_end(rows.end_order(order, &end)?, carried);
        }
        Fact::OrderFailed { order, reason } => {
            let end = OrderEndRow::new(OrderStatus::Failed, place, reason);
            note_end(rows.end_order(order, &end)?, carried);
        }
        Fact::ProductCreated { id, product } => rows.product_created(place, &id, product.stock)?,
        Fact::StockAdjusted(adjustment) => rows.stock_adjusted(place, &adjustment)?,
        Fact::ProductChanged { .. } | Fact::SalePaused { .. } | Fact::SaleResumed { .. } => {}
    }
    Ok(())
}

/// Tries the orders at these places of the log again.
pub(super) fn carry_retries(
    rows: &Rows<'_>,
    orders: &[Seq],
    policy: Policy,
    now: Timestamp,
) -> Result<Carried, rusqlite::Error> {
    let mut carried = Carried::default();
    for seq in orders {
        let Some(retry) = rows.retry(*seq)? else {
            carried.delivered.push(*seq);
            continue;
        };
        match rows.insert_order(&retry.order)? {
            Inserted::Refused(error) => {
                let attempts = retry.attempts.saturating_add(1);
                refuse(rows, (retry.order, attempts), &error, policy, now, &mut carried)?;
            }
            inserted => {
                rows.remove_retry(*seq)?;
                carried.delivered.push(*seq);
                let is_confirmed = retry.order.end.is_none() && matches!(inserted, Inserted::New);
                carried.confirmed = carried.confirmed.saturating_add(u64::from(is_confirmed));
            }
        }
    }
    Ok(carried)
}

/// An order was refused for the `attempts`-th time: it is tried again later, or is a dead letter.
fn refuse(
    rows: &Rows<'_>,
    (order, attempts): (OrderRow, u32),
    error: &rusqlite::Error,
    policy: Policy,
    now: Timestamp,
    carried: &mut Carried,
) -> Result<(), rusqlite::Error> {
    let next_at = after(now, policy.backoff.delay(attempts));
    let refused = Retry { order, attempts, next_at, error: chain(error) };
    let (seq, id) = (refused.order.seq, refused.order.id);
    tracing::warn!(order = %id, seq, attempts, error = refused.error, "the ledger refused an order");
    if attempts < policy.attempts_max {
        rows.put_retry(&refused)?;
        carried.refused.push(refused.due());
        return Ok(());
    }
    let state = match policy.on_dead_letter {
        OnDeadLetter::Release => DeadLetterState::Releasing,
        OnDeadLetter::Park => DeadLetterState::Parked,
    };
    rows.put_dead_letter(&refused, state, now)?;
    rows.remove_retry(seq)?;
    carried.dead.push(seq);
    Ok(())
}

fn note_end(ended: Ended, carried: &mut Carried) {
    if let Ended::Undelivered(seq) = ended {
        carried.ended.push(seq);
    }
}

/// `wait` after `now`.
pub(super) fn after(now: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

/// An error and everything behind it, as one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some errors repeat what is behind them.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
