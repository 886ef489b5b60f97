//! The law of conservation, against arithmetic that fits on one page.

use proptest::prelude::*;
use yoink_core::{
    Command, Currency, CustomerId, Decision, Figures, IdempotencyKey, Inventory, Money, NewProduct, OrderId,
    ProductId, Purchase, StockAdjustment, Timestamp, Window,
};

#[derive(Clone, Debug)]
enum Move {
    Buy(u32),
    /// The n-th purchase ever tried, modulo their number.
    Cancel(usize),
    Fail(usize),
    Adjust(i64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (1_u32..5).prop_map(Move::Buy),
        1 => (0_usize..30).prop_map(Move::Cancel),
        1 => (0_usize..30).prop_map(Move::Fail),
        1 => (-8_i64..0).prop_map(Move::Adjust),
        1 => (1_i64..8).prop_map(Move::Adjust),
    ];
    prop::collection::vec(one, 1..60)
}

/// What every order still has; 0 once it ended or if it was refused.
#[derive(Default)]
struct Book {
    figures: Figures,
    orders: Vec<u32>,
}

impl Book {
    /// What the move does to the figures, and whether it does anything.
    fn play(&mut self, play: &Move) -> bool {
        let figures = &mut self.figures;
        match play {
            Move::Buy(quantity) => {
                let fits = u64::from(*quantity) <= figures.available;
                let taken = if fits { *quantity } else { 0 };
                self.orders.push(taken);
                figures.available -= u64::from(taken);
                figures.sold += u64::from(taken);
                fits
            }
            Move::Cancel(order) | Move::Fail(order) => {
                let index = order % self.orders.len().max(1);
                let units = self.orders.get_mut(index).map_or(0, std::mem::take);
                figures.sold -= u64::from(units);
                figures.available += u64::from(units);
                units > 0
            }
            Move::Adjust(delta) if *delta > 0 => {
                figures.stocked += delta.unsigned_abs();
                figures.available += delta.unsigned_abs();
                true
            }
            Move::Adjust(delta) => {
                let fits = delta.unsigned_abs() <= figures.available;
                let taken = if fits { delta.unsigned_abs() } else { 0 };
                figures.available -= taken;
                figures.withheld += taken;
                fits
            }
        }
    }
}

fn product_id() -> ProductId {
    ProductId::parse("1").expect("a product id")
}

/// The move as a command; `number` makes its ids unique, `purchases` counts those before it.
fn command(play: &Move, number: usize, purchases: usize) -> Command {
    let order_id = |purchase: usize| OrderId((purchase as u128).to_be_bytes());
    let reason = || "because".into();
    match play {
        Move::Buy(quantity) => Command::Purchase(Purchase {
            order: order_id(purchases),
            customer: CustomerId::parse("ann").expect("a customer id"),
            product: product_id(),
            quantity: *quantity,
            key: None,
        }),
        Move::Cancel(order) => {
            Command::Cancel { order: order_id(order % purchases.max(1)), reason: reason() }
        }
        Move::Fail(order) => Command::Fail { order: order_id(order % purchases.max(1)), reason: reason() },
        Move::Adjust(delta) => Command::AdjustStock(StockAdjustment {
            product: product_id(),
            delta: *delta,
            reason: reason(),
            key: IdempotencyKey::parse(&format!("key-{number}")).expect("a key"),
        }),
    }
}

fn product(stock: u64) -> Command {
    Command::CreateProduct(NewProduct {
        id: Some(product_id()),
        name: "Lamp".into(),
        price: Money { amount: 500, currency: Currency::parse("EUR").expect("a currency") },
        stock,
        window: Window::default(),
        limit_per_customer: None,
        max_per_order: 10,
    })
}

proptest! {
    #[test]
    fn figures_follow_the_arithmetic_of_every_move(stock in 0_u64..20, moves in moves()) {
        let mut inventory = Inventory::new();
        let Decision::Accept(created) = inventory.decide(Timestamp(0), &product(stock)) else {
            panic!("a first product is accepted")
        };
        inventory.apply(&created);
        let mut book = Book {
            figures: Figures { stocked: stock, available: stock, ..Figures::default() },
            orders: Vec::new(),
        };
        for (number, play) in moves.iter().enumerate() {
            let command = command(play, number, book.orders.len());
            let decision = inventory.decide(Timestamp(0), &command);
            let is_accepted = book.play(play);
            prop_assert_eq!(matches!(decision, Decision::Accept(_)), is_accepted, "{:?}", decision);
            if let Decision::Accept(event) = decision {
                inventory.apply(&event);
            }
            let figures = inventory.product(&product_id()).expect("the product").figures();
            prop_assert_eq!(figures, book.figures);
            prop_assert_eq!(figures.conservation_error_units(), 0);
        }
    }
}
