//! Storms against real servers, right and wrong ones, on ephemeral ports of the loopback address.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

mod files;
mod latency;
mod presets;
mod shop;
mod unnamed;
mod verdict;

use yoink_load::{ProgressMode, StormError, StormOptions, StormReport};

use shop::Shop;

/// Options for a quiet storm on `shop`; everything that a test sets beyond this matters.
fn options(shop: &Shop) -> StormOptions {
    StormOptions { target: shop.url(), progress: ProgressMode::Hidden, ..StormOptions::default() }
}

/// Runs a storm in a single-threaded runtime, as the command line does.
fn storm(options: StormOptions) -> Result<StormReport, StormError> {
    block_on(yoink_load::run(options))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
