//! Where several refusals apply, the one whose check runs first is given: every combination is tried.

#![cfg(test)]

use yoink_core::{
    Command, Currency, CustomerId, Decision, IdempotencyKey, Inventory, Money, NewProduct, OrderId,
    ProductChange, ProductId, Purchase, Rejection, STOCK_UNITS_MAX, StockAdjustment, Timestamp, Window,
};

const NOW: Timestamp = Timestamp(1_000);

fn product_id(text: &str) -> ProductId {
    ProductId::parse(text).expect("a product id")
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a key")
}

fn new_product(id: &str) -> NewProduct {
    NewProduct {
        id: Some(product_id(id)),
        name: "Lamp".into(),
        price: Money { amount: 500, currency: Currency::parse("EUR").expect("a currency") },
        stock: 10,
        window: Window::default(),
        limit_per_customer: None,
        max_per_order: 10,
    }
}

fn purchase(product: &str, quantity: u32, key_text: &str) -> Command {
    Command::Purchase(Purchase {
        order: OrderId([7; 16]),
        customer: CustomerId::parse("ann").expect("a customer id"),
        product: product_id(product),
        quantity,
        key: Some(key(key_text)),
    })
}

fn adjustment(product: &str, delta: i64, key_text: &str) -> Command {
    Command::AdjustStock(StockAdjustment {
        product: product_id(product),
        delta,
        reason: "count".into(),
        key: key(key_text),
    })
}

fn change(product: &str, change: ProductChange) -> Command {
    Command::ChangeProduct { product: product_id(product), change }
}

fn accept(inventory: &mut Inventory, command: &Command) {
    match inventory.decide(NOW, command) {
        Decision::Accept(event) => inventory.apply(&event),
        other => panic!("{command:?} was answered {other:?}"),
    }
}

/// Product 1 with 10 units, of which ann has one under the key `used`.
fn inventory() -> Inventory {
    let mut inventory = Inventory::new();
    accept(&mut inventory, &Command::CreateProduct(new_product("1")));
    accept(&mut inventory, &purchase("1", 1, "used"));
    inventory
}

/// Of `reasons` to say no, the first must be given; with none, the answer is yes.
fn assert_first(inventory: &Inventory, command: &Command, reasons: &[&str]) {
    let rank = |reason: &&&str| {
        let position = Rejection::NAMES.iter().position(|name| name == *reason);
        position.expect("a rejection's name")
    };
    let given = match inventory.decide(NOW, command) {
        Decision::Accept(_) => None,
        Decision::Refuse(rejection) => Some(rejection.name()),
        Decision::Replay(replay) => panic!("{command:?} was answered {replay:?}"),
    };
    let first = reasons.iter().min_by_key(rank).copied();
    assert_eq!(given, first, "{command:?} with {reasons:?}");
}

