//! Mistakes in the rabbitmq engine.

use super::{Break, Edit};

const ASIDE: &str = "crates/engine/src/rabbitmq/aside.rs";
const AUDIT: &str = "crates/engine/src/rabbitmq/audit.rs";
const BROKER: &str = "crates/engine/src/rabbitmq/broker.rs";
const SENDING: &str = "crates/engine/src/rabbitmq/sending.rs";
const PUBLISHING: &str = "crates/engine/src/rabbitmq/publishing.rs";
const RETAINED: &str = "crates/engine/src/rabbitmq/retained.rs";
const HAND: &str = "crates/engine/src/rabbitmq/hand.rs";
const LOT: &str = "crates/engine/src/rabbitmq/lot.rs";
const LOTS: &str = "crates/engine/src/rabbitmq/lots.rs";
const LOCK: &str = "crates/engine/src/rabbitmq/lock.rs";
const QUEUE: &str = "crates/engine/src/postgres/migrations/V4__queue.sql";
const RABBIT: &[&str] = &["-p", "yoink-engine", "--features", "faults,broker-tests", "--test", "rabbit"];

/// In the order of the promises.
pub(super) const BREAKS: &[Break] = &[
    Break {
        promise: "2 nothing is lost, rabbitmq: 202 before the broker has confirmed",
        edits: &[Edit {
            file: SENDING,
            right: "            let outcome = match confirm.await {",
            wrong: "            drop(confirm);\n            let outcome = match Ok::<_, lapin::Error>(Confirmation::Ack(None)) {",
        }],
        tests: RABBIT,
        filter: "nobody_is_told_that_a_request_is_queued_before_the_broker_has_said_so",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: what leads to no queue counts as queued",
        edits: &[Edit { file: BROKER, right: "mandatory: true", wrong: "mandatory: false" }],
        tests: RABBIT,
        filter: "what_leads_nowhere_is_not_queued",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: what a cut left unanswered is not sent again",
        edits: &[Edit {
            file: PUBLISHING,
            right: "if ticket.attempts > 1 || ticket.is_again {",
            wrong: "if ticket.attempts > 0 || ticket.is_again {",
        }],
        tests: RABBIT,
        filter: "what_was_sent_over_a_connection_that_ended_is_sent_again",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: nobody keeps what the broker confirmed until it was seen",
        edits: &[Edit {
            file: RETAINED,
            right: "        if state.seen.has(number) {\n            return;\n        }\n        let not_before",
            wrong: "        if !state.seen.has(number) {\n            return;\n        }\n        let not_before",
        }],
        tests: RABBIT,
        filter: "what_the_broker_loses_is_queued_again_by_whoever_sent_it",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: a message is acknowledged when one request of it is decided",
        edits: &[Edit {
            file: HAND,
            right: "            Some(left) if *left > 1 => *left -= 1,\n",
            wrong: "",
        }],
        tests: RABBIT,
        filter: "those_who_come_together_are_few_messages_and_each_is_acknowledged_when_all_of_it_is_decided",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: a message is acknowledged before it is decided",
        edits: &[Edit {
            file: LOT,
            right: "        match self.insist(&requests, since).await? {",
            wrong: concat!(
                "        self.acknowledge(places.iter().map(|(tag, _)| *tag).collect()).await?;\n",
                "        match self.insist(&requests, since).await? {"
            ),
        }],
        tests: RABBIT,
        filter: "what_a_worker_had_in_hand_and_not_committed_when_it_died_is_decided_by_another",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: what the broker returns is told of another message of its channel",
        edits: &[Edit {
            file: SENDING,
            right: "let Some(channel) = channels.lock().pop() else",
            wrong: "let Some(channel) = channels.lock().first().cloned() else",
        }],
        tests: RABBIT,
        filter: "who_is_told_that_nothing_happened_is_not_taken_for_somebody_whose_request_was_confirmed_at_the_same_moment",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: what leads to no queue of dead letters counts as put aside",
        edits: &[Edit {
            file: ASIDE,
            right: "            Ok(Confirmation::Ack(None)) => return true,",
            wrong: "            Ok(Confirmation::Ack(_)) => return true,",
        }],
        tests: RABBIT,
        filter: "a_queue_of_dead_letters_that_is_gone_or_that_nothing_leads_to_is_made_anew_and_no_poison_is_lost",
    },
    Break {
        promise: "2 nothing is lost, rabbitmq: what another node queued with the same key is taken for a copy",
        edits: &[Edit {
            file: LOTS,
            right: "        (self.request.order, self.request.publisher, self.request.sequence)",
            wrong: "        (self.request.order, Uuid::nil(), 0)",
        }],
        tests: RABBIT,
        filter: "what_two_nodes_queued_with_one_key_counts_as_seen_from_both",
    },
    Break {
        promise: "rabbitmq, audit: what a worker has in hand counts as lost",
        edits: &[Edit {
            file: AUDIT,
            right: "        Some(0) => of_the_dead.saturating_sub(in_hand),",
            wrong: "        Some(0) => of_the_dead,",
        }],
        tests: RABBIT,
        filter: "what_a_worker_holds_for_as_long_as_it_takes_is_not_lost",
    },
    Break {
        promise: "1 no oversell, rabbitmq: an old fencing token is as good as the newest",
        edits: &[Edit {
            file: QUEUE,
            right: "stale := the_fence IS NOT NULL AND the_fence <> p.fence;",
            wrong: "stale := false;",
        }],
        tests: RABBIT,
        filter: "who_comes_with_an_old_token_decides_nothing_and_begins_anew",
    },
    Break {
        promise: "4 one order per key, rabbitmq: what was decided is decided again",
        edits: &[Edit {
            file: QUEUE,
            right: "        IF is_known[i] THEN\n",
            wrong: "        IF is_known[i] AND false THEN\n",
        }],
        tests: RABBIT,
        filter: "what_was_decided_and_not_acknowledged_comes_again_and_is_known",
    },
    Break {
        promise: "rabbitmq, locks: who gives one back deletes it, whose ever it is by now",
        edits: &[Edit {
            file: LOCK,
            right: "         if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end",
            wrong: "         redis.call('DEL', KEYS[1], KEYS[2])",
        }],
        tests: RABBIT,
        filter: "a_lock_that_somebody_else_took_meanwhile_is_left_to_him",
    },
    Break {
        promise: "rabbitmq, locks: who works on does not renew",
        edits: &[Edit {
            file: LOCK,
            right: "         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
            wrong: "         return 1",
        }],
        tests: RABBIT,
        filter: "who_works_longer_than_the_lock_lives_keeps_it",
    },
];
