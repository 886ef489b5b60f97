//! `cargo xtask drill --engine rabbitmq`: real nodes, workers, RabbitMQ, Redis and PostgreSQL, and everything that can
//! happen to them.

mod broker;
mod fault;
mod locks;
mod plan;
mod stage;

use std::path::Path;

use anyhow::Result;

pub(crate) use self::plan::RabbitArgs;
use self::stage::RabbitStage;
use super::DrillReport;
use super::shop::{ShopArgs, rounds};

/// Drills and judges. Records and logs are in `folder`.
pub(super) fn run(
    binary: &Path,
    (folder, seed, buyers, shop): (&Path, u64, usize, &ShopArgs),
    args: &RabbitArgs,
) -> Result<DrillReport> {
    let kinds = plan::kinds(args)?;
    rounds::run(|| RabbitStage::open(binary, folder), kinds, (folder, seed, buyers, shop))
}
