//! Looks regularly whether the books still balance: the units of live orders, counted from the rows of the ledger, must
//! be what memory calls sold. A product for which they are not is paused, and says so in `conservation_error_units`.
//!
//! Memory and ledger come from the same events by different code, so a mistake in either shows here. The full recount
//! of the log is [`crate::Engine::reconcile`]; this look costs a third of a second per million orders, on the thread of
//! delivery, and is only taken when nobody is buying.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use yoink_core::{Command, ProductId, Seq};

use crate::delivery::Delivery;
use crate::embedded::ticket::{Answer, Ask, Books};
use crate::embedded::writer::Shared;
use crate::ledger::LedgerCounts;
use crate::source::WriterSource;

/// The watch over the books; ends when told to.
pub(crate) struct Watch {
    stopped: Arc<Stopped>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Stopped {
    is_stopped: Mutex<bool>,
    changed: Condvar,
}

impl Watch {
    /// Begins to watch. Without a thread there is no watch, and selling goes on.
    pub(crate) fn start(
        shared: Arc<Shared>,
        writer: WriterSource,
        delivery: Delivery,
        every: Duration,
    ) -> Self {
        let stopped = Arc::new(Stopped::default());
        let told = Arc::clone(&stopped);
        let watch = move || watch(&told, &shared, &writer, &delivery, every);
        let thread = std::thread::Builder::new().name("yoink-watch".to_owned()).spawn(watch);
        if let Err(error) = &thread {
            tracing::warn!(%error, "the books are not watched: no thread could be started");
        }
        Self { stopped, thread: Mutex::new(thread.ok()) }
    }

    /// Ends the watch and waits for its thread.
    pub(crate) fn stop(&self) {
        *self.stopped.is_stopped.lock() = true;
        self.stopped.changed.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // If it panicked it has said so; there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

fn watch(stopped: &Stopped, shared: &Shared, writer: &WriterSource, delivery: &Delivery, every: Duration) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let mut looked_at: Seq = 0;
    let mut is_stopped = stopped.is_stopped.lock();
    while !*is_stopped {
        stopped.changed.wait_for(&mut is_stopped, every);
        if *is_stopped {
            return;
        }
        let last = shared.tail.last_seq();
        if last == looked_at || delivery.position() != last {
            continue; // nothing new, or the ledger is still behind: it will be looked at when it is not
        }
        drop(is_stopped);
        if let Ok(counts) = runtime.block_on(delivery.counts())
            && let Ok(Answer::Books(books)) = writer.ask(Ask::Books)
            && books.seq == counts.position
        {
            looked_at = books.seq;
            judge(shared, writer, differences(&books, &counts));
        }
        is_stopped = stopped.is_stopped.lock();
    }
}

/// By product, how many units memory calls sold beyond those of the ledger's live orders.
fn differences(books: &Books, counts: &LedgerCounts) -> Vec<(ProductId, i64)> {
    let in_ledger = |id: ProductId| {
        let product = counts.products.iter().find(|product| product.product == id);
        product.map_or(0, |product| product.live_units.saturating_add(product.undelivered_units))
    };
    let difference = |id, sold: u64| {
        i64::try_from(i128::from(sold).saturating_sub(i128::from(in_ledger(id)))).unwrap_or(i64::MAX)
    };
    let products = books.products.iter().map(|(id, figures)| (*id, difference(*id, figures.sold)));
    products.filter(|(_, units)| *units != 0).collect()
}

fn judge(shared: &Shared, writer: &WriterSource, differences: Vec<(ProductId, i64)>) {
    for (product, units) in &differences {
        tracing::error!(%product, units, "sold units and the ledger's orders differ: the sale of this product is paused");
        if writer.ask(Ask::Command(Box::new(Command::Pause { product: *product }))).is_err() {
            tracing::error!(%product, "it could not be paused");
        }
    }
    *shared.differences.lock() = differences;
}
