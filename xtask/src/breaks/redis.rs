//! Mistakes in the redis engine and in the ledger in PostgreSQL.

use super::{Break, Edit};

const PURCHASE: &str = "crates/engine/src/redis/purchase.lua";
const CREDIT: &str = "crates/engine/src/redis/credit.lua";
const FUNCTIONS: &str = "crates/engine/src/postgres/migrations/V2__functions.sql";
const LIMITS: &str = "crates/engine/src/postgres/migrations/V5__limits_and_numbers.sql";
const SEALED: &str = "crates/engine/src/postgres/migrations/V10__restored.sql";
const TABLES_OF_LEDGER: &str = "crates/engine/src/postgres/migrations/V1__tables.sql";
const REDIS: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "redis"];
const POSTGRES: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--test", "postgres"];
const ENGINE: &[&str] = &["-p", "yoink-engine", "--features", "faults", "--lib"];
/// Two nodes, one key and one stock.
const ONE_STOCK: &str = "one_key_at_two_nodes_is_one_order_and_one_stock_is_sold_once";

/// In the order of the promises.
pub(super) const BREAKS: &[Break] = &[
    Break {
        promise: "1 no oversell, redis: one unit more than there is is given away",
        edits: &[Edit {
            file: PURCHASE,
            right: "if quantity > available then\n    if is_offer",
            wrong: "if quantity > available + 1 then\n    if is_offer",
        }],
        tests: REDIS,
        filter: ONE_STOCK,
    },
    Break {
        promise: "1 no oversell, redis: the ledger takes orders that it has no unit for",
        edits: &[
            Edit {
                file: LIMITS,
                right: "(ORDER BY s.number, s.id) > room",
                wrong: "(ORDER BY s.number, s.id) > room + 1000",
            },
            Edit {
                file: TABLES_OF_LEDGER,
                right: "CHECK (sold <= units)",
                wrong: "CHECK (sold <= units + 1000)",
            },
        ],
        tests: POSTGRES,
        filter: "what_the_ledger_has_no_unit_for_is_revoked_and_seen",
    },
    Break {
        promise: "1 no oversell, redis: the ledger's table takes more than there is",
        edits: &[Edit {
            file: TABLES_OF_LEDGER,
            right: "CHECK (sold <= units)",
            wrong: "CHECK (sold <= units + 1)",
        }],
        tests: POSTGRES,
        filter: "the_table_itself_refuses_to_sell_more_than_there_is",
    },
    Break {
        promise: "1 no oversell, redis: a server that lost what it sold is sold from",
        edits: &[Edit { file: PURCHASE, right: "if sale[2] ~= ARGV[2] then return all('I') end", wrong: "" }],
        tests: REDIS,
        filter: "what_a_redis_has_from_before_its_restart_is_not_sold_from",
    },
    Break {
        promise: "2 accepted is kept, redis: entries are settled before the ledger has committed",
        edits: &[Edit {
            file: "crates/engine/src/redis/worker.rs",
            right: "        if !grants.is_empty() {\n            trouble = self.deliver(",
            wrong: concat!(
                "        self.settle(server, epoch, keys, &entries).await?;\n",
                "        if !grants.is_empty() {\n            trouble = self.deliver("
            ),
        }],
        tests: REDIS,
        filter: "a_postgres_that_is_killed_or_down_cancels_nobody",
    },
    Break {
        promise: "2 accepted is kept, redis: a node forgets what it answered as a replay",
        edits: &[Edit {
            file: "crates/engine/src/redis/buy.rs",
            right: "too.\n                self.remember(listed.row.number, epoch, order, request, &grant);\n",
            wrong: "too.\n",
        }],
        tests: REDIS,
        filter: "an_order_that_another_node_knew_outlives_redis_and_the_node_that_accepted_it",
    },
    Break {
        promise: "2 accepted is kept, redis: what a worker had in hand when Redis was lost is revoked",
        edits: &[Edit {
            file: SEALED,
            right: "AND NOT a.sealed) THEN",
            wrong: "AND NOT a.sealed) AND false THEN",
        }],
        tests: REDIS,
        filter: "an_order_in_a_workers_hand_when_redis_is_emptied_is_offered_again",
    },
    Break {
        promise: "2 accepted is kept, redis: what a restored ledger does not know any more is not brought back",
        edits: &[Edit {
            file: "crates/engine/src/redis/loader.rs",
            right: "        if rescues {\n            self.rescue_from(",
            wrong: "        if rescues && epoch == 0 {\n            self.rescue_from(",
        }],
        tests: REDIS,
        filter: "what_was_sold_in_epochs_that_a_backup_does_not_know_is_brought_back",
    },
    Break {
        promise: "2 accepted is kept, redis: an order that was asked for again is revoked by the first",
        edits: &[
            Edit {
                file: "crates/engine/src/redis/keeper.rs",
                right: "Sent::Answered(Answer::Refused(_)) => {",
                wrong: "Sent::Answered(Answer::Refused(_) | Answer::KeyReused) => {",
            },
            Edit {
                file: "crates/engine/src/redis/keeper.rs",
                right: "Answer::OldReplay(_) | Answer::KeyReused",
                wrong: "Answer::OldReplay(_)",
            },
        ],
        tests: REDIS,
        filter: "an_order_that_was_asked_for_again_with_another_quantity_is_not_revoked_by_the_first",
    },
    Break {
        promise: "2 accepted is kept, redis: two ledgers on one Redis have the same keys",
        edits: &[Edit {
            file: "crates/engine/src/node/key_prefix.rs",
            right: ".take(DIGITS).collect()",
            wrong: ".take(DIGITS).map(|_| '0').collect()",
        }],
        tests: REDIS,
        filter: "two_ledgers_on_one_redis_each_sell_exactly_their_own_stock",
    },
    Break {
        promise: "2 accepted is kept, redis: an order whose number another one has fails",
        edits: &[Edit { file: LIMITS, right: "IF is_collided OR", wrong: "IF true OR" }],
        tests: REDIS,
        filter: "grants_that_are_counted_back_are_all_kept_and_redis_is_filled_anew",
    },
    Break {
        promise: "2 accepted is kept, redis: a buyer who may yet be accepted is told no",
        edits: &[Edit {
            file: "crates/engine/src/redis/buy.rs",
            right: "            _ if attempt.was_unknown => {",
            wrong: "            _ if attempt.was_unknown && attempt.expired => {",
        }],
        tests: REDIS,
        filter: "nobody_is_told_no_while_an_attempt_of_theirs_may_still_be_executed",
    },
    Break {
        promise: "2 accepted is kept, redis: servers that may forget are used all the same",
        edits: &[Edit {
            file: "crates/engine/src/redis/open.rs",
            right: "if options.settings == SettingsCheck::Strict && !complaints.is_empty() {",
            wrong: "if options.settings == SettingsCheck::Relaxed && !complaints.is_empty() {",
        }],
        tests: REDIS,
        filter: "a_redis_that_may_forget_is_refused_unless_it_is_relaxed",
    },
    Break {
        promise: "2 accepted is kept, redis: a ledger that may forget is used all the same",
        edits: &[Edit {
            file: "crates/engine/src/postgres/settings.rs",
            right: "\"on\" | \"remote_apply\"",
            wrong: "\"on\" | \"local\" | \"remote_apply\"",
        }],
        tests: POSTGRES,
        filter: "settings_that_lose_orders_are_refused_unless_it_is_relaxed",
    },
    Break {
        promise: "2 accepted is kept, redis: a setting that only new sessions of the ledger have is not seen",
        edits: &[Edit {
            file: "crates/engine/src/postgres/settings.rs",
            right: "self.read_in_new_session(WHAT, QUESTION)",
            wrong: "self.read(WHAT, QUESTION, &[])",
        }],
        tests: POSTGRES,
        filter: "a_setting_that_is_changed_is_seen_whatever_sessions_it_holds_for_and_so_is_its_mending",
    },
    Break {
        promise: "2 accepted is kept, redis: a session that began under a wrong setting is used once it is mended",
        edits: &[Edit {
            file: "crates/engine/src/postgres/connection.rs",
            right: "SettingsCheck::Strict => RECYCLE_STRICTLY,",
            wrong: "SettingsCheck::Strict => RECYCLE,",
        }],
        tests: POSTGRES,
        filter: "a_session_that_began_under_a_wrong_setting_commits_nothing_once_it_is_mended",
    },
    Break {
        promise: "2 accepted is kept, redis: more is sold than may wait for the ledger",
        edits: &[Edit {
            file: PURCHASE,
            right: "if number - done >= backlog and",
            wrong: "if number - done >= backlog + 1000 and",
        }],
        tests: REDIS,
        filter: "above_the_backlog_nobody_is_sold_anything_until_the_ledger_has_caught_up",
    },
    Break {
        promise: "3 conservation, redis: the units of an ended order vanish",
        edits: &[Edit {
            file: FUNCTIONS,
            right: "UPDATE allocations a SET units = a.units + how_many WHERE a.product = the_product AND",
            wrong: "UPDATE allocations a SET units = a.units WHERE a.product = the_product AND",
        }],
        tests: POSTGRES,
        filter: "eight_who_end_one_order_give_its_units_back_once",
    },
    Break {
        promise: "4 one order per key, redis: the key is not looked up",
        edits: &[Edit {
            file: PURCHASE,
            right: "  if before then\n",
            wrong: "  if before and is_offer then\n",
        }],
        tests: REDIS,
        filter: ONE_STOCK,
    },
    Break {
        promise: "4 one order per key, redis: two customers with one key are one order",
        edits: &[Edit {
            file: "crates/engine/src/node/order_id.rs",
            right: "        context.update(customer.as_str().as_bytes());\n",
            wrong: "        let _ = customer;\n",
        }],
        tests: ENGINE,
        filter: "the_same_request_is_the_same_order_everywhere_and_no_other_is",
    },
    Break {
        promise: "5 limit per customer, redis: one unit more is let through",
        edits: &[Edit {
            file: PURCHASE,
            right: "used + quantity > limit then",
            wrong: "used + quantity > limit + 1 then",
        }],
        tests: REDIS,
        filter: "a_customer_gets_units_up_to_the_limit_and_none_above_it",
    },
    Break {
        promise: "5 limit per customer, redis: the ledger takes what Redis has lost count of",
        edits: &[Edit {
            file: LIMITS,
            right: "                   > most, false)",
            wrong: "                   > most + 1, false)",
        }],
        tests: REDIS,
        filter: "what_a_customer_has_above_the_limit_is_revoked_visibly",
    },
    Break {
        promise: "5 limit per customer, redis: an order from before the limit was lowered is revoked",
        edits: &[Edit {
            file: LIMITS,
            right: "greatest(OLD.limit_highest, NEW.limit_per_customer)",
            wrong: "NEW.limit_per_customer",
        }],
        tests: REDIS,
        filter: "an_order_that_was_accepted_under_a_higher_limit_is_kept",
    },
    Break {
        promise: "6 units back once, redis: the units of an order come back without a mark",
        edits: &[Edit {
            file: CREDIT,
            right: "  if string.sub(order, 1, 1) == 'X' then return 2 end\n",
            wrong: "",
        }],
        tests: REDIS,
        filter: "units_come_back_once_even_if_the_node_dies_between_the_ledger_and_redis",
    },
    Break {
        promise: "6 units back once, redis: the units of a restock come without a mark",
        edits: &[Edit {
            file: CREDIT,
            right: "  if redis.call('HSETNX', KEYS[2], 'm' .. ARGV[2], ARGV[3]) == 0 then return 2 end\n",
            wrong: "",
        }],
        tests: REDIS,
        filter: "units_of_a_restock_come_once_even_if_the_ledger_does_not_hear_of_it",
    },
    Break {
        promise: "7 nothing sticks, redis: whoever is refused leaves something behind",
        edits: &[Edit {
            file: PURCHASE,
            right: "if paused then return 'U' end",
            wrong: "if paused then redis.call('HINCRBY', KEYS[1], 'refused', 1) return 'U' end",
        }],
        tests: REDIS,
        filter: "whoever_gets_nothing_leaves_nothing_behind",
    },
    Break {
        promise: "7 nothing sticks, redis: the last unit is never sold",
        edits: &[Edit {
            file: PURCHASE,
            right: "if quantity > available then\n    if is_offer",
            wrong: "if quantity >= available then\n    if is_offer",
        }],
        tests: REDIS,
        filter: ONE_STOCK,
    },
    Break {
        promise: "7 nothing sticks, redis: units that come back never reach Redis",
        edits: &[Edit {
            file: FUNCTIONS,
            right: "VALUES (the_order, the_product, current_epoch, how_many, 'returned', the_customer, now_us);",
            wrong: concat!(
                "SELECT the_order, the_product, current_epoch, how_many, 'returned', the_customer, now_us\n",
                "    WHERE false;"
            ),
        }],
        tests: POSTGRES,
        filter: "eight_who_end_one_order_give_its_units_back_once",
    },
];
