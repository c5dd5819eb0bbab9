//! `ezscale usage`: what services received and sent in a range, with their 95th percentile and coverage.

use analytics::period::PeriodQuery;
use analytics::truth::percent_text;
use analytics::{PeriodUsage, UsageMode};
use anyhow::{Context as _, bail};
use billing::usage::MeteredUsage;
use clap::ValueEnum;
use jiff::{Timestamp, ToSpan as _};
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory;
use schemas::window::instant_text;

use crate::options::{Data, now_ms, open_current};
use crate::output::{Listing, Progress, bits_per_second, byte_count};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// One service (svc_N) [default: all that were used]
    #[arg(long)]
    service: Option<ServiceId>,
    /// What this customer (cus_N) sees: their services, each since it is theirs, as a transfer says
    #[arg(long)]
    customer: Option<CustomerId>,
    /// First instant (RFC 3339) [default: 30 days before the end]
    #[arg(long)]
    from: Option<Timestamp>,
    /// First instant after the range (RFC 3339) [default: now]
    #[arg(long)]
    to: Option<Timestamp>,
    /// Which directions count for the percentile and the billed volume
    #[arg(long, value_enum, default_value = "sum")]
    mode: Mode,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    data: Data,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Sum,
    In,
    Out,
    Max,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (config, database) = args.data.open_database().await?;
    let analytics = open_current(&config).await?;
    let now_ms = now_ms(&database).await?;
    let now = Timestamp::from_millisecond(now_ms)?;
    let to = args.to.unwrap_or(now);
    let from = match args.from {
        Some(from) => from,
        None => to.checked_sub((30 * 24).hours()).context("--from")?,
    };
    if from >= to {
        bail!("--from {from} must lie before --to {to}");
    }
    let (from_ms, to_ms) = (from.as_millisecond(), to.as_millisecond());
    let mut services = match args.service {
        Some(id) => vec![inventory::service(database.pool(), id).await?],
        None => inventory::services(database.pool()).await?,
    };
    if let Some(id) = args.customer {
        inventory::customer(database.pool(), id).await?;
        if let Some(service) = args.service
            && services.iter().any(|service| service.customer != id)
        {
            bail!("{service} is not {id}'s");
        }
        // What was measured before a service was theirs is not theirs to see (S1).
        services.retain(|service| service.customer == id && service.owned_from_ms < to_ms);
    }
    let mode = match args.mode {
        Mode::Sum => UsageMode::Sum,
        Mode::In => UsageMode::In,
        Mode::Out => UsageMode::Out,
        Mode::Max => UsageMode::Max,
    };
    let usage = MeteredUsage::new(analytics.clone(), &config.metering());
    let progress = Progress::counted("reading usage", services.len() as u64);
    let queries: Vec<PeriodQuery> = services
        .iter()
        .map(|service| PeriodQuery {
            service: usage.metered(service),
            from_ms: match args.customer {
                Some(_) => from_ms.max(service.owned_from_ms),
                None => from_ms,
            },
            to_ms,
            mode,
            excluded: Vec::new(),
        })
        .collect();
    let periods = analytics.period_usage_batch(&queries, now_ms).await?;
    progress.clear();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&periods)?),
        Format::Table => print_table(&services, &periods, from_ms, to_ms),
    }
    Ok(())
}

fn print_table(services: &[inventory::Service], periods: &[PeriodUsage], from_ms: i64, to_ms: i64) {
    println!("{} to {}", instant_text(from_ms), instant_text(to_ms));
    let mut listing = Listing::new(&[
        "service",
        "name",
        "in",
        "out",
        "billed",
        "95th",
        "± sampling",
        "measured",
    ]);
    for column in 2..8 {
        listing = listing.right(column);
    }
    for (service, period) in services.iter().zip(periods) {
        let measured = match period.windows_expected {
            0 => "-".to_owned(),
            expected => format!("{:.1} %", 100.0 * period.windows_measured as f64 / expected as f64),
        };
        listing.row([
            service.id.to_string(),
            service.name.clone(),
            byte_count(period.bytes_in),
            byte_count(period.bytes_out),
            byte_count(period.billed_bytes),
            period.percentile_95_bps.map_or_else(|| "-".to_owned(), bits_per_second),
            match period.error_bound_ppm {
                0 => "-".to_owned(),
                ppm => format!("{} %", percent_text(ppm)),
            },
            measured,
        ]);
    }
    listing.print("no services: add one with `ezscale service add`");
}
