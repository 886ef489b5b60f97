//! Closed loop: a fixed number of buyers, each of whom waits for an answer before asking again.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp1};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::plan::{Ending, Pace};
use crate::shard::{CONNECTING_MAX, Reached, Shard, Signals};

/// A buyer's pause after failing to connect.
const RECONNECT_AFTER: Duration = Duration::from_millis(20);

/// Runs this thread's buyers until the storm ends.
pub(crate) async fn run(shard: Rc<Shard>, signals: Signals) {
    let Pace::Closed { ending, think_time } = shard.plan().pace else {
        return;
    };
    let clients = warm_up(&shard).await;
    signals.wait_for_start(&shard).await;
    let mut buyers = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let pause = Pause::new(&shard, index, think_time);
        buyers.spawn_local(buy(Rc::clone(&shard), client, ending, pause));
    }
    while buyers.join_next().await.is_some() {}
}

/// Opens the connections of `shard`, a bounded number at a time, and asks for the time on each.
pub(crate) async fn warm_up(shard: &Rc<Shard>) -> Vec<Client> {
    let connecting = Rc::new(Semaphore::new(CONNECTING_MAX));
    let mut warming = JoinSet::new();
    for index in 0..shard.connections {
        let (shard, connecting) = (Rc::clone(shard), Rc::clone(&connecting));
        warming.spawn_local(async move {
            let mut client = shard.client();
            if shard.plan().warm_up_requests > 0 {
                let _permit = connecting.acquire().await;
                shard.warm_up(&mut client, shard.warm_up_share(index)).await;
            }
            client
        });
    }
    warming.join_all().await
}

/// One buyer.
async fn buy(shard: Rc<Shard>, mut client: Client, ending: Ending, mut pause: Pause) {
    while let Some(n) = next_purchase(&shard, ending) {
        for _ in 0..shard.plan().same_key_times {
            if shard.purchase(&mut client, n, None).await == Reached::No {
                // A server that is down answers in microseconds, and would otherwise be asked by a spinning loop.
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
        pause.wait().await;
    }
}

fn next_purchase(shard: &Shard, ending: Ending) -> Option<u64> {
    if shard.is_stopped() {
        return None;
    }
    if let Ending::After(duration) = ending
        && shard.elapsed() >= duration
    {
        return None;
    }
    let n = shard.shared.next_purchase.fetch_add(1, Ordering::Relaxed);
    match ending {
        Ending::Purchases(purchases) if n >= purchases => None,
        _ => Some(n),
    }
}

/// A buyer's thinking, with its own repeatable randomness.
struct Pause {
    mean: Duration,
    rng: StdRng,
}

impl Pause {
    fn new(shard: &Shard, buyer: usize, mean: Duration) -> Pause {
        let number = (buyer * shard.plan().threads + shard.index) as u64;
        Pause { mean, rng: StdRng::seed_from_u64(shard.plan().seed ^ number.rotate_left(32)) }
    }

    async fn wait(&mut self) {
        if self.mean.is_zero() {
            return;
        }
        let factor: f64 = Exp1.sample(&mut self.rng);
        tokio::time::sleep(self.mean.mul_f64(factor)).await;
    }
}
