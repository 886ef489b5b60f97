//! `lock-by-user`: one buyer at a time, under a lock in Redis whose value is the buyer's id, opened in a `finally` only
//! if the value is one's own.
//!
//! The defect: the `finally` also runs for whoever did not get the lock, and a second click of the same buyer has the
//! same value. Waiting for its twin, it opens the twin's lock, and a third request comes in while the first one writes. That
//! may be the twin itself, which finds no order yet either: then the audit also finds two orders of one request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Lock, PATIENCE, Shop, Strategy, read_check_write};

pub(super) const ENTRY: Entry = Entry {
    name: "lock-by-user",
    kind: Kind::Museum,
    line: "a lock in Redis with the buyer's id in it, opened in `finally`",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[Broken::Duplicated],
        how: "a buyer's second click, which has not got the lock, opens the one that the first click holds",
    }),
    repair: "a value that no other request has, and opened only by the request that got it",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::DoubleClicks(50)],
    // The first of all, whose twin cannot have been here before; long enough for it to ask for the lock, even if the
    // second click comes a second late, because the network had to ask twice.
    point: Some("inside-lock:1:pause:3000"),
    seller: Seller::strategy(open, Shelf::Postgres),
};

const LOCK_LIFE: Duration = Duration::from_secs(5);

struct LockByUser {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(LockByUser { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for LockByUser {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE {
                if let Some(answer) = self.sell_locked(attempt).await? {
                    return Ok(answer);
                }
                Lock::pause().await;
            }
            bail!("the lock was never free")
        })
    }
}

impl LockByUser {
    /// Sells under the lock; `None` if another has it.
    async fn sell_locked(&self, attempt: &Attempt) -> Result<Option<Answer>> {
        let trace = &self.shop.trace;
        let mut lock = Lock::of(&self.shop, &attempt.product, LOCK_LIFE)?;
        let sold = match lock.take(&attempt.user).await? {
            true => {
                trace.step(&attempt.key, "takes the lock", &format!("its value = {}", attempt.user));
                self.sell_once(attempt).await.map(Some)
            }
            false => Ok(None),
        };
        // The defect: this is the `finally`, and whoever did not get the lock comes here too.
        let is_opened = lock.release(&attempt.user).await?;
        match (&sold, is_opened) {
            (Ok(None), true) => {
                trace.step(&attempt.key, "waits for the lock, and opens that of the twin", "")
            }
            (Ok(Some(_)), false) => trace.step(&attempt.key, "finds its lock opened by another", ""),
            (_, true) => trace.step(&attempt.key, "opens the lock", ""),
            (_, false) => {}
        }
        sold
    }
    /// Sells, unless this request has an order already.
    async fn sell_once(&self, attempt: &Attempt) -> Result<Answer> {
        let client = self.shop.stores.postgres().await?;
        let asked = client.query_opt("SELECT id FROM orders WHERE request = $1", &[&attempt.key]).await;
        if let Some(row) = asked.context("cannot look for an order")? {
            self.shop.trace.step(&attempt.key, "finds the order of its twin", "");
            return Ok(Answer::Bought { order: row.get(0) });
        }
        drop(client);
        read_check_write(&self.shop, attempt, &Uuid::new_v4().to_string()).await
    }
}
