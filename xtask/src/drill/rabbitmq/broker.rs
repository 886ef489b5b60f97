//! What is done to the broker behind everybody's back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use yoink_testkit::RabbitServer;

use super::fault::{Broken, Fault};
use super::stage::{RabbitStage, WORKERS};
use crate::drill::shop::buyer::PLENTY;
use crate::drill::shop::processes::Role;

/// Messages that a tiny queue holds.
const TINY: u64 = 3;
/// The queue has as many within this time, while workers stand still.
const FULL_WITHIN: Duration = Duration::from_secs(10);
/// Poison is listed within this time.
const LISTED_WITHIN: Duration = Duration::from_secs(30);
/// Kinds of poison: the last is put among the dead letters, the others among the requests.
const POISON_KINDS: u64 = 5;
/// One of the others.
const TO_ORDERS: u64 = 0;
/// A long message.
const LONG_BYTES: usize = 1_000_000;

/// The names in the broker, as the engine makes them from the ledger's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) exchange: String,
    pub(super) orders: String,
    pub(super) dead_exchange: String,
    pub(super) dead: String,
}

impl Names {
    pub(super) fn of(ledger: &str) -> Names {
        let id: String = ledger.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        let name = |what: &str| format!("yoink.{id}.{what}");
        Names {
            exchange: name("requests"),
            orders: name("orders"),
            dead_exchange: name("dead-letters"),
            dead: name("dead"),
        }
    }
}

/// Does what concerns the broker alone.
pub(super) fn strike(fault: Fault, stage: &mut RabbitStage, random: &mut SmallRng) -> Result<Option<Broken>> {
    match fault {
        Fault::BrokerLoss => {
            stage.rabbit.kill();
            let data = stage.rabbit.folder().join("mnesia");
            std::fs::remove_dir_all(&data)?;
            std::fs::create_dir(&data)?;
            return Ok(Some(Broken::Broker));
        }
        Fault::BrokerPause => {
            stage.rabbit.pause()?;
            std::thread::sleep(Duration::from_millis(random.random_range(300..4_000)));
            stage.rabbit.resume();
        }
        Fault::QueueDeletion | Fault::QueuePurge => empty_queue(fault, stage)?,
        Fault::DeadQueueDeletion => delete_dead_queue(stage, random)?,
        Fault::TinyQueue => make_tiny(stage, random)?,
        Fault::MemoryAlarm => {
            stage.rabbit.set_memory_alarm(true)?;
            std::thread::sleep(Duration::from_millis(random.random_range(200..3_500)));
            stage.rabbit.set_memory_alarm(false)?;
        }
        Fault::Poison => poison(stage, stage.poison % POISON_KINDS, random)?,
        // BrokerKill; everything else concerns others, too.
        _ => {
            stage.rabbit.kill();
            return Ok(Some(Broken::Broker));
        }
    }
    Ok(None)
}

/// Lets the queue hold a few messages only, and workers stand still until it is full.
fn make_tiny(stage: &mut RabbitStage, random: &mut SmallRng) -> Result<()> {
    let (policy, pattern) = (format!("{{\"max-length\":{TINY}}}"), format!("^{}$", stage.names.orders));
    stage.rabbit.ctl(&["set_policy", "--apply-to", "queues", "tiny", &pattern, &policy])?;
    for index in 0..WORKERS {
        stage.shop.process(Role::Worker(index))?.freeze();
    }
    let filled = wait_filled(stage);
    std::thread::sleep(Duration::from_millis(random.random_range(200..1_000)));
    for index in 0..WORKERS {
        stage.shop.process(Role::Worker(index))?.thaw();
    }
    filled?;
    std::thread::sleep(Duration::from_millis(random.random_range(100..500)));
    stage.rabbit.ctl(&["clear_policy", "tiny"]).map(drop).context("clearing the policy")
}

