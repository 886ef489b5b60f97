//! The scripts. Each is one atomic step in Redis.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));
    };
    // Of two files, the first of which other scripts begin with, too; Redis reads the flags in the first line.
    ($name:ident, $flags:literal, $head:literal, $file:literal) => {
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($flags, include_str!($head), include_str!($file))));
    };
}

script!(PURCHASE, "purchase.lua");
/// The purchase of somebody who takes the units first, means to write the order next, and dies in between. Any function
/// that writes nothing will do in place of the one that writes the entry.
pub(crate) static PURCHASE_WITHOUT_ENTRY: LazyLock<Script> =
    LazyLock::new(|| Script::new(&include_str!("purchase.lua").replace("redis.pcall('XADD', ", "tostring(")));
script!(CREDIT, "#!lua flags=allow-oom\n", "units.lua", "credit.lua");
script!(DEBIT, "#!lua\n", "units.lua", "debit.lua");
script!(SETTLE, "settle.lua");
script!(DESCRIBE, "describe.lua");
script!(LOAD, "load.lua");
script!(LOOK, "look.lua");
