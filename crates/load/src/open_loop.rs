//! Open loop: buyers arrive when the schedule says so, whatever the server does.
//!
//! Latency counts from the instant at which a buyer should have arrived. If the server stalls, those who arrive
//! meanwhile wait, and their waiting is measured; a closed loop would simply have sent less. When this side is late
//! itself, that is measured too and shown beside the latency. An arrival that finds no free connection is counted.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::closed_loop::warm_up;
use crate::error::StormError;
use crate::plan::Pace;
use crate::schedule::Schedule;
use crate::shard::{Shard, Shared, Signals};

/// Arrivals that may wait for a thread. A thread that is further behind delays its pacer, which shows as lateness.
const ARRIVALS_WAITING_MAX: usize = 16_384;

/// One buyer's arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    n: u64,
    /// From the storm's start.
    intended: Duration,
}

/// Where a thread's arrivals come from.
pub(crate) type Arrivals = mpsc::Receiver<Arrival>;

/// Starts the thread that keeps the time and returns one source of arrivals per sending thread.
///
/// A thread of its own, because a runtime's timer is only good to a millisecond, and because nothing that the senders
/// do may hold up the clock.
///
/// # Errors
/// [`StormError::Thread`] if the operating system gives no thread.
pub(crate) fn start_pacer(
    shared: &Arc<Shared>,
    start: watch::Receiver<Option<Instant>>,
) -> Result<Vec<Arrivals>, StormError> {
    let Pace::Open { stages, arrivals } = &shared.plan.pace else {
        return Ok(Vec::new());
    };
    let schedule = Schedule::new(stages, *arrivals, shared.plan.seed);
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..shared.plan.threads).map(|_| mpsc::channel(ARRIVALS_WAITING_MAX)).unzip();
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("storm-pacer".to_owned())
        .spawn(move || pace(&shared, schedule, start, &senders))
        .map_err(|_| StormError::Thread("could not be started"))?;
    Ok(receivers)
}

fn pace(
    shared: &Shared,
    schedule: Schedule,
    mut start: watch::Receiver<Option<Instant>>,
    senders: &[mpsc::Sender<Arrival>],
) {
    let Some(start) = wait_for_start(&mut start) else {
        return;
    };
    for (intended, sender) in schedule.zip(senders.iter().cycle()) {
        let due = start + intended;
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let n = shared.next_purchase.fetch_add(1, Ordering::Relaxed);
        if sender.blocking_send(Arrival { n, intended }).is_err() {
            return;
        }
    }
}

/// The start of all; `None` if the storm was abandoned before it.
fn wait_for_start(start: &mut watch::Receiver<Option<Instant>>) -> Option<Instant> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(async { start.wait_for(Option::is_some).await.ok().and_then(|start| *start) })
}

/// Connections that nobody uses. The one used last is taken first, so that a slow rate keeps few of them busy.
type Idle = RefCell<Vec<Client>>;

/// Sends what arrives at this thread until the schedule is at its end and every answer is in.
pub(crate) async fn run(shard: Rc<Shard>, signals: Signals, mut arrivals: Arrivals) {
    let idle: Rc<Idle> = Rc::new(RefCell::new(warm_up(&shard).await));
    signals.wait_for_start(&shard).await;
    let mut sending = JoinSet::new();
    while let Some(arrival) = arrivals.recv().await {
        let Some(client) = idle.borrow_mut().pop() else {
            shard.skip();
            continue;
        };
        sending.spawn_local(send(Rc::clone(&shard), Rc::clone(&idle), client, arrival));
        // Finished ones are taken out as they come, so that the set stays as small as the number of connections.
        while sending.try_join_next().is_some() {}
    }
    while sending.join_next().await.is_some() {}
}

async fn send(shard: Rc<Shard>, idle: Rc<Idle>, mut client: Client, arrival: Arrival) {
    shard.purchase(&mut client, arrival.n, Some(arrival.intended)).await;
    for _ in 1..shard.plan().same_key_times {
        shard.purchase(&mut client, arrival.n, None).await;
    }
    idle.borrow_mut().push(client);
}
