//! `ezscale usage`: what services received and sent in a range, with their 95th percentile and coverage.

use std::sync::Arc;

use analytics::{FlowStore, MeteredUsage, PeriodQuery, PeriodUsage, UsageMode};
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use jiff::{Timestamp, ToSpan as _};
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory;

use crate::options::{Data, check_order, now_ms, open_current};
use crate::output::{Cell, Format, Listing, Progress, at, bit_rate, bytes, number, ppm, shown, text, to_the_second};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// One service (svc_N) [default: all that were used]
    #[arg(long)]
    service: Option<ServiceId>,
    /// What this customer (cus_N) sees: their services, each since it is theirs, as a transfer says
    #[arg(long)]
    customer: Option<CustomerId>,
    /// First instant (RFC 3339, or a day) [default: 30 days before the end]
    #[arg(long, value_parser = crate::options::instant)]
    from: Option<Timestamp>,
    /// First instant after the range (RFC 3339, or a day) [default: now]
    #[arg(long, value_parser = crate::options::instant)]
    to: Option<Timestamp>,
    /// Which directions count for the percentile and the billed volume
    #[arg(long, value_enum, default_value = "sum")]
    mode: Mode,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
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

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (config, database) = args.data.open_database().await?;
    let store: Arc<dyn FlowStore> = open_current(&config).await?.into();
    let now_ms = now_ms(&database).await?;
    let now = Timestamp::from_millisecond(now_ms)?;
    let to = args.to.unwrap_or(now);
    let from = match args.from {
        Some(from) => from,
        None => to.checked_sub((30 * 24).hours()).context("--from")?,
    };
    let (from_ms, to_ms) = (from.as_millisecond(), to.as_millisecond());
    check_order(from_ms, to_ms)?;
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
    let usage = MeteredUsage::new(Arc::clone(&store), &config.metering());
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
    let periods = store.period_usage(&queries, now_ms).await?;
    progress.clear();
    if args.format == Format::Table {
        let measured_to_ms = periods.iter().map(|period| period.measured_to_ms).max();
        say!("{}", range_line(from_ms, to_ms, measured_to_ms));
    }
    list(&services, &periods, args.format)
}

/// The range above a table: where the newest windows of it are not closed yet, also up to when it is measured.
fn range_line(from_ms: i64, to_ms: i64, measured_to_ms: Option<i64>) -> String {
    let range = format!("{} to {}", to_the_second(from_ms), to_the_second(to_ms));
    match measured_to_ms.filter(|&measured_to_ms| measured_to_ms < to_ms) {
        Some(measured_to_ms) => format!("{range}, measured to {}", to_the_second(measured_to_ms)),
        None => range,
    }
}

fn list(services: &[inventory::Service], periods: &[PeriodUsage], format: Format) -> anyhow::Result<()> {
    let mut listing = Listing::new([
        text("service"),
        text("name"),
        text("from"),
        text("to").only_data(),
        text("measured_to").only_data(),
        bytes("bytes_in").titled("in"),
        bytes("bytes_out").titled("out"),
        bytes("billed_bytes"),
        bit_rate("percentile_95_bps").or("-").titled("95th percentile"),
        ppm("error_bound_ppm").or("-").titled("bound"),
        number("windows_measured").titled("measured"),
        number("windows_expected").titled("expected"),
        number("windows_excluded").titled("excluded"),
        number("gaps"),
        bytes("excluded_bytes_in").only_data(),
        bytes("excluded_bytes_out").only_data(),
    ]);
    for (service, period) in services.iter().zip(periods) {
        let error = Some(period.error_bound_ppm).filter(|&ppm| ppm > 0 || format != Format::Table);
        let gaps = match format {
            Format::Json => Cell::json(&period.gaps)?,
            Format::Table | Format::Csv => period.gaps.len().into(),
        };
        listing.row([
            shown(service.id),
            service.name.as_str().into(),
            at(period.from_ms),
            at(period.to_ms),
            at(period.measured_to_ms),
            period.bytes_in.into(),
            period.bytes_out.into(),
            period.billed_bytes.into(),
            period.percentile_95_bps.into(),
            error.into(),
            period.windows_measured.into(),
            period.windows_expected.into(),
            period.windows_excluded.into(),
            gaps,
            period.excluded_bytes_in.into(),
            period.excluded_bytes_out.into(),
        ]);
    }
    listing.print(format, "no services: add one with `ezscale service add`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_says_up_to_when_it_is_measured() {
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let (from, to, closed) = (
            ms("2026-01-01T00:00:00Z"),
            ms("2026-01-02T23:41:47Z"),
            ms("2026-01-02T23:35:00Z"),
        );
        let whole = "2026-01-01T00:00:00Z to 2026-01-02T23:41:47Z";
        assert_eq!(
            range_line(from, to, Some(closed)),
            format!("{whole}, measured to 2026-01-02T23:35:00Z")
        );
        assert_eq!(range_line(from, to, Some(to)), whole);
        assert_eq!(range_line(from, to, None), whole, "no service");
    }
}
