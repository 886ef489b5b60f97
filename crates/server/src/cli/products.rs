//! `yoink seed` and `yoink restock`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::api_client::ApiClient;
use super::args::{RestockArgs, SeedArgs, SeedPreset};
use super::demo;
use super::output::Output;

/// What a product begins with unless flags say otherwise.
struct Seed {
    id: Option<&'static str>,
    units: u64,
    limit_per_customer: Option<u32>,
    max_per_order: Option<u32>,
}

fn seed_of(preset: Option<SeedPreset>) -> Seed {
    let first = Seed { id: Some("1"), units: demo::UNITS, limit_per_customer: None, max_per_order: None };
    match preset {
        None => Seed { id: None, ..first },
        Some(SeedPreset::FlashSaleEngine) => first,
        Some(SeedPreset::Yoink) => Seed { units: 500, ..first },
        Some(SeedPreset::FlashSaleSystem) => {
            Seed { limit_per_customer: Some(1), max_per_order: Some(1), ..first }
        }
    }
}

/// Puts a product on sale; the same flags with an id again find it on sale.
pub(super) fn seed(args: &SeedArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let seed = seed_of(args.preset);
    let units = args.units.unwrap_or(seed.units);
    let price = args.price.unwrap_or_else(|| demo::PRICE_MINOR.unsigned_abs());
    let mut body = json!({
        "name": args.name.as_deref().unwrap_or(demo::NAME),
        "price": {"amount": price, "currency": args.currency},
        "stock": units,
    });
    if let Value::Object(members) = &mut body {
        let optional = [
            ("id", args.id.as_deref().or(seed.id).map(Value::from)),
            ("limit_per_customer", args.limit.or(seed.limit_per_customer).map(Value::from)),
            ("max_per_order", seed.max_per_order.map(Value::from)),
        ];
        members.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    let product = ApiClient::new(&args.target)?.post("/v1/admin/products", &body, None)?;
    if args.json {
        output.json(&product)?;
    } else {
        let text = |name: &str| product.get(name).and_then(Value::as_str).unwrap_or_default();
        // Of a product that was seeded before, some may be sold.
        let units = product.get("stock").and_then(Value::as_u64).unwrap_or(units);
        output.line(format!("product {} \"{}\" is on sale: {} units", text("id"), text("name"), units))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds or withdraws units.
pub(super) fn restock(args: &RestockArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let key = args.key.clone().unwrap_or_else(|| format!("cli-{}", uuid::Uuid::now_v7()));
    let path = format!("/v1/admin/products/{}/stock", segment(&args.product));
    let body = json!({"delta": args.units, "reason": args.reason});
    let adjustment = ApiClient::new(&args.target)?.post(&path, &body, Some(&key))?;
    if args.json {
        output.json(&adjustment)?;
    } else {
        let available = adjustment.pointer("/figures/available").and_then(Value::as_u64);
        let available = available.map_or_else(String::new, |units| format!(", {units} available now"));
        output.line(format!("product {}: {:+} units{available}", args.product, args.units))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One segment of a path, whatever the user typed.
pub(super) fn segment(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_id_cannot_leave_its_place_in_the_path() {
        assert_eq!(segment("1"), "1");
        assert_eq!(segment("../a?b=c#d"), "..%2Fa%3Fb%3Dc%23d");
    }
}
