//! `cargo xtask bench` will measure here. Not on the command line before it measures something.
