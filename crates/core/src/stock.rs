//! The arithmetic of units. Nothing else in the program adds or subtracts them.

/// Units of one product. Invariant: `stocked = available + held + sold + withheld`.
///
/// Every move checks both sides: a figure that would go below zero or overflow stops the program rather than being
/// clamped, because a clamp would hide the bug that led there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    stocked: u64,
    available: u64,
    held: u64,
    sold: u64,
    withheld: u64,
}

/// The figures of a [`Stock`], for reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Units ever added: the beginning stock and every restock.
    pub stocked: u64,
    /// Units a buyer can have now.
    pub available: u64,
    /// Units set aside for a while (none yet: holds come later).
    pub held: u64,
    /// Units of live orders.
    pub sold: u64,
    /// Units withdrawn from sale.
    pub withheld: u64,
}

impl Figures {
    /// `stocked - (available + held + sold + withheld)`: 0 while the law of conservation holds.
    pub fn conservation_error_units(&self) -> i64 {
        let parts = i128::from(self.available)
            .saturating_add(i128::from(self.held))
            .saturating_add(i128::from(self.sold))
            .saturating_add(i128::from(self.withheld));
        let error = i128::from(self.stocked).saturating_sub(parts);
        i64::try_from(error).unwrap_or(if error < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Stock {
    /// Figures read back from a snapshot; the caller checks the law with [`Figures::conservation_error_units`].
    pub(crate) fn from_figures(figures: Figures) -> Self {
        let Figures { stocked, available, held, sold, withheld } = figures;
        Self { stocked, available, held, sold, withheld }
    }

    /// The figures, for reading.
    pub fn figures(&self) -> Figures {
        let Self { stocked, available, held, sold, withheld } = *self;
        Figures { stocked, available, held, sold, withheld }
    }

    /// New units arrive and are available.
    pub(crate) fn add(&mut self, units: u64) {
        raise(&mut self.stocked, units, "stocked");
        raise(&mut self.available, units, "available");
        self.assert_law();
    }

    /// Available units are taken off sale.
    pub(crate) fn withdraw(&mut self, units: u64) {
        lower(&mut self.available, units, "available");
        raise(&mut self.withheld, units, "withheld");
        self.assert_law();
    }

    /// Available units go to an order.
    pub(crate) fn sell(&mut self, units: u64) {
        lower(&mut self.available, units, "available");
        raise(&mut self.sold, units, "sold");
        self.assert_law();
    }

    /// The units of an order come back.
    pub(crate) fn give_back(&mut self, units: u64) {
        lower(&mut self.sold, units, "sold");
        raise(&mut self.available, units, "available");
        self.assert_law();
    }

    fn assert_law(&self) {
        assert_eq!(
            self.figures().conservation_error_units(),
            0,
            "the law of conservation is broken: {self:?}"
        );
    }
}

fn raise(figure: &mut u64, units: u64, name: &str) {
    match figure.checked_add(units) {
        Some(sum) => *figure = sum,
        None => panic!("{name} would overflow: {figure} + {units}"),
    }
}

fn lower(figure: &mut u64, units: u64, name: &str) {
    match figure.checked_sub(units) {
        Some(rest) => *figure = rest,
        None => panic!("{name} would go below zero: {figure} - {units}"),
    }
}
