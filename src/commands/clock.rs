//! `ezscale clock`: what time billing takes it for, on a database made for rehearsals.

use activity::act::Note;
use anyhow::bail;
use billing::guard;
use clap::Subcommand;
use jiff::Timestamp;
use schemas::clock;
use schemas::window::instant_text;
use serde_json::json;

use super::audit;
use crate::options::{Data, now_ms};
use crate::output::{Record, ShowFormat, at, shown, text, to_the_second};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the time
    Show {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Confirm the machine's clock after it jumped; billing resumes
    Confirm {
        #[command(flatten)]
        data: Data,
    },
    /// Set a test clock forward; a process that serves this database follows within a second
    Set {
        /// The new time (RFC 3339, or a day), such as 2026-02-28T00:00:00Z
        #[arg(value_parser = crate::options::instant)]
        to: Timestamp,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Show { format, data } => {
            let (_, database) = data.open_database().await?;
            let clock = clock::of(database.pool()).await?;
            let kind = if clock.is_test() { "test" } else { "system" };
            let stopped = guard::stopped(database.pool()).await?;
            Record::new()
                .field(text("now"), at(clock.now().as_millisecond()))
                .field(text("clock"), kind)
                .field(text("billing_stopped"), stopped.map(shown))
                .print(format)?;
        }
        Command::Confirm { data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            guard::look(&database, config.billing.clock_limits(), now_ms).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (connection, by) = act.parts();
            let note = guard::confirm(connection, by.name, now_ms).await?;
            act.commit(note).await?;
            say!("billing resumed at {}", to_the_second(now_ms));
        }
        Command::Set { to, data } => {
            let (_, database) = data.open_database().await?;
            if !clock::of(database.pool()).await?.is_test() {
                bail!(
                    "this database goes by the system's clock: a test clock is begun with `ezscale serve --clock` on an empty one"
                );
            }
            let before_ms = now_ms(&database).await?;
            let to_ms = to.as_millisecond();
            let mut act = audit::begin(&database, to_ms).await?;
            clock::store(act.connection(), to).await?;
            let change = json!({"before": instant_text(before_ms), "after": instant_text(to_ms)});
            act.commit(Note::new("clock.set", "clock").change(change)).await?;
            say!("{to}");
        }
    }
    Ok(())
}