/// Every subset of `reasons`.
fn subsets<'a>(reasons: &'a [&'a str]) -> impl Iterator<Item = Vec<&'a str>> {
    (0..1_usize << reasons.len()).map(move |bits| {
        let chosen = reasons.iter().enumerate().filter(|(index, _)| bits & (1 << index) != 0);
        chosen.map(|(_, reason)| *reason).collect()
    })
}

#[test]
fn a_purchase_is_refused_for_the_first_reason_of_every_combination() {
    let reasons = [
        "product-not-found",
        "idempotency-key-reused",
        "quantity-above-max",
        "sale-not-started",
        "sale-ended",
        "sale-paused",
        "limit-reached",
        "sold-out",
    ];
    let mut tried = 0;
    for reasons in subsets(&reasons) {
        let has = |reason| reasons.contains(&reason);
        if has("sale-not-started") && has("sale-ended") {
            continue; // No window is closed on both sides.
        }
        let mut inventory = inventory();
        let terms = ProductChange {
            name: Some("Lantern".into()),
            max_per_order: has("quantity-above-max").then_some(1),
            starts_at: has("sale-not-started").then_some(Some(Timestamp(NOW.0 + 1))),
            ends_at: has("sale-ended").then_some(Some(NOW)),
            limit_per_customer: has("limit-reached").then_some(Some(2)),
            ..ProductChange::default()
        };
        accept(&mut inventory, &change("1", terms));
        if has("sale-paused") {
            let product = product_id("1");
            accept(&mut inventory, &Command::Pause { product });
        }
        if has("sold-out") {
            accept(&mut inventory, &adjustment("1", -8, "w"));
        }
        let product = if has("product-not-found") { "2" } else { "1" };
        let key_text = if has("idempotency-key-reused") { "used" } else { "new" };
        assert_first(&inventory, &purchase(product, 2, key_text), &reasons);
        tried += 1;
    }
    assert_eq!(tried, 256 - 64);
}

#[test]
fn a_stock_adjustment_is_refused_for_the_first_reason_of_every_combination() {
    let too_many = i64::try_from(STOCK_UNITS_MAX).expect("it fits");
    for (last_reason, delta) in [("below-committed", -100), ("stock-too-large", too_many)] {
        for reasons in subsets(&["product-not-found", "idempotency-key-reused", last_reason]) {
            let mut inventory = inventory();
            accept(&mut inventory, &adjustment("1", 1, "used"));
            let product = if reasons.contains(&"product-not-found") { "2" } else { "1" };
            let is_reused = reasons.contains(&"idempotency-key-reused");
            let key_text = if is_reused { "used" } else { "new" };
            let delta = if reasons.contains(&last_reason) { delta } else { 2 };
            assert_first(&inventory, &adjustment(product, delta, key_text), &reasons);
        }
    }
}

#[test]
fn a_new_or_changed_product_is_refused_for_the_first_reason_of_every_combination() {
    let empty = Window { starts_at: Some(NOW), ends_at: Some(NOW) };
    for reasons in subsets(&["product-exists", "stock-too-large", "window-empty"]) {
        let has = |reason| reasons.contains(&reason);
        let mut product = new_product(if has("product-exists") { "1" } else { "2" });
        if has("stock-too-large") {
            product.stock = STOCK_UNITS_MAX + 1;
        }
        if has("window-empty") {
            product.window = empty;
        }
        assert_first(&inventory(), &Command::CreateProduct(product), &reasons);
    }
    for reasons in subsets(&["product-not-found", "window-empty"]) {
        let has = |reason| reasons.contains(&reason);
        let terms = ProductChange {
            name: Some("Lantern".into()),
            starts_at: has("window-empty").then_some(empty.starts_at),
            ends_at: has("window-empty").then_some(empty.ends_at),
            ..ProductChange::default()
        };
        let product = if has("product-not-found") { "2" } else { "1" };
        assert_first(&inventory(), &change(product, terms), &reasons);
    }
}

/// One of each, as they are declared.
fn every_rejection() -> Vec<Rejection> {
    vec![
        Rejection::ProductNotFound,
        Rejection::OrderNotFound,
        Rejection::ProductExists,
        Rejection::KeyReused { original: None },
        Rejection::QuantityAboveMax { max_per_order: 1 },
        Rejection::ConservationBroken,
        Rejection::SaleNotStarted { starts_at: NOW },
        Rejection::SaleEnded { ends_at: NOW },
        Rejection::SalePaused,
        Rejection::LimitReached { limit: 1, used: 1, existing: Vec::new() },
        Rejection::SoldOut { available: 0 },
        Rejection::OrderFailed,
        Rejection::BelowCommitted { available: 0 },
        Rejection::StockTooLarge,
        Rejection::WindowEmpty,
    ]
}

#[test]
fn rejections_are_declared_ranked_and_named_in_the_order_of_their_checks() {
    let declared: Vec<&str> = include_str!("../src/rejection.rs")
        .lines()
        .skip_while(|line| *line != "pub enum Rejection {")
        .skip(1)
        .take_while(|line| *line != "}")
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([',', ' ', '{']))
        .collect();
    let all = every_rejection();
    let variants: Vec<String> = all.iter().map(|rejection| format!("{rejection:?}")).collect();
    let variants: Vec<&str> = variants.iter().filter_map(|text| text.split(' ').next()).collect();
    assert_eq!(variants, declared);
    for (index, rejection) in all.iter().enumerate() {
        assert_eq!(rejection.rank(), index, "{rejection:?}");
        assert_eq!(rejection.name(), Rejection::NAMES[index]);
        assert!(!rejection.to_string().is_empty());
    }
}

#[test]
fn a_retry_may_succeed_where_time_or_others_can_change_the_answer() {
    let hopeful: Vec<_> = every_rejection()
        .into_iter()
        .filter(Rejection::retry_may_succeed)
        .map(|rejection| rejection.name())
        .collect();
    let expected = [
        "conservation-broken",
        "sale-not-started",
        "sale-paused",
        "limit-reached",
        "sold-out",
        "below-committed",
    ];
    assert_eq!(hopeful, expected);
}
