//! What Redis says that customers have, held against the ledger. A purchase is held to its limit by what Redis says.

use std::collections::{BTreeMap, HashMap};

use redis::RedisError;
use uuid::Uuid;

use super::audit::LOOKS_MAX;
use super::foreign::{Foreign, is_text};
use super::look::{every_field, is_of_another_type};
use super::servers::Server;
use super::{RedisEngine, keeper_pause};
use crate::CallError;
use crate::postgres::{Grant, ProductRow};

/// Customers that are looked at again, where more are said differently.
const SUSPECTS_MAX: usize = 100;
/// Of those, the ones that are named.
const NAMED_MAX: usize = 5;

/// The units of a customer as Redis has them (`None`: it cannot be read), and as they should be.
type Said = (Option<u64>, u64);

impl RedisEngine {
    /// Which customers of a product certainly have another number of units in Redis than in the ledger, and what stands
    /// among them that is not this engine's, in words. Orders move while they are counted: who seems to differ is looked at
    /// again, and a difference is believed if every look shows the same.
    pub(super) async fn compare_customers(&self, product: i32) -> Result<Option<String>, CallError> {
        let mut foreign = Foreign::default();
        let mut suspects: BTreeMap<String, Option<Said>> = BTreeMap::new();
        let found = self.suspects(product, &mut foreign).await?;
        suspects.extend(found.into_iter().map(|customer| (customer, None)));
        for _ in 0..LOOKS_MAX {
            if suspects.is_empty() {
                break;
            }
            tokio::time::sleep(keeper_pause()).await;
            let names: Vec<&str> = suspects.keys().map(String::as_str).collect();
            let Some(mut said) = self.look_at_customers(product, &names).await? else { continue };
            suspects.retain(|customer, before| {
                let now = said.remove(customer).filter(|(found, expected)| *found != Some(*expected));
                let is_same = now.is_some() && (before.is_none() || *before == now);
                *before = now;
                is_same
            });
        }
        let words: Vec<String> = foreign.in_words("buyers").into_iter().chain(in_words(&suspects)).collect();
        Ok((!words.is_empty()).then(|| words.join("; ")))
    }

    /// Customers whose units one look finds to differ, some of them if there are many. None if Redis does not sell the
    /// product.
    async fn suspects(&self, product: i32, foreign: &mut Foreign) -> Result<Vec<String>, CallError> {
        let row = self.row_of(product).await?;
        let server = self.servers().of(product).await.map_err(|_| CallError::Unreachable)?;
        let buyers = self.shared().keys(product, row.epoch).buyers;
        // In this order, in which orders move: what is in Redis now is later in the stream or in the ledger.
        let mut units: HashMap<String, Option<i64>> = HashMap::new();
        let is_there = every_field(&server, &buyers, |field, value| match customer_of(&field) {
            Some(customer) => {
                let found = units_in(&value).and_then(|found| i64::try_from(found).ok());
                units.insert(customer.to_owned(), found);
            }
            None => foreign.note(field, &value),
        });
        if !is_there.await.map_err(|_| CallError::Unreachable)? {
            return Ok(Vec::new());
        }
        let mut take = |customer: &str, taken: i64| match units.get_mut(customer) {
            Some(units) => *units = units.map(|units| units.saturating_sub(taken)),
            None => drop(units.insert(customer.to_owned(), Some(taken.saturating_neg()))),
        };
        let sale = self.read_sale(&server, &row, |grant: &Grant| {
            take(&grant.customer, i64::from(grant.quantity));
        });
        if sale.await?.is_none_or(|sale| sale.obstacle(row.epoch, &server.identity).is_some()) {
            return Ok(Vec::new());
        }
        let ledger = self.postgres().units_of_all_customers(product, |customer, live| {
            take(customer, i64::try_from(live).unwrap_or(i64::MAX));
        });
        ledger.await?;
        let differing = units.into_iter().filter(|(_, units)| *units != Some(0));
        Ok(differing.map(|(customer, _)| customer).take(SUSPECTS_MAX).collect())
    }

