//! What the parts of one node share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::entry::time_of;
use super::mistakes::Mistakes;
use super::offers::Offers;
use super::open::RedisOptions;
use super::status::Gauges;
use crate::node::Node;

/// What the parts of one node share.
pub(crate) struct Shared {
    pub(crate) options: RedisOptions,
    pub(crate) node: Arc<Node>,
    pub(crate) offers: Offers,
    /// When a sale was first seen to take offers only, by product and epoch.
    pub(crate) offers_since: Mutex<HashMap<(i32, i32), Instant>>,
    /// Figures that do not add up in Redis, by product.
    pub(crate) differences: Mutex<HashMap<i32, i64>>,
    pub(crate) gauges: Gauges,
}

impl Shared {
    pub(crate) fn new(options: RedisOptions, node: Arc<Node>) -> Self {
        Self {
            options,
            node,
            offers: Offers::default(),
            offers_since: Mutex::default(),
            differences: Mutex::default(),
            gauges: Gauges::new(),
        }
    }

    /// Constant, and so gone, in a build that cannot make mistakes.
    pub(crate) fn mistakes(&self) -> Mistakes {
        match cfg!(feature = "faults") {
            true => self.options.mistakes,
            false => Mistakes::default(),
        }
    }

    /// How many grants of a product were made and settled, and the id of the oldest entry that waits.
    pub(crate) fn note_backlog(&self, product: i32, granted: u64, settled: u64, oldest: Option<&str>) {
        self.node.note_backlog(product, granted, settled, oldest.and_then(time_of));
    }
}
