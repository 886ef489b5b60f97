//! Random steps: what is asked, and when. Few customers, keys and units, so that every answer is hit often.

use yoink_core::{
    Command, Currency, CustomerId, IdempotencyKey, Inventory, Money, NewProduct, OrderId, Product,
    ProductChange, ProductId, Purchase, QUANTITY_MAX, STOCK_UNITS_MAX, StockAdjustment, Timestamp, Window,
};

use crate::core_generator::Random;

const SECOND_US: i64 = 1_000_000;
/// 2026-11-20T00:00:00Z.
const BEGIN_US: i64 = 1_795_132_800 * SECOND_US;
/// Purchases that are asked at once, at most.
const TOGETHER_MAX: usize = 8;
/// What is sold at first. The last sells many single units to one customer.
const PRODUCTS: [&str; 3] = ["lamp", "Lamp-2", "tickets"];
/// Nobody ever makes it.
const NO_PRODUCT: &str = "no-such-product";
/// Some have in their names what the records in Redis are cut apart by.
const CUSTOMERS: [&str; 6] = ["ann", "bob|2", "zoë ü", "|", "dan:{x}", "eve"];

/// What is asked at one instant: one command, or several purchases that travel together.
#[derive(Debug)]
pub struct Step {
    pub now: Timestamp,
    pub commands: Vec<Command>,
}

