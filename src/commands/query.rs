//! `ezscale query`: SQL over the stored tables.

use crate::options::{Data, open_current};
use crate::output::{Format, print};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Tables: flows; its sums usage_5m, usage_1h, and the same of interface, port and as; counters, collection_5m, truth_1h
(docs/tables.md).
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

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.data.config_with_tables()?;
    let analytics = open_current(&config).await?;
    let answer = analytics.console().ask(&args.sql).await?;
    if args.format == Format::Table && answer.row_count() == 0 {
        tell!("the query found no rows");
        return Ok(());
    }
    print::stream(|mut out| {
        match args.format {
            Format::Table => answer.write_table(&mut out)?,
            Format::Json => answer.write_json(&mut out)?,
            Format::Csv => answer.write_csv(&mut out)?,
        }
        Ok(())
    })
}
