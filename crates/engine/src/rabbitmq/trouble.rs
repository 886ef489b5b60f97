//! While the ledger has trouble: what is in hand is kept, and asked for again.

use std::time::Duration;

use super::hand::Gone;
use crate::node::{Node, Patience};
use crate::postgres::PostgresError;

/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long to wait between attempts.
pub(super) fn patience() -> Patience {
    Patience::up_to(WAIT_MAX)
}

/// Asks the ledger until it answers, however long that takes; `hold` waits between two attempts. Inside: it failed for
/// what it was asked, perhaps.
///
/// # Errors
/// What `hold` says: the channel is over.
pub(super) async fn insist<F, H>(
    node: &Node,
    ask: impl Fn() -> F,
    hold: impl Fn(Duration) -> H,
) -> Result<Result<(), PostgresError>, Gone>
where
    F: Future<Output = Result<(), PostgresError>>,
    H: Future<Output = Result<(), Gone>>,
{
    let mut patience = patience();
    loop {
        match ask().await {
            Err(error) if !error.may_lie_in_what_was_asked() => {
                node.note_delivery_error(&error);
                hold(patience.next()).await?;
            }
            answered => return Ok(answered),
        }
    }
}
