//! Looking at a sale without changing it.

use redis::{RedisError, RedisResult};

use super::keys::SaleKeys;
use super::script;
use super::servers::Server;
use super::stream::StreamEntry;

/// What a look shows, all of it at one instant.
pub(crate) type Seen = (Vec<Option<String>>, Vec<StreamEntry>, Option<String>);

/// Fields that a page has, about.
const PAGE_FIELDS: usize = 1_000;

/// Some fields of a hash, with their values, and where the next page begins: at 0 if this was the last.
pub(crate) type Page = (u64, Vec<(Vec<u8>, Vec<u8>)>);

/// The fields of a hash from `cursor` on, which is 0 at first. A field that is there from the first page to the last is
/// on at least one of them, perhaps on several. `None`: the key is of another type.
///
/// # Errors
/// Redis cannot be asked.
pub(crate) async fn page_of_fields(server: &Server, key: &str, cursor: u64) -> RedisResult<Option<Page>> {
    let mut scan = redis::cmd("HSCAN");
    scan.arg(key).arg(cursor).arg("COUNT").arg(PAGE_FIELDS);
    match scan.query_async(&mut server.connection.clone()).await {
        Err(error) if is_of_another_type(&error) => Ok(None),
        page => page.map(Some),
    }
}

/// Tells `take` of every field of a hash and of its value, of some perhaps more than once. False: the key is of another
/// type.
///
/// # Errors
/// Redis cannot be asked.
pub(crate) async fn every_field(
    server: &Server,
    key: &str,
    mut take: impl FnMut(Vec<u8>, Vec<u8>),
) -> RedisResult<bool> {
    let mut cursor = 0;
    loop {
        let Some((next, fields)) = page_of_fields(server, key, cursor).await? else { return Ok(false) };
        fields.into_iter().for_each(|(field, value)| take(field, value));
        if next == 0 {
            return Ok(true);
        }
        cursor = next;
    }
}

/// Looks at fields of the sale, at its oldest entries from `first` on ("-": from the beginning), and at a field of its
/// buyers.
///
/// # Errors
/// Redis cannot be asked, or one of the keys is of another type.
pub(crate) async fn look(
    server: &Server,
    keys: &SaleKeys,
    of_sale: &[&str],
    (first, entries_max): (&str, usize),
    of_buyers: &str,
) -> RedisResult<Seen> {
    let mut call = script::LOOK.prepare_invoke();
    call.key(&keys.sale).key(&keys.buyers).key(&keys.grants).arg(of_buyers).arg(first).arg(entries_max);
    for field in of_sale {
        call.arg(*field);
    }
    let (of_sale, entries, of_buyers): (Vec<Option<Vec<u8>>>, _, Option<Vec<u8>>) =
        call.invoke_async(&mut server.connection.clone()).await?;
    Ok((of_sale.into_iter().map(text_of).collect(), entries, text_of(of_buyers)))
}

/// A value as text. Anybody may have written what is none: that is like no value of this engine's, and tells so.
pub(crate) fn text_of(value: Option<Vec<u8>>) -> Option<String> {
    value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a key holds what no script of this engine puts there: somebody else wrote to it.
pub(crate) fn is_of_another_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}
