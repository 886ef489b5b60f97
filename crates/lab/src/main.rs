//! `yoink-lab`: runs ways of selling, right and wrong, and audits each.

use std::process::ExitCode;

use clap::Parser as _;
use yoink_lab::cli::{Cli, Command, ListArgs};
use yoink_lab::commands;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or_else(|| Command::List(ListArgs::default()));
    let done = match command {
        Command::List(args) => commands::list(&args),
        Command::Run(args) => commands::run(args).await,
        Command::Explain(args) => commands::explain(args).await,
        Command::Report(args) => commands::report(args).await,
        Command::Serve(args) => commands::serve(args).await,
        Command::Shop(args) => commands::shop(args).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            commands::complain(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}
