//! Restocks and withdrawals. Units are added in the ledger before Redis and taken from Redis before the ledger, so they
//! appear late or vanish early, and are never there twice.

use redis::RedisError;
use uuid::Uuid;
use yoink_core::{Rejection, Seq, StockAdjustment};

use super::servers::Servers;
use super::{RedisEngine, Shared, keeper_pause, script};
use crate::CallError;
use crate::postgres::{AdjustmentBegun, AdjustmentOutcome, ErrorClass, Postgres, WithdrawalEnd};
use crate::views::{Adjusted, Replayed};

/// How often a withdrawal looks for its units before it is left to whoever looks next.
const LOOKS_MAX: usize = 20;

/// Units to be taken off sale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taking {
    pub(crate) adjustment: Uuid,
    pub(crate) product: i32,
    pub(crate) epoch: i32,
    pub(crate) units: u64,
}

/// How a withdrawal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// The units are off sale; this event says so.
    Done(Seq),
    /// There are not so many left.
    Short { available: u64 },
    /// Redis or the ledger cannot be asked; it is brought to its end later.
    Later,
}

impl RedisEngine {
    /// Restocks or withdraws.
    ///
    /// # Errors
    /// As [`crate::Engine::adjust_stock`].
    pub(crate) async fn adjust_stock(&self, adjustment: StockAdjustment) -> Result<Adjusted, CallError> {
        let (id, delta) = (adjustment.product, adjustment.delta);
        let (seq, replayed) =
            self.desk().in_background_with(self, move |engine| adjust(engine, adjustment)).await?;
        self.desk().refresh_catalogue().await;
        self.look_at(&id).await;
        let figures = self.desk().find_product(&id).await.map(|listed| listed.figures()).unwrap_or_default();
        Ok(Adjusted { seq, delta, figures, replayed })
    }
}

async fn adjust(engine: RedisEngine, adjustment: StockAdjustment) -> Result<(Seq, Replayed), CallError> {
    let (postgres, shared) = (engine.postgres(), engine.shared());
    let seq = |begun: AdjustmentBegun| begun.event.unwrap_or_default();
    match postgres.adjust_stock(&adjustment, shared.node.now()).await? {
        AdjustmentOutcome::Done(begun) => {
            engine.apply_credits_now().await;
            Ok((seq(begun), Replayed::No))
        }
        AdjustmentOutcome::Again(begun) => {
            // Whoever made it may have died before Redis had the units.
            engine.apply_credits_now().await;
            Ok((seq(begun), Replayed::Yes))
        }
        AdjustmentOutcome::Withdraw(begun) => {
            let taking = Taking {
                adjustment: begun.adjustment,
                product: begun.product,
                epoch: begun.epoch,
                units: adjustment.delta.unsigned_abs(),
            };
            match withdraw(postgres, engine.servers(), shared, taking).await {
                Withdrawn::Done(event) => Ok((event, Replayed::No)),
                Withdrawn::Short { available } => Err(Rejection::BelowCommitted { available }.into()),
                Withdrawn::Later => Err(CallError::OutcomeUnknown),
            }
        }
        AdjustmentOutcome::KeyReused => Err(Rejection::KeyReused { original: None }.into()),
        AdjustmentOutcome::TooLarge => Err(Rejection::StockTooLarge.into()),
        AdjustmentOutcome::NotFound => Err(Rejection::ProductNotFound.into()),
    }
}

/// Brings a withdrawal to its end. May be done by several at once: Redis marks what it gave, and the ledger's row is
/// finished once.
pub(crate) async fn withdraw(
    postgres: &Postgres,
    servers: &Servers,
    shared: &Shared,
    taking: Taking,
) -> Withdrawn {
    let mut epoch = taking.epoch;
    for _ in 0..LOOKS_MAX {
        let ended = match debit(servers, shared, taking, epoch).await {
            Ok(Some(Debit::Taken)) => {
                postgres.finish_withdrawal(taking.adjustment, epoch, shared.node.now()).await
            }
            Ok(Some(Debit::Short { available })) => {
                match postgres.refuse_withdrawal(taking.adjustment, epoch, shared.node.now()).await {
                    Ok(WithdrawalEnd::Refused) => return Withdrawn::Short { available },
                    other => other,
                }
            }
            // Redis is being filled anew, or cannot be asked: the next epoch may be there already.
            Ok(None) | Err(_) => {
                tokio::time::sleep(keeper_pause()).await;
                epoch = shared.node.catalogue.epoch(taking.product);
                continue;
            }
        };
        match ended {
            Ok(WithdrawalEnd::Done(event)) => return Withdrawn::Done(event),
            Ok(WithdrawalEnd::Elsewhere) => {
                tokio::time::sleep(keeper_pause()).await;
                epoch = shared.node.catalogue.epoch(taking.product);
            }
            Ok(WithdrawalEnd::Refused) => {
                // Redis gave the units, but somebody else had found too few and gave it up: they go back.
                shared.node.catalogue.distrust(taking.product, epoch);
                return Withdrawn::Later;
            }
            Err(error) => {
                if error.class() == ErrorClass::Permanent {
                    // Redis gave more than the ledger has.
                    shared.node.catalogue.distrust(taking.product, epoch);
                }
                return Withdrawn::Later;
            }
        }
    }
    Withdrawn::Later
}

/// What Redis says to a withdrawal.
enum Debit {
    Taken,
    Short { available: u64 },
}

/// `None` if Redis has no such sale just now.
async fn debit(
    servers: &Servers,
    shared: &Shared,
    taking: Taking,
    epoch: i32,
) -> Result<Option<Debit>, RedisError> {
    let Ok(server) = servers.of(taking.product).await else { return Ok(None) };
    let keys = shared.keys(taking.product, epoch);
    let mut call = script::DEBIT.prepare_invoke();
    call.key(keys.sale).key(keys.buyers).arg(epoch);
    call.arg(taking.adjustment.simple().to_string()).arg(taking.units);
    let answer: String = match call.invoke_async(&mut server.connection.clone()).await {
        Err(error) => {
            servers.forget(&server, taking.product);
            return Err(error);
        }
        Ok(answer) => answer,
    };
    Ok(match answer.split_once('|') {
        None if answer == "taken" => Some(Debit::Taken),
        Some(("short", available)) => Some(Debit::Short { available: available.parse().unwrap_or(0) }),
        _ => None,
    })
}
