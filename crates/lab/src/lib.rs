//! The lab: ways of selling, right and wrong, under one crowd and one audit.
//!
//! Every strategy is run the same way. The lab starts private servers, opens a shop (a process of its own, which may be
//! killed at a named point) that sells 100 units by that strategy, sends the crowd, does to shop and servers what the
//! strategy's scene says, waits until nothing is under way, and counts the books. The audit knows nothing of how was
//! sold: it compares what the crowd was told with what the stores hold.
//!
//! One run, in reading order: [`catalogue`] says what there is, [`run`] plays the scene on a [`stage`], the shop's
//! process ([`shop`]) sells by one of [`strategies`], or the real program ([`yoink`]) does, [`books`] are read, [`audit`]
//! judges.

pub mod audit;
pub mod books;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod crowd;
pub mod design;
pub mod generations;
pub mod house;
pub mod report;
pub mod run;
pub mod scene;
pub mod shop;
pub mod stage;
pub mod strategies;
pub mod table;
pub mod timeline;
pub mod yoink;
