//! What can be typed for the redis engine.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigLayer, ServerUrl, empty_layer};

pub(super) const MIGRATE_HELP: &str = "\
Examples:
  yoink migrate --postgres postgres://yoink@10.0.0.6/yoink
  YOINK_POSTGRES_URL=postgres://yoink:PASSWORD@10.0.0.6/yoink yoink migrate --json

Run it before the first start and after each update. Running it again, or twice at once, does no harm.";

/// `yoink migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Read settings from this file [env: YOINK_CONFIG] [default: yoink.toml if it is there]
    #[arg(long, value_name = "FILE", env = "YOINK_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// The PostgreSQL [env: YOINK_POSTGRES_URL]
    #[arg(long, value_name = "URL")]
    pub postgres: Option<ServerUrl>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl MigrateArgs {
    /// What the flags say, as the first layer of the configuration.
    pub fn layer(&self) -> ConfigLayer {
        let mut layer = empty_layer();
        layer.postgres.url.clone_from(&self.postgres);
        layer
    }
}
