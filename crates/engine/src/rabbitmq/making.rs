//! Makes what the broker should have. One node does so at a time: a quorum queue that two make at the same moment was seen
//! to take nothing for minutes.

use std::time::Duration;

use lapin::Connection;
use tokio::time::timeout;

use super::shared::Shared;
use super::topology::{self, Queue};

/// How long a turn is waited for, and its end: less than callers wait for all of it. Without one it is made all the same,
/// if the ledger is away, or whoever had the turn is gone without giving it back.
const TURN_MAX: Duration = Duration::from_millis(1_500);

/// Makes sure that everything is there.
///
/// # Errors
/// The broker does not do it.
pub(super) async fn everything(shared: &Shared, connection: &Connection) -> lapin::Result<Queue> {
    in_turn(shared, topology::ensure(connection, &shared.names, shared.options.queue_max)).await
}

/// Makes sure that there is a queue of dead letters and that something leads to it. One that is new is given time.
///
/// # Errors
/// The broker does not do it.
pub(super) async fn dead_letters(shared: &Shared, connection: &Connection) -> lapin::Result<()> {
    let queue = in_turn(shared, topology::ensure_dead(connection, &shared.names)).await?;
    if queue == Queue::New {
        tracing::warn!("there was no queue of dead letters; it was made");
        tokio::time::sleep(shared.options.new_queue_rest).await;
    }
    Ok(())
}

async fn in_turn<T>(shared: &Shared, making: impl Future<Output = T>) -> T {
    let turn = timeout(TURN_MAX, shared.desk.postgres.turn_to_make_queues()).await;
    let made = making.await;
    if let Ok(Ok(turn)) = turn {
        // One that does not end well ends with its connection.
        let _ = timeout(TURN_MAX, turn.end()).await;
    }
    made
}