    /// Looks at some customers; `None` if Redis does not sell the product.
    async fn look_at_customers(
        &self,
        product: i32,
        names: &[&str],
    ) -> Result<Option<HashMap<String, Said>>, CallError> {
        let row = self.row_of(product).await?;
        let server = self.servers().of(product).await.map_err(|_| CallError::Unreachable)?;
        let buyers = self.shared().keys(product, row.epoch).buyers;
        let found = some_customers(&server, &buyers, names).await.map_err(|_| CallError::Unreachable)?;
        let mut waiting: HashMap<&str, u64> = names.iter().map(|customer| (*customer, 0)).collect();
        let mut orders: Vec<Uuid> = Vec::new();
        let sale = self.read_sale(&server, &row, |grant: &Grant| {
            if let Some(units) = waiting.get_mut(grant.customer.as_str()) {
                *units = units.saturating_add(u64::from(grant.quantity.unsigned_abs()));
                orders.push(Uuid::from_bytes(grant.order.0));
            }
        });
        let sells = sale.await?.is_some_and(|sale| sale.obstacle(row.epoch, &server.identity).is_none());
        let Some(found) = found.filter(|_| sells) else { return Ok(None) };
        // The ledger may have got them since.
        let ledger = self.postgres().units_of_customers(product, names, &orders).await?;
        let said = names.iter().zip(found).map(|(customer, found)| {
            let live = ledger.get(*customer).copied().unwrap_or(0);
            let expected = live.saturating_add(waiting.get(customer).copied().unwrap_or(0));
            ((*customer).to_owned(), (found, expected))
        });
        Ok(Some(said.collect()))
    }

    async fn row_of(&self, product: i32) -> Result<ProductRow, CallError> {
        self.postgres().product_numbered(product).await?.ok_or(CallError::OutcomeUnknown)
    }
}

/// Whose field of the buyers it is; `None` if nobody's.
fn customer_of(field: &[u8]) -> Option<&str> {
    let customer = field.strip_prefix(b"c").filter(|customer| is_text(customer))?;
    std::str::from_utf8(customer).ok()
}

/// The units of these customers, `None` if they cannot be read; or nothing, if there are no such fields.
async fn some_customers(
    server: &Server,
    buyers: &str,
    names: &[&str],
) -> Result<Option<Vec<Option<u64>>>, RedisError> {
    let mut ask = redis::cmd("HMGET");
    ask.arg(buyers);
    for customer in names {
        ask.arg(format!("c{customer}"));
    }
    let asked: Result<Vec<Option<Vec<u8>>>, _> = ask.query_async(&mut server.connection.clone()).await;
    let values = match asked {
        Err(error) if is_of_another_type(&error) => return Ok(None),
        asked => asked?,
    };
    // Who never bought has no field.
    let units = |value: Option<Vec<u8>>| value.map_or(Some(0), |value| units_in(&value));
    Ok(Some(values.into_iter().map(units).collect()))
}

/// The units in a customer's field, `units|ids` or `units|ids|time`, as `purchase.lua` reads it.
fn units_in(field: &[u8]) -> Option<u64> {
    let (units, rest) = std::str::from_utf8(field).ok()?.split_once('|')?;
    let (ids, time) = rest.split_once('|').unwrap_or((rest, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let are_ids = ids.len() % 32 == 0 && ids.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!units.is_empty() && are_digits(units) && are_digits(time) && are_ids).then(|| units.parse().ok())?
}

/// Who is said differently for certain.
fn in_words(suspects: &BTreeMap<String, Option<Said>>) -> Option<String> {
    let certain: Vec<(&String, &Said)> =
        suspects.iter().filter_map(|(customer, said)| Some((customer, said.as_ref()?))).collect();
    let named = certain.iter().take(NAMED_MAX).map(|(customer, (found, expected))| match found {
        Some(found) => {
            format!("customer {customer:?} has {found} units in Redis and {expected} in the ledger")
        }
        None => {
            format!("what Redis has of customer {customer:?} cannot be read; he has {expected} in the ledger")
        }
    });
    let mut words: Vec<String> = named.collect();
    match certain.len() {
        0 => None,
        count => {
            if count > NAMED_MAX {
                words.push(format!("and {} customers more", count - NAMED_MAX));
            }
            Some(words.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_the_script_reads_them() {
        let id = "00000007aaaa8aaa8aaaaaaaaaaaaaaa";
        assert_eq!(units_in(b"0|"), Some(0));
        assert_eq!(units_in(format!("3|{id}{id}").as_bytes()), Some(3));
        assert_eq!(units_in(format!("3|{id}|1767607200123456").as_bytes()), Some(3));
        for garbage in
            ["", "3", "|", "x|", "-1|", "+1|", "1|x", &format!("1|{id}0"), "1||x", "99999999999999999999|"]
        {
            assert_eq!(units_in(garbage.as_bytes()), None, "{garbage}");
        }
        assert_eq!(units_in(b"\xff|"), None);
    }

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let suspects = |count: usize| {
            let all = (0..count).map(|number| (number.to_string(), Some((Some(1), 2))));
            all.chain([("unseen".to_owned(), None)]).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(in_words(&suspects(0)), None, "nobody could be looked at again");
        assert_eq!(
            in_words(&suspects(1)).as_deref(),
            Some("customer \"0\" has 1 units in Redis and 2 in the ledger")
        );
        assert!(in_words(&suspects(NAMED_MAX)).is_some_and(|words| !words.contains("more")));
        assert!(
            in_words(&suspects(NAMED_MAX + 2)).is_some_and(|words| words.ends_with("and 2 customers more"))
        );
    }
}
