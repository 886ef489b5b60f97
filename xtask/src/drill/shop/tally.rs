//! How often something was done, and how long that took.

use std::collections::BTreeMap;
use std::time::Duration;

/// Of one kind of fault: how often it was done, and how long that and mending it took.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    took: Duration,
    judging: Duration,
    slowest: Duration,
}

/// What was done so far, by the names of faults.
#[derive(Debug, Default)]
pub(in crate::drill) struct Tallies {
    by_name: BTreeMap<&'static str, Tally>,
}

impl Tallies {
    /// A fault was done.
    pub(in crate::drill) fn add(&mut self, name: &'static str, took: Duration) {
        let tally = self.by_name.entry(name).or_default();
        tally.count += 1;
        tally.took += took;
    }

    /// A round of this fault was judged.
    pub(in crate::drill) fn judged(&mut self, name: &'static str, took: Duration) {
        let tally = self.by_name.entry(name).or_default();
        tally.judging += took;
        tally.slowest = tally.slowest.max(took);
    }

    /// All faults.
    pub(in crate::drill) fn count(&self) -> u64 {
        self.by_name.values().map(|tally| tally.count).sum()
    }

    /// What was done less often than was planned: a drill that does not do what it says has shown nothing. Faults whose
    /// names begin with `cut` count together, too: `cuts` of them were wanted.
    pub(in crate::drill) fn missing(
        &self,
        wanted: impl Iterator<Item = &'static str>,
        cuts: u64,
    ) -> Vec<String> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for name in wanted {
            *counts.entry(name).or_default() += 1;
        }
        let done = |name: &str| self.by_name.get(name).map_or(0, |tally| tally.count);
        let mut missing: Vec<String> = counts
            .into_iter()
            .filter(|(name, count)| done(name) < *count)
            .map(|(name, count)| format!("{name} was done {} times, and not {count}", done(name)))
            .collect();
        let is_cut = |name: &&&str| name.starts_with("cut ");
        let cut: u64 = self.by_name.keys().filter(is_cut).map(|name| done(name)).sum();
        if cut < cuts {
            missing.push(format!("{cut} connections were cut, and not {cuts}"));
        }
        missing
    }

    /// A line for each kind.
    pub(in crate::drill) fn table(&self) -> String {
        let mut text = format!(
            "{:<26} {:>6} {:>9} {:>9} {:>10}\n",
            "fault", "times", "faults s", "judged s", "slowest s"
        );
        for (name, tally) in &self.by_name {
            let (took, judging) = (tally.took.as_secs_f64(), tally.judging.as_secs_f64());
            let slowest = tally.slowest.as_secs_f64();
            text.push_str(&format!(
                "{name:<26} {:>6} {took:>9.1} {judging:>9.1} {slowest:>10.1}\n",
                tally.count
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_done_is_named() {
        let wanted = || ["redis kill -9", "redis kill -9", "FLUSHALL"].into_iter();
        let mut tallies = Tallies::default();
        tallies.add("redis kill -9", Duration::ZERO);
        tallies.add("FLUSHALL", Duration::ZERO);
        (0..8).for_each(|_| tallies.add("cut api - redis", Duration::ZERO));
        assert_eq!(tallies.missing(wanted(), 8), ["redis kill -9 was done 1 times, and not 2"]);
        tallies.add("redis kill -9", Duration::ZERO);
        assert_eq!(tallies.missing(wanted(), 8), Vec::<String>::new());
        assert_eq!(tallies.missing(wanted(), 9), ["8 connections were cut, and not 9"]);
    }
}
