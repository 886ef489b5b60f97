//! Yoink's own engines: the real binary, under the same crowd and the same audit. It meets what breaks others: buyers who
//! send each purchase two times at once, a quantity below one, and a kill while a part of the crowd is buying, after
//! which it is started again on the same data.

use crate::catalogue::{Entry, Kind, Needs, Seller};
use crate::scene::Act;

const SCENE: &[Act] = &[
    // While there is something to be sold twice: later clicks may all be told that nothing is left.
    Act::DoubleClicks(2),
    Act::Hostile(-5),
    Act::Begin(40),
    Act::Sold(30),
    Act::ShopKilled,
    Act::Join,
    Act::DoubleClicks(30),
    Act::Crowd(28),
];

pub(super) const EMBEDDED: Entry = Entry {
    name: "embedded",
    kind: Kind::Engine,
    line: "one process: every order is in its log on disk before the answer",
    defect: None,
    repair: "one writer decides, one after the other; what it has answered is on disk and is found after a crash",
    needs: Needs { postgres: false, redis: None, rabbit: false },
    schema: "",
    scene: SCENE,
    point: None,
    seller: Seller::Engine("embedded"),
};

pub(super) const REDIS: Entry = Entry {
    name: "redis",
    line: "decides in Redis, in one script with the order itself; workers carry orders to PostgreSQL",
    repair: "unit, order and key are one atomic step in Redis; the ledger takes each order once, however often it comes",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: false },
    seller: Seller::Engine("redis"),
    ..EMBEDDED
};

pub(super) const RABBITMQ: Entry = Entry {
    name: "rabbitmq",
    line: "queues requests in RabbitMQ, confirmed; workers decide them in PostgreSQL",
    repair: "a message is acknowledged only after the decision is committed, and the ledger decides each request once",
    needs: Needs { postgres: true, redis: Some(&[]), rabbit: true },
    seller: Seller::Engine("rabbitmq"),
    ..EMBEDDED
};
