//! What the demo sells.

use anyhow::Context as _;
use yoink_core::{Currency, MAX_PER_ORDER_DEFAULT, Money, NewProduct, ProductId, Window};
use yoink_engine::{Engine, ProductView};

/// The id of the demo's product.
pub(super) const PRODUCT: &str = "1";
/// What people call it.
pub(super) const NAME: &str = "Flash Sale Item";
/// Units it begins with.
pub(super) const UNITS: u64 = 100;
/// What one costs, in minor units.
pub(super) const PRICE_MINOR: i64 = 19_999;
/// The currency.
pub(super) const CURRENCY: &str = "EUR";

/// Opens the demo's product if it is not there; a second start finds it as it was.
///
/// # Errors
/// The engine refuses.
pub(super) async fn open_product(engine: &Engine) -> anyhow::Result<ProductView> {
    let id = ProductId::parse(PRODUCT)?;
    if let Some(product) = engine.storefront().product(&id) {
        return Ok(product);
    }
    let currency = Currency::parse(CURRENCY).context("the demo's currency is not a currency")?;
    let product = NewProduct {
        id: Some(id),
        name: NAME.into(),
        price: Money { amount: PRICE_MINOR, currency },
        stock: UNITS,
        window: Window::default(),
        limit_per_customer: None,
        max_per_order: MAX_PER_ORDER_DEFAULT,
    };
    engine.create_product(product).await.context("cannot open the demo's product")
}
