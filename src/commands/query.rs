//! `ezscale query`: SQL over the stored tables.

use std::io::Write as _;

use analytics::output;
use clap::ValueEnum;

use crate::options::{Data, open_current};

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
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    data: Data,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Aligned columns for people
    Table,
    /// One array of objects; addresses as text, times as RFC 3339
    Json,
    /// Comma-separated values with a header line
    Csv,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.data.config()?;
    let analytics = open_current(&config).await?;
    let batches = analytics.sql(&args.sql).await?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match args.format {
        Format::Table => output::to_table(&batches, &mut out)?,
        Format::Json => output::to_json_rows(&batches, &mut out)?,
        Format::Csv => output::to_csv(&batches, &mut out)?,
    }
    out.flush()?;
    Ok(())
}