pub struct Generator {
    random: Random,
    now: Timestamp,
    created: usize,
    /// Purchases with a key, to be asked again.
    asked: Vec<Purchase>,
    adjusted: Vec<StockAdjustment>,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            now: Timestamp(BEGIN_US),
            created: 0,
            asked: Vec::new(),
            adjusted: Vec::new(),
        }
    }

    /// The next step for a shop that stands so and has accepted these orders, oldest first.
    pub fn step(&mut self, shop: &Inventory, orders: &[OrderId]) -> Step {
        self.move_time(shop);
        let commands = match self.random.below(100) {
            _ if self.created < PRODUCTS.len() => vec![self.first_product()],
            0..58 => self.purchases(shop),
            58..67 => vec![Command::Cancel { order: self.order(orders), reason: "asked for".into() }],
            67..73 => vec![Command::Fail { order: self.order(orders), reason: "it broke | \"é\"".into() }],
            73..83 => vec![Command::AdjustStock(self.adjustment(shop))],
            83..92 => {
                let product = self.product(shop);
                vec![Command::ChangeProduct { product, change: self.change(shop, product) }]
            }
            92..94 => vec![Command::Pause { product: self.product(shop) }],
            94..98 => vec![Command::Resume { product: self.paused(shop) }],
            _ => vec![self.product_to_create(shop)],
        };
        Step { now: self.now, commands }
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.random.below(choices.len())].clone()
    }

    fn once_in(&mut self, rarity: usize) -> bool {
        self.random.below(rarity) == 0
    }

    /// Mostly a little forward; sometimes back; often right to, or next to, the edge of a window.
    fn move_time(&mut self, shop: &Inventory) {
        let of_window = |product: &Product| {
            let Window { starts_at, ends_at } = product.details.window;
            [starts_at, ends_at]
        };
        let edges: Vec<Timestamp> = shop.products().flat_map(of_window).flatten().collect();
        self.now.0 += match self.random.below(10) {
            0..4 => 0,
            4..6 => 1,
            6 => SECOND_US,
            7 => -SECOND_US * self.one_of(&[1, 5, 30]),
            _ if edges.is_empty() => SECOND_US,
            _ => self.one_of(&edges).0 - self.now.0 + self.one_of(&[-1, 0, 0, 1]),
        };
    }

    /// Some time around now, to the microsecond.
    fn near(&mut self) -> Timestamp {
        let seconds = self.one_of(&[-20, -5, -1, 0, 0, 1, 2, 5, 20]);
        Timestamp(self.now.0 + seconds * SECOND_US + self.one_of(&[-1, 0, 0, 7]))
    }

    fn product(&mut self, shop: &Inventory) -> ProductId {
        if self.once_in(60) {
            return ProductId::parse(NO_PRODUCT).unwrap();
        }
        let products: Vec<ProductId> = shop.products().map(|product| product.id).collect();
        // Those that come later are only few, and seldom named.
        let known = if self.once_in(6) { products.len() } else { PRODUCTS.len() };
        self.one_of(&products[..known])
    }

    fn paused(&mut self, shop: &Inventory) -> ProductId {
        let paused = shop.products().find(|product| product.paused).map(|product| product.id);
        paused.unwrap_or_else(|| self.product(shop))
    }

    fn purchases(&mut self, shop: &Inventory) -> Vec<Command> {
        let count = if self.once_in(3) { 2 + self.random.below(TOGETHER_MAX - 1) } else { 1 };
        let product = self.product(shop);
        let mut purchases = Vec::new();
        for _ in 0..count {
            let product = if self.once_in(5) { self.product(shop) } else { product };
            purchases.push(Command::Purchase(self.purchase(shop, product)));
        }
        purchases
    }

    fn purchase(&mut self, shop: &Inventory, product: ProductId) -> Purchase {
        if !self.asked.is_empty() && self.once_in(4) {
            return self.asked_again(shop);
        }
        let sells_many = product.as_str() == PRODUCTS[2];
        let who = if sells_many && !self.once_in(3) { 0 } else { self.random.below(CUSTOMERS.len()) };
        let key = self.random.below(80);
        let purchase = Purchase {
            order: OrderId([0; 16]),
            customer: CustomerId::parse(CUSTOMERS[who]).unwrap(),
            product,
            quantity: if sells_many && !self.once_in(8) { 1 } else { self.quantity(shop, product) },
            key: (key < 40).then(|| IdempotencyKey::parse(&format!("|key-{key}")).unwrap()),
        };
        if purchase.key.is_some() {
            self.asked.push(purchase.clone());
        }
        purchase
    }

    /// A request that was made before, mostly a moment ago: the same, or another one under its key.
    fn asked_again(&mut self, shop: &Inventory) -> Purchase {
        let among = if self.once_in(3) { self.asked.len() } else { 6 };
        let back = 1 + self.random.below(among);
        let mut purchase = self.asked[self.asked.len().saturating_sub(back)].clone();
        match self.random.below(6) {
            0 => purchase.quantity = self.quantity(shop, purchase.product),
            1 => purchase.product = self.product(shop),
            2 => purchase.customer = CustomerId::parse(self.one_of(&CUSTOMERS)).unwrap(),
            _ => {}
        }
        purchase
    }

    /// Mostly few; often around what one order may have, what the customer may have, or what is left.
    fn quantity(&mut self, shop: &Inventory, product: ProductId) -> u32 {
        let Some(found) = shop.product(&product) else { return 1 };
        let max = found.details.max_per_order;
        let left = u32::try_from(found.figures().available).unwrap_or(QUANTITY_MAX);
        let limit = found.details.limit_per_customer.unwrap_or(max);
        let around = [max, max + 1, max.saturating_sub(1), limit, limit + 1, left, left.saturating_add(1)];
        let quantity = if self.once_in(3) { self.one_of(&around) } else { self.one_of(&[1, 1, 1, 2, 2, 3]) };
        quantity.clamp(1, QUANTITY_MAX)
    }

    /// Mostly one of the last, so that an order is often ended again.
    fn order(&mut self, orders: &[OrderId]) -> OrderId {
        let among = if self.once_in(5) { 80 } else { 12 };
        let back = 1 + self.random.below(among);
        let mut order = *orders.get(orders.len().wrapping_sub(back)).unwrap_or(&OrderId([0xff; 16]));
        if self.once_in(25) {
            order.0[15] ^= 1; // of the same product, and nobody's
        }
        order
    }

    fn adjustment(&mut self, shop: &Inventory) -> StockAdjustment {
        if !self.adjusted.is_empty() && self.once_in(6) {
            return self.adjusted[self.adjusted.len() - 1].clone();
        }
        let product = self.product(shop);
        let left = shop.product(&product).map_or(0, |product| product.figures().available);
        let (left, too_many) = (i64::try_from(left).unwrap(), i64::try_from(STOCK_UNITS_MAX).unwrap());
        let delta = match self.random.below(20) {
            0..9 => 1 + self.random.below(12) as i64,
            9..14 => -1 - self.random.below(4) as i64,
            14..16 => -left,
            16..18 => -left - 1,
            18 => -too_many,
            _ => too_many,
        };
        let key = self.random.below(24);
        let adjustment = StockAdjustment {
            product,
            delta: if delta == 0 { -1 } else { delta },
            reason: self.one_of(&["count", "found | in the \"back\""]).into(),
            key: IdempotencyKey::parse(&format!("count-{key}")).unwrap(),
        };
        self.adjusted.push(adjustment.clone());
        adjustment
    }

    fn change(&mut self, shop: &Inventory, product: ProductId) -> ProductChange {
        let mut change = ProductChange::default();
        let many = if product.as_str() == PRODUCTS[2] { 20 } else { 0 };
        match self.random.below(12) {
            0 => change.limit_per_customer = Some(Some(many + self.random.below(8) as u32)),
            1 => change.limit_per_customer = Some(None),
            2 => change.max_per_order = Some(1 + self.random.below(5) as u32),
            3 => change.price = Some(self.price()),
            4 => change.starts_at = Some(Some(self.near())),
            5 => change.ends_at = Some(Some(self.near())),
            6..9 => (change.starts_at, change.ends_at) = (Some(None), Some(None)),
            9 => (change.price, change.starts_at) = (Some(self.price()), Some(None)),
            10 if self.once_in(2) => change.name = Some(self.one_of(&["Lamp", "Lämp | 2"]).into()),
            10 => (change.starts_at, change.ends_at) = (Some(Some(self.now)), Some(Some(self.now))),
            _ => {}
        }
        // A sale that has ended is not left so for long.
        let ended = |product: &Product| product.details.window.ends_at.is_some_and(|ends| ends <= self.now);
        if change == ProductChange::default() && shop.product(&product).is_some_and(ended) {
            change.ends_at = Some(None);
        }
        change
    }

    fn price(&mut self) -> Money {
        let amount = self.one_of(&[0, 1, 1_999, 2_000, Money::AMOUNT_MAX]);
        Money { amount, currency: Currency::parse(self.one_of(&["EUR", "USD", "JPY"])).unwrap() }
    }

    fn first_product(&mut self) -> Command {
        let (number, id) = (self.created, PRODUCTS[self.created]);
        let limits = [Some(1 + self.random.below(5) as u32), None, Some(21 + self.random.below(4) as u32)];
        let stocks = [8 + self.random.below(20), 5 + self.random.below(40), 40 + self.random.below(60)];
        self.product_of(Some(ProductId::parse(id).unwrap()), stocks[number] as u64, limits[number])
    }

    fn product_to_create(&mut self, shop: &Inventory) -> Command {
        let id = match self.random.below(6) {
            0 => None,
            1..3 => Some(self.product(shop)).filter(|id| id.as_str() != NO_PRODUCT),
            _ => Some(ProductId::parse(&format!("later-{}", self.created)).unwrap()),
        };
        let stock = if self.once_in(3) { STOCK_UNITS_MAX + 1 } else { self.random.below(10) as u64 };
        let mut command = self.product_of(id, stock, Some(3));
        if let Command::CreateProduct(product) = &mut command {
            product.window = Window {
                starts_at: self.once_in(2).then(|| self.near()),
                ends_at: self.once_in(2).then(|| self.near()),
            };
        }
        command
    }

    fn product_of(&mut self, id: Option<ProductId>, stock: u64, limit: Option<u32>) -> Command {
        self.created += 1;
        Command::CreateProduct(NewProduct {
            id,
            name: "Lamp".into(),
            price: self.price(),
            stock,
            window: Window::default(),
            limit_per_customer: limit,
            max_per_order: 2 + self.random.below(4) as u32,
        })
    }
}
