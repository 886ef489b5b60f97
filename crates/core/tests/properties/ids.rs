//! Names check themselves.

use proptest::prelude::*;
use yoink_core::{Currency, CustomerId, IdError, IdempotencyKey, OrderId, ProductId};

fn fits_product(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=39).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn fits_customer(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn fits_key(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

proptest! {
    #[test]
    fn a_product_id_comes_back_as_it_was(text in "[A-Za-z0-9._-]{1,39}") {
        let id = ProductId::parse(&text).expect("it fits");
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(id.to_string(), text);
    }

    #[test]
    fn product_ids_sort_like_their_texts(left in "[A-Ca-c0-2._-]{1,4}", right in "[A-Ca-c0-2._-]{1,4}") {
        let ids = (ProductId::parse(&left).expect("it fits"), ProductId::parse(&right).expect("it fits"));
        prop_assert_eq!(ids.0.cmp(&ids.1), left.cmp(&right));
        prop_assert_eq!(ids.0 == ids.1, left == right);
    }

    #[test]
    fn ids_take_what_fits_and_nothing_else(text in "\\PC{0,45}|[ -~]{0,300}|[a-z\\x00-\\x1f\u{7f}-\u{9f}é ]{1,4}") {
        prop_assert_eq!(ProductId::parse(&text).is_ok(), fits_product(&text));
        let customer = CustomerId::parse(&text);
        prop_assert_eq!(customer.is_ok(), fits_customer(&text));
        let key = IdempotencyKey::parse(&text);
        prop_assert_eq!(key.is_ok(), fits_key(&text));
        if let Ok(customer) = customer {
            prop_assert_eq!(customer.as_str(), &text);
        }
        if let Ok(key) = key {
            prop_assert_eq!(key.as_str(), &text);
        }
    }

    #[test]
    fn an_order_id_is_written_as_a_uuid(number in any::<u128>()) {
        let text = OrderId(number.to_be_bytes()).to_string();
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        prop_assert_eq!(groups, [8, 4, 4, 4, 12]);
        prop_assert_eq!(text.replace('-', ""), format!("{number:032x}"));
    }

    #[test]
    fn a_currency_is_three_capitals(text in "[A-Za-z]{2,4}|[A-Z]{3}|\\PC{0,3}") {
        let fits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let currency = Currency::parse(&text);
        prop_assert_eq!(currency.is_some(), fits);
        if let Some(currency) = currency {
            prop_assert_eq!(currency.as_str(), &text);
        }
    }
}

#[test]
fn an_id_that_does_not_fit_says_why() {
    assert_eq!(ProductId::parse(""), Err(IdError::Empty));
    assert_eq!(ProductId::parse(&"x".repeat(40)), Err(IdError::TooLong { bytes_max: 39 }));
    let slash = ProductId::parse("a/b").expect_err("a slash");
    assert!(matches!(slash, IdError::BadCharacter { character: '/', .. }));
    assert_eq!(slash.to_string(), "must not contain '/'; allowed are letters, digits, '.', '_' and '-'");
    // Bytes count, not characters: 64 of two bytes fit a customer id, 65 do not.
    assert!(CustomerId::parse(&"é".repeat(64)).is_ok());
    let too_long = CustomerId::parse(&"é".repeat(65));
    assert_eq!(too_long, Err(IdError::TooLong { bytes_max: 128 }));
    let newline = CustomerId::parse("a\nb").expect_err("a control character");
    assert!(newline.to_string().starts_with(r"must not contain '\n'"));
    assert!(IdempotencyKey::parse("two words").is_err());
}
