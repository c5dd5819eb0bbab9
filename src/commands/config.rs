//! `ezscale config`: the configuration as an example, checked, or as it is in force.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};

use crate::config::{Config, EXAMPLE};
use crate::options::Data;
use crate::output::count;

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
        #[arg(required_unless_present = "config")]
        file: Option<PathBuf>,
        /// The file to check, as every other command names it
        #[arg(long, env = "EZSCALE_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the configuration in force, flags and environment applied
    Show {
        /// Configuration file, as `config check` takes it [default: that of --config]
        file: Option<PathBuf>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ConfigFormat,
        #[command(flatten)]
        data: Data,
    },
}

/// Form of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum ConfigFormat {
    /// As the file is written
    #[default]
    Toml,
    /// One object
    Json,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Example => say_part!("{EXAMPLE}"),
        Command::Check { file, config } => {
            let file = file.or(config).context("name the file to check")?;
            let config = Config::read(&file)?;
            say!(
                "{}: ok, {} configured",
                file.display(),
                count(config.exporters.len(), "exporter")
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
        Command::Show { file, format, mut data } => {
            data.config = file.or(data.config);
            let config = data.read_config()?;
            match format {
                ConfigFormat::Toml => say_part!("{}", toml::to_string(&config)?),
                ConfigFormat::Json => say!("{}", serde_json::to_string_pretty(&config)?),
            }
        }
    }
    Ok(())
}