/// Waits until a few messages wait in the queue. Workers stand still.
fn wait_filled(stage: &RabbitStage) -> Result<()> {
    let until = Instant::now() + FULL_WITHIN;
    loop {
        let (ready, in_hand) = stage.rabbit.queue_messages(&stage.names.orders)?;
        if ready >= TINY {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{ready} messages wait in the queue after {} s, and {in_hand} are in somebody's hands",
            FULL_WITHIN.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes what is in the queue away, and perhaps the queue. Workers stand still for a moment before, so that there is
/// something in it.
fn empty_queue(fault: Fault, stage: &mut RabbitStage) -> Result<()> {
    for index in 0..WORKERS {
        stage.shop.process(Role::Worker(index))?.freeze();
    }
    let filled = wait_filled(stage);
    let emptied = filled.and_then(|()| match fault {
        Fault::QueueDeletion => Ok(stage.rabbit.delete_queue(&stage.names.orders)?),
        _ => Ok(stage.rabbit.purge(&stage.names.orders)?),
    });
    for index in 0..WORKERS {
        stage.shop.process(Role::Worker(index))?.thaw();
    }
    ensure!(emptied? > 0, "the queue was empty: nothing was lost");
    Ok(())
}

/// Deletes the queue of dead letters while nothing is in it: only the broker knows what is there. Poison that comes right
/// then must survive, which takes a new one.
fn delete_dead_queue(stage: &mut RabbitStage, random: &mut SmallRng) -> Result<()> {
    wait_listed(stage)?;
    stage.rabbit.delete_queue(&stage.names.dead)?;
    poison(stage, TO_ORDERS, random)?;
    wait_listed(stage)
}

/// Waits until all poison is listed, and the queue of dead letters is there and empty.
fn wait_listed(stage: &RabbitStage) -> Result<()> {
    let until = Instant::now() + LISTED_WITHIN;
    loop {
        let listed = stage.shop.count("SELECT count(*) FROM unreadable")?;
        let queued = stage.rabbit.queue_messages(&stage.names.dead);
        if listed >= stage.poison && matches!(queued, Ok((0, 0))) {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{listed} of {} poison messages are listed after {} s, and the queue of dead letters has {queued:?}",
            stage.poison,
            LISTED_WITHIN.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Puts a message into a queue that is no request, of one kind of several.
fn poison(stage: &mut RabbitStage, kind: u64, random: &mut SmallRng) -> Result<()> {
    // No two are the same: the ledger keeps the same bytes once.
    let number = stage.poison;
    let unique = format!("{number}-{:032x}", random.random::<u128>());
    let forged = format!(
        "{:032x}|1|{:032x}|{:032x}|1|1|1767607200123456|100|EUR|p-0-{number}",
        random.random::<u128>(),
        1_u128 << 96,
        random.random::<u128>()
    );
    let names = &stage.names;
    let to_orders = (names.exchange.as_str(), names.orders.as_str());
    let (place, body) = match kind {
        0 => (to_orders, binary(unique.as_bytes())),
        1 => (to_orders, binary(forged.as_bytes())),
        2 => {
            let beginning = binary(unique.as_bytes());
            (to_orders, format!("<<({beginning})/binary, (binary:copy(<<\"x\">>, {LONG_BYTES}))/binary>>"))
        }
        3 => {
            let json = format!("{{\"product\":\"{PLENTY}\",\"quantity\":1,\"n\":\"{unique}\"}}");
            (to_orders, binary(json.as_bytes()))
        }
        _ => (
            (names.dead_exchange.as_str(), names.dead.as_str()),
            binary(&[unique.as_bytes(), &[0xFF, 0xFE, 0]].concat()),
        ),
    };
    publish(&stage.rabbit, place, &body)?;
    stage.poison += 1;
    Ok(())
}

fn publish(rabbit: &RabbitServer, (exchange, key): (&str, &str), body: &str) -> Result<()> {
    let (exchange, key) = (binary(exchange.as_bytes()), binary(key.as_bytes()));
    let published = rabbit.eval(&format!(
        "ok = rabbit_basic:publish(rabbit_misc:r(<<\"/\">>, exchange, {exchange}), {key}, [{{delivery_mode, 2}}], {body})"
    ));
    published.map(drop).context("publishing poison")
}

/// Bytes as Erlang writes them, so that none is anything but a byte.
fn binary(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("<<{}>>", bytes.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_engine() {
        let source = include_str!("../../../../crates/engine/src/rabbitmq/topology.rs");
        let names = Names::of("0123abcd-ffff-4fff-8fff-ffffffffffff");
        assert_eq!(names.orders, "yoink.0123abcd.orders");
        for name in [&names.exchange, &names.orders, &names.dead_exchange, &names.dead] {
            let last = name.rsplit('.').next().unwrap();
            assert!(source.contains(&format!("name(\"{last}\")")), "{last}");
        }
    }
}
