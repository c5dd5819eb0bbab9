//! `ezscale query`: SQL over the stored tables.

use analytics::{AnalyticsError, output};
use anyhow::anyhow;
use tables::table::Table;

use crate::options::{Data, open_current};
use crate::output::{Format, print};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Tables: flows, usage_5m, counters, collection_5m, truth_1h (docs/tables.md).
Functions for addresses: addr('192.0.2.1'), addr_text(src_addr), in_prefix(dst_addr, '2001:db8::/32').

Example: the ten busiest destinations of service 12 today
  ezscale query \"SELECT addr_text(dst_addr) AS peer, sum(bytes * sampling_rate) AS bytes FROM flows
                 WHERE src_service = 12 AND start_at >= date_trunc('day', now()) GROUP BY 1 ORDER BY 2 DESC LIMIT 10\""
)]
pub(crate) struct Args {
    /// The question in SQL (read-only)
    sql: String,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    data: Data,
}

/// What is wrong with a question, and where a table was asked for that is none, which there are.
fn in_words(error: AnalyticsError, tables: &[Table]) -> anyhow::Error {
    let Some(problem) = error.of_question() else {
        return error.into();
    };
    if !(problem.contains("table '") && problem.contains("not found")) {
        return anyhow!("run query: {problem}");
    }
    let names: Vec<&str> = tables.iter().map(|table| table.def().name).collect();
    anyhow!("run query: {problem}; the tables are {}", names.join(", "))
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.data.config_with_tables()?;
    let analytics = open_current(&config).await?;
    let batches = analytics.sql(&args.sql).await;
    let batches = batches.map_err(|error| in_words(error, analytics.tables()))?;
    if args.format == Format::Table && batches.iter().all(|batch| batch.num_rows() == 0) {
        tell!("the query found no rows");
        return Ok(());
    }
    print::stream(|mut out| {
        match args.format {
            Format::Table => output::to_table(&batches, &mut out)?,
            Format::Json => output::to_json_rows(&batches, &mut out)?,
            Format::Csv => output::to_csv(&batches, &mut out)?,
        }
        Ok(())
    })
}
