//! The command line: what is typed, what is printed, with which code it ends.

mod admin_key;
mod api_client;
mod args;
mod audit;
mod banner;
mod dead_letters;
mod demo;
mod describe;
mod failure;
mod logging;
mod migrate;
mod orders;
mod output;
mod process;
mod products;
mod serve;
mod storm;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use output::Output;
use serve::Start;

/// Runs what was typed and says with which code the process ends.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors too, of the kind that goes to stdout with code 0.
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(failure::CODE_USAGE);
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(error) => failure::report(&error.into()),
            };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut output = Output::stdout();
    match cli.command {
        None => serve::run(&cli.demo, Start::Demo),
        Some(Command::Serve(args)) => serve::run(&args, Start::Serve),
        Some(Command::Worker(args)) => worker::run(&args),
        Some(Command::Migrate(args)) => migrate::run(&args, &mut output),
        Some(Command::Seed(args)) => products::seed(&args, &mut output),
        Some(Command::Restock(args)) => products::restock(&args, &mut output),
        Some(Command::Orders(args)) => orders::run(&args, &mut output),
        Some(Command::Storm(args)) => storm::run(&args, &mut output),
        Some(Command::Audit(args)) => audit::run(&args, &mut output),
        Some(Command::DeadLetters(args)) => dead_letters::run(&args.command, &mut output),
        Some(Command::Openapi) => describe::openapi(&mut output),
        Some(Command::Config(args)) => describe::config(&args, &mut output),
        Some(Command::Completions { shell }) => describe::completions(shell, &mut output),
    }
}
