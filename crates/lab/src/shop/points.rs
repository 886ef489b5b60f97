//! Named points in the shop's code at which the lab interferes: what a crash, a slow disk or a lost answer would do to the
//! request that is there, made to happen every time.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, getpid, kill_process};

use super::Trace;

/// What happens, and where. Nothing anywhere by default.
#[derive(Debug, Default)]
pub struct Points {
    plan: Option<Plan>,
    reached: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    point: String,
    nth: u64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// The process is killed.
    Die,
    /// Whoever is there waits; the rest of the process goes on.
    Pause(Duration),
    /// The answer that arrived is taken for lost; no connection is cut.
    Cut,
}

impl Points {
    /// Reads `POINT:NTH:die`, `POINT:NTH:pause:MILLISECONDS` or `POINT:NTH:cut`: it happens to whoever comes there as the
    /// NTH since the process began, counted from 1.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Points> {
        let parts: Vec<&str> = text.split(':').collect();
        let number = |text: &str| u64::from_str(text).with_context(|| format!("{text} is not a number"));
        let (point, nth, what) = match parts.as_slice() {
            [point, nth, "die"] => (point, nth, What::Die),
            [point, nth, "cut"] => (point, nth, What::Cut),
            [point, nth, "pause", ms] => (point, nth, What::Pause(Duration::from_millis(number(ms)?))),
            _ => bail!("{text} is not POINT:NTH:die, POINT:NTH:cut or POINT:NTH:pause:MILLISECONDS"),
        };
        let plan = Plan { point: (*point).to_owned(), nth: number(nth)?, what };
        Ok(Points { plan: Some(plan), reached: AtomicU64::new(0) })
    }

    /// To be called where a crash or a pause matters. Says whether the answer that has just arrived counts as lost.
    pub async fn reach(&self, point: &str, trace: &Trace, key: &str) -> bool {
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.point == point) else { return false };
        if self.reached.fetch_add(1, Ordering::Relaxed) + 1 != plan.nth {
            return false;
        }
        match plan.what {
            What::Die => {
                trace.fault(key, "the process is killed here");
                // Nothing of this process runs after this, as after a power failure or the kernel's OOM killer.
                kill_process(getpid(), Signal::KILL).ok();
                std::future::pending().await
            }
            What::Pause(pause) => {
                trace.fault(key, &format!("waits here for {} ms, as behind a slow disk", pause.as_millis()));
                tokio::time::sleep(pause).await;
                trace.step(key, "goes on", "");
                false
            }
            What::Cut => {
                trace.fault(key, "the answer is taken for lost here, as when a connection is cut");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_or_refused() {
        let plan = |text| Points::parse(text).unwrap().plan.unwrap();
        assert_eq!(plan("a:3:die"), Plan { point: "a".to_owned(), nth: 3, what: What::Die });
        assert_eq!(plan("a:1:pause:20").what, What::Pause(Duration::from_millis(20)));
        assert_eq!(plan("a:1:cut").what, What::Cut);
        for wrong in ["", "a", "a:b:die", "a:1:sleep", "a:1:pause", "a:1:pause:x"] {
            assert!(Points::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn it_happens_once_to_the_one_who_is_named() {
        let points = Points::parse("here:2:cut").unwrap();
        let trace = Trace::nowhere();
        let mut lost = Vec::new();
        for point in ["here", "there", "here", "here"] {
            lost.push(points.reach(point, &trace, "k").await);
        }
        assert_eq!(lost, [false, false, true, false]);
    }
}
