//! Mistakes in the core and in the embedded engine.

use super::{Break, Edit};

const DECIDE: &str = "crates/core/src/inventory/decide.rs";
const CORE: &[&str] = &["-p", "yoink-core", "--test", "properties"];
const STORAGE: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "storage"];
const RECOVERY: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "recovery"];
const CLOCK: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "clock"];

/// In the order of the promises.
pub(super) const BREAKS: &[Break] = &[
    Break {
        promise: "1 no oversell: one unit more than there is is given away",
        edits: &[Edit {
            file: DECIDE,
            right: "if u64::from(purchase.quantity) > available {",
            wrong: "if u64::from(purchase.quantity) > available.saturating_add(1) {",
        }],
        tests: CORE,
        filter: "",
    },
    Break {
        promise: "2 accepted is kept: answers are sent before the commit",
        edits: &[Edit {
            file: "crates/engine/src/embedded/writer.rs",
            right: "        self.log.commit()?;",
            wrong: "        send(std::mem::take(&mut answers));\n        self.log.commit()?;",
        }],
        tests: STORAGE,
        filter: "",
    },
    Break {
        promise: "2 accepted is kept: a refused start folds the log back",
        edits: &[Edit {
            file: "crates/engine/src/embedded/log.rs",
            right: "set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)",
            wrong: "set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)",
        }],
        tests: RECOVERY,
        filter: "",
    },
    Break {
        promise: "2 accepted is kept: the beacon is not held against the log",
        edits: &[Edit {
            file: "crates/engine/src/embedded/recovery.rs",
            right: "    let incarnation = keep_promise(&log, promise, accept_loss)?;",
            wrong: "    let _ = keep_promise;\n    let incarnation = promise.incarnation;",
        }],
        tests: RECOVERY,
        filter: "",
    },
    Break {
        promise: "2 accepted is kept: numbers of lost events are given again",
        edits: &[Edit {
            file: "crates/engine/src/embedded/loss.rs",
            right: "    if recovered.log.last_seq() < promised {",
            wrong: "    let _ = record;\n    if false {",
        }],
        tests: RECOVERY,
        filter: "numbers_of_lost_events_are_never_given_again",
    },
    Break {
        promise: "2 accepted is kept: numbers jump just behind the last that was lost",
        edits: &[Edit {
            file: "crates/engine/src/embedded/loss.rs",
            right: "promised.saturating_add(limits::LOSS_MARGIN_EVENTS)",
            wrong: "promised.saturating_add(limits::LOSS_MARGIN_EVENTS.min(1))",
        }],
        tests: RECOVERY,
        filter: "numbers_of_lost_events_are_never_given_again",
    },
    Break {
        promise: "2 accepted is kept: a gap is taken for a loss that was accepted, without its record",
        edits: &[Edit {
            file: "crates/engine/src/embedded/loss.rs",
            right: "log.accept_loss(to, inventory.last_at(), (promise.seq, promise.chain));",
            wrong: "log.accept_loss(to, inventory.last_at(), (0, 0));",
        }],
        tests: RECOVERY,
        filter: "a_beacon_that_promises_what_was_accepted_as_lost_is_believed_no_more_and_any_other_is",
    },
    Break {
        promise: "3 conservation: the units of an ended order vanish",
        edits: &[Edit {
            file: "crates/core/src/stock.rs",
            right: concat!(
                "        lower(&mut self.sold, units, \"sold\");\n",
                "        raise(&mut self.available, units, \"available\");\n",
                "        self.assert_law();"
            ),
            wrong: "        lower(&mut self.sold, units, \"sold\");",
        }],
        tests: CORE,
        filter: "",
    },
    Break {
        promise: "4 one order per key: the key is not looked up",
        edits: &[Edit {
            file: DECIDE,
            right: "            self.find_replay(customer, product_number, purchase)?;",
            wrong: "            let _ = Self::find_replay;",
        }],
        tests: CORE,
        filter: "",
    },
    Break {
        promise: "4 one order per key: who asks again meanwhile is told no",
        edits: &[Edit {
            file: "crates/engine/src/embedded/engine.rs",
            right: "            shared.storefront.publish_buyer(request.customer.as_str());",
            wrong: "            let _ = &shared.storefront;",
        }],
        tests: CLOCK,
        filter: "",
    },
    Break {
        promise: "5 limit per customer: one unit more is let through",
        edits: &[Edit {
            file: DECIDE,
            right: "if used.saturating_add(quantity) <= limit {",
            wrong: "if used.saturating_add(quantity) <= limit.saturating_add(1) {",
        }],
        tests: CORE,
        filter: "",
    },
    Break {
        promise: "6 units back once: a cancelled order is cancelled again",
        edits: &[Edit {
            file: DECIDE,
            right: "            OrderState::Cancelled => Err(No::Replay(Replay::Order(order))),\n",
            wrong: "            OrderState::Cancelled => Ok(Fact::OrderCancelled { order, reason: reason.into() }),\n",
        }],
        tests: CORE,
        filter: "",
    },
    Break {
        promise: "7 nothing sticks: the last unit is never sold",
        edits: &[Edit {
            file: DECIDE,
            right: "if u64::from(purchase.quantity) > available {",
            wrong: "if u64::from(purchase.quantity) >= available {",
        }],
        tests: CORE,
        filter: "",
    },
];
