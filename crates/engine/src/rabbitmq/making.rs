//! Makes what the broker should have. One node does so at a time: a quorum queue that two make at the same moment was seen
//! to take nothing for minutes.

use lapin::Connection;

use super::shared::Shared;
use super::topology::{self, Queue};

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
    // A ledger that is away makes nobody wait.
    let turn = shared.desk.postgres.turn_to_make_queues().await.ok();
    let made = making.await;
    if let Some(turn) = turn {
        turn.end().await;
    }
    made
}
