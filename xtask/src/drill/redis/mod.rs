//! `cargo xtask drill --engine redis`: real nodes, workers, Redis and PostgreSQL, and everything that can happen to them.

mod fault;
mod plan;
mod stage;

use std::path::Path;

use anyhow::Result;

pub(crate) use self::plan::RedisArgs;
use self::stage::RedisStage;
use super::DrillReport;
use super::shop::{ShopArgs, rounds};

/// Drills and judges. Records and logs are in `folder`.
pub(super) fn run(
    binary: &Path,
    (folder, seed, buyers, shop): (&Path, u64, usize, &ShopArgs),
    args: &RedisArgs,
) -> Result<DrillReport> {
    let open = || RedisStage::open(binary, folder);
    rounds::run(open, plan::kinds(args), (folder, seed, buyers, shop))
}
