//! Inputs by chance, that can be had again.

use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;

/// Numbers by chance (an xorshift), the same for the same seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// With the seed in `YOINK_SEED`, or another one each time; it is printed to standard error, after `what` it is for.
    ///
    /// # Panics
    /// `YOINK_SEED` is no whole number.
    #[must_use]
    pub fn new(what: &str) -> Self {
        let seed = match std::env::var("YOINK_SEED") {
            Ok(given) => given.parse().unwrap_or_else(|error| panic!("YOINK_SEED={given}: {error}")),
            Err(_) => RandomState::new().hash_one(what),
        };
        // A test goes on although nobody reads what it prints.
        let _ = writeln!(std::io::stderr(), "{what}: YOINK_SEED={seed}");
        Self::with_seed(seed)
    }

    fn with_seed(seed: u64) -> Self {
        // From 0 an xorshift goes nowhere.
        Self(seed.max(1))
    }

    /// Others by chance for part `number` of a test, the same for the same seed.
    #[must_use]
    pub fn part(&self, number: u64) -> Self {
        Self::with_seed(self.0 ^ (number << 32))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to `count - 1`.
    ///
    /// # Panics
    /// `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        // The low bits are the weak ones. What is left of a division by a `usize` is one.
        ((self.number() >> 16) % count as u64) as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// There is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let place = self.below(from.len());
        from.get(place).unwrap_or_else(|| unreachable!("it is below their count"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_part_others() {
        let numbers = |mut chance: Chance| (0..100).map(|_| chance.below(1_000)).collect::<Vec<_>>();
        let chance = Chance::with_seed(7);
        assert_eq!(numbers(chance.clone()), numbers(chance.clone()));
        assert_ne!(numbers(chance.part(1)), numbers(chance.part(2)));
        assert_ne!(numbers(chance.clone()), numbers(Chance::with_seed(8)));
        assert!(numbers(Chance::with_seed(0)).iter().any(|number| *number > 0));
    }

    #[test]
    fn every_number_below_comes_and_every_value_is_picked() {
        let mut chance = Chance::new("below");
        let mut seen = [0; 5];
        for _ in 0..1_000 {
            seen[chance.below(5)] += 1;
            seen[*chance.pick(&[0, 1, 2, 3, 4])] += 1;
        }
        assert!(seen.iter().all(|count| *count > 200), "{seen:?}");
    }
}
