//! The scripts. Each is one atomic step in Redis.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));
    };
}

script!(PURCHASE, "purchase.lua");
script!(CREDIT, "credit.lua");
script!(DEBIT, "debit.lua");
script!(SETTLE, "settle.lua");
script!(DESCRIBE, "describe.lua");
script!(LOAD, "load.lua");
