//! `ezscale config`: the configuration as an example, checked, or as it is in force.

use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;

use crate::config::{Config, EXAMPLE};
use crate::options::Data;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print a commented configuration with every setting
    Example,
    /// Check a file and say what is wrong with it and where
    Check {
        /// The file to check
        file: PathBuf,
    },
    /// Print the configuration in force, flags and environment applied
    Show {
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Example => say_part!("{EXAMPLE}"),
        Command::Check { file } => {
            let config = Config::read(&file)?;
            say!(
                "{}: ok, {} exporters configured",
                file.display(),
                config.exporters.len()
            );
            let more = config.correcting().into_iter().chain(config.collection.words());
            let more = more.chain(config.retention.records.words());
            for line in config.reading().into_iter().chain(more) {
                say!("{line}");
            }
            if let Some(refusal) = config.refused_test_gateway().await {
                bail!("{}: {refusal}", file.display());
            }
        }
        Command::Show { data } => say_part!("{}", toml::to_string(&data.read_config()?)?),
    }
    Ok(())
}
