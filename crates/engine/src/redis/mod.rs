//! The redis engine: many nodes on one Redis (or a cluster of them) and one PostgreSQL.
//!
//! ```text
//! purchase  buy.rs → lane.rs → purchase.lua    decided, taken and written to the stream in one atomic step
//! delivery  worker.rs → the ledger              one transaction per batch, then settle.lua
//! units     stock.rs, keeper.rs → credit.lua    into Redis once, debit.lua out of it
//! trouble   loader.rs → load.lua                Redis is filled anew from the ledger, under a new epoch
//! ```
//!
//! PostgreSQL is the authority on how many units there are; Redis holds an allocation of them and decides fast.

mod answer;
mod audit;
mod background;
mod buy;
mod changes;
mod checks;
mod customers;
mod doubts;
mod entry;
mod facade;
mod filling;
mod foreign;
mod keeper;
mod keys;
mod lane;
mod loader;
mod look;
mod mistakes;
mod offers;
mod open;
mod orders;
mod outcome;
mod products;
mod repair;
mod rescue;
mod rush;
mod script;
mod seen;
mod servers;
mod shared;
mod shown;
mod status;
mod stock;
mod stream;
mod worker;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use self::lane::Lane;
pub(crate) use self::lane::LaneDriver;
pub use self::mistakes::Mistakes;
pub use self::open::{RedisOpenError, RedisOptions};
pub use self::repair::{RepairError, Repaired};
use self::servers::Servers;
pub(crate) use self::shared::Shared;
pub use self::status::{RedisStatus, SaleStatus};
use crate::node::Desk;
pub use crate::node::Ping;
use crate::postgres::Postgres;

/// The redis engine. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub(crate) struct RedisEngine {
    parts: Arc<open::Parts>,
    lane: Arc<Lane>,
}

impl RedisEngine {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.parts.shared
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.parts.desk
    }

    pub(crate) fn postgres(&self) -> &Postgres {
        &self.parts.desk.postgres
    }

    fn servers(&self) -> &Arc<Servers> {
        &self.parts.servers
    }

    fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The same engine with a lane of its own, whose driver is to be run on the caller's runtime.
    pub(crate) fn with_own_lane(&self) -> (Self, LaneDriver) {
        let lane = Arc::new(Lane::default());
        // Connections belong to the runtime that made them.
        let servers = Servers::new(&self.parts.redis_url);
        let driver = LaneDriver::new(&lane, servers, Arc::clone(self.shared()));
        (Self { parts: Arc::clone(&self.parts), lane }, driver)
    }
}

/// The wait between two looks at something that another node is changing.
pub(crate) fn keeper_pause() -> Duration {
    Duration::from_millis(100)
}
