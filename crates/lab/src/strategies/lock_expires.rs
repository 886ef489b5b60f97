//! `lock-expires`: one buyer at a time, under a lock in Redis that lives for 100 ms, with a value of one's own, opened
//! by its holder only.
//!
//! The defect: a holder that waits for longer (here one request does, as behind a slow disk) does not have the lock any
//! more when it goes on, and nothing stops it from writing the stock that it read before. What others sold meanwhile is
//! for sale again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalogue::{Broken, Defect, Entry, Kind, Needs, Seller, Shelf};
use crate::scene::Act;
use crate::shop::{Answer, Attempt, Lock, Shop, Strategy, read_check_write};

pub(super) const ENTRY: Entry = Entry {
    name: "lock-expires",
    kind: Kind::Museum,
    line: "a lock in Redis that expires, and nothing that keeps a late holder from writing",
    defect: Some(Defect {
        breaks: Broken::Oversold,
        also: &[],
        how: "a holder waits for longer than its lock lives and then writes an old stock over what others have sold",
    }),
    repair: "the store refuses a write that is overtaken (a fencing token), or decides by itself: stock >= quantity",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    schema: "",
    scene: &[Act::Crowd(100)],
    point: Some("inside-lock:5:pause:700"),
    seller: Seller::strategy(open, Shelf::Postgres),
};

const LOCK_LIFE: Duration = Duration::from_millis(100);

struct LockExpires {
    shop: Arc<Shop>,
}

fn open(shop: Arc<Shop>) -> BoxFuture<'static, Result<Arc<dyn Strategy>>> {
    Box::pin(async { Ok(Arc::new(LockExpires { shop }) as Arc<dyn Strategy>) })
}

impl Strategy for LockExpires {
    fn buy<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.sell_locked(attempt))
    }
}

impl LockExpires {
    async fn sell_locked(&self, attempt: &Attempt) -> Result<Answer> {
        let trace = &self.shop.trace;
        let mut lock = Lock::of(&self.shop, &attempt.product, LOCK_LIFE)?;
        let order = Uuid::new_v4().to_string();
        if !lock.wait(&order).await? {
            bail!("the lock was never free");
        }
        trace.step(&attempt.key, "takes the lock", &format!("for {} ms", LOCK_LIFE.as_millis()));
        // The defect: between here and the write nobody looks whether the lock is still held.
        let sold = read_check_write(&self.shop, attempt, &order).await;
        let step = match lock.release(&order).await? {
            true => "opens the lock",
            false => "finds that the lock was not its own any more",
        };
        trace.step(&attempt.key, step, "");
        sold
    }
}
