//! Looking at a sale without changing it.

use redis::streams::StreamRangeReply;
use redis::{RedisError, RedisResult};

use super::keys::SaleKeys;
use super::script;
use super::servers::Server;

/// What a look shows, all of it at one instant.
pub(crate) type Seen = (Vec<Option<String>>, StreamRangeReply, Option<String>);

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
    call.invoke_async(&mut server.connection.clone()).await
}

/// Whether a key holds what no script of this engine puts there: somebody else wrote to it.
pub(crate) fn is_of_another_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}
