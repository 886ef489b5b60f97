//! Random commands. A command is made from a few numbers (a [`Roll`]), so that the fast seeded streams and proptest,
//! which knows how to shrink numbers, share one generator. It is kept small on purpose: few products, customers and
//! keys and low limits, so that every branch is hit often.

use yoink_core::{
    Command, Currency, CustomerId, IdempotencyKey, Money, NewProduct, OrderId, ProductChange, ProductId,
    Purchase, STOCK_UNITS_MAX, StockAdjustment, Timestamp, Window,
};

/// Numbers that become one command; lower ones make simpler commands.
pub type Roll = [u16; 9];

/// SplitMix64: small, fast, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end - 1`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a usize")
    }

    pub fn roll(&mut self) -> Roll {
        let mut roll = [0; 9];
        for four in roll.chunks_mut(4) {
            let mut bits = self.next();
            for number in four {
                *number = (bits & 0xffff) as u16;
                bits >>= 16;
            }
        }
        roll
    }
}

/// `YOINK_SEED`, or a new one at every run.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    match std::env::var("YOINK_SEED") {
        Ok(text) => text.parse().expect("YOINK_SEED is a whole number"),
        Err(_) => std::hash::RandomState::new().build_hasher().finish(),
    }
}

/// Turns rolls into commands. It knows what was accepted, so that some commands name it.
#[derive(Default)]
pub struct Generator {
    pub now: Timestamp,
    /// In order of acceptance.
    pub orders: Vec<OrderId>,
    purchases: u64,
    creations: u64,
}

/// The numbers of a roll, one after the other.
struct Numbers<'a>(std::slice::Iter<'a, u16>);

impl Numbers<'_> {
    fn below(&mut self, end: u16) -> u16 {
        self.0.next().expect("a roll has numbers enough") % end
    }

    /// Whether something happens that does so once in `rarity` times.
    fn once_in(&mut self, rarity: u16) -> bool {
        self.below(rarity) == rarity - 1
    }
}

impl Generator {
    /// The next command, a little later than the one before.
    pub fn command(&mut self, roll: &Roll) -> Command {
        let mut numbers = Numbers(roll.iter());
        let kind = numbers.below(100);
        self.now.0 += i64::from(numbers.below(3));
        // The first commands put something on sale, whatever was rolled.
        if self.creations < 2 {
            return self.create(&mut numbers);
        }
        match kind {
            0..60 => self.purchase(&mut numbers),
            60..70 => Command::Cancel { order: self.order(&mut numbers), reason: "asked for".into() },
            70..77 => {
                Command::Fail { order: self.order(&mut numbers), reason: "the ledger cannot take it".into() }
            }
            77..85 => Command::AdjustStock(adjustment(&mut numbers)),
            85..91 => {
                Command::ChangeProduct { product: product(&mut numbers), change: self.change(&mut numbers) }
            }
            91..93 => Command::Pause { product: product(&mut numbers) },
            93..98 => Command::Resume { product: product(&mut numbers) },
            _ => self.create(&mut numbers),
        }
    }

    fn purchase(&mut self, numbers: &mut Numbers<'_>) -> Command {
        self.purchases += 1;
        let customer = numbers.below(50);
        let key = numbers.below(12);
        Command::Purchase(Purchase {
            order: OrderId(u128::from(self.purchases).to_be_bytes()),
            customer: CustomerId::parse(&format!("customer-{customer}")).expect("a customer id"),
            product: product(numbers),
            quantity: [1, 1, 1, 1, 2, 2, 3, 4][usize::from(numbers.below(8))],
            key: (key < 6).then(|| key_of(key)),
        })
    }

    /// Mostly one of the last 40, so that an order is often ended again.
    fn order(&self, numbers: &mut Numbers<'_>) -> OrderId {
        let nobodys = OrderId([0xff; 16]);
        if numbers.once_in(20) {
            return nobodys;
        }
        let back = usize::from(numbers.below(40)) + 1;
        let index = self.orders.len().checked_sub(back);
        index.and_then(|index| self.orders.get(index).copied()).unwrap_or(nobodys)
    }

    fn create(&mut self, numbers: &mut Numbers<'_>) -> Command {
        self.creations += 1;
        let is_numbered = self.creations < 4 || numbers.once_in(40);
        let stock = u64::from(numbers.below(40));
        Command::CreateProduct(NewProduct {
            id: (!is_numbered).then(|| product(numbers)),
            name: "Lamp".into(),
            price: price(stock),
            stock: if numbers.once_in(6) { STOCK_UNITS_MAX + 1 } else { stock },
            window: self.window(numbers),
            limit_per_customer: (stock % 2 == 1).then_some(4),
            max_per_order: 3,
        })
    }

    fn window(&self, numbers: &mut Numbers<'_>) -> Window {
        let (starts, ends) = (numbers.below(24), numbers.below(40));
        Window {
            starts_at: (starts >= 16).then(|| self.near(starts - 16)),
            ends_at: (ends >= 24).then(|| self.near(ends - 20)),
        }
    }

    /// Some time around now, 10 before to 30 after.
    fn near(&self, number: u16) -> Timestamp {
        Timestamp(self.now.0 - 10 + 2 * i64::from(number))
    }

    fn change(&self, numbers: &mut Numbers<'_>) -> ProductChange {
        let mut change = ProductChange::default();
        let number = numbers.below(30);
        match numbers.below(8) {
            0 => change.limit_per_customer = Some(Some(u32::from(number % 6))),
            1 => change.limit_per_customer = Some(None),
            2 => change.max_per_order = Some(1 + u32::from(number % 4)),
            3 => change.price = Some(price(u64::from(number))),
            4 => change.starts_at = Some((number < 15).then(|| self.near(number))),
            5 => change.ends_at = Some((number < 20).then(|| self.near(number))),
            6 => (change.starts_at, change.ends_at) = (Some(None), Some(None)),
            _ => {}
        }
        change
    }
}

fn adjustment(numbers: &mut Numbers<'_>) -> StockAdjustment {
    let product = product(numbers);
    let key = key_of(numbers.below(120));
    let units = i64::from(numbers.below(8)) + 1;
    let too_many = i64::try_from(STOCK_UNITS_MAX).expect("it fits");
    let delta = match numbers.below(20) {
        0..12 => units,
        12..17 => -units,
        17 => -100 * units,
        _ => too_many,
    };
    StockAdjustment { product, delta, reason: "count".into(), key }
}

/// Products 1 to 5; the last are seldom named and late on sale.
fn product(numbers: &mut Numbers<'_>) -> ProductId {
    let number = [1, 1, 1, 2, 2, 2, 3, 3, 4, 5][usize::from(numbers.below(10))];
    ProductId::parse(&format!("{number}")).expect("a product id")
}

fn key_of(number: u16) -> IdempotencyKey {
    IdempotencyKey::parse(&format!("key-{number}")).expect("a key")
}

fn price(number: u64) -> Money {
    Money {
        amount: 1_000 + i64::try_from(number).expect("a low number"),
        currency: Currency::parse("EUR").expect("a currency"),
    }
}
