//! `ezscale tax`: the rates of taxes, by place and time.

use activity::act::Note;
use anyhow::Context as _;
use billing::tax::{self, NewTaxRate};
use clap::Subcommand;
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemas::ids::TaxRateId;

use super::audit;
use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List every rate there is and was
    List {
        /// Only those of a country (ISO 3166, two letters)
        #[arg(long)]
        country: Option<String>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a rate
    Show {
        /// The rate (tax_N)
        rate: TaxRateId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Add a rate and print its id
    Add {
        /// Country (ISO 3166, two letters)
        #[arg(long)]
        country: String,
        /// State or province, as customers' profiles name it [default: the whole country]
        #[arg(long, default_value = "")]
        region: String,
        /// Name of the tax, without the rate
        #[arg(long, default_value = "VAT")]
        name: String,
        /// In percent, exact: 19, 9.975
        #[arg(long)]
        rate: Decimal,
        /// First instant (RFC 3339, or a day), such as 2026-01-01T00:00:00+01:00 [default: now]
        #[arg(long, value_parser = crate::options::instant)]
        from: Option<Timestamp>,
        /// First instant at which it no longer holds [default: none is known]
        #[arg(long, value_parser = crate::options::instant)]
        to: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
    /// End a rate
    End {
        /// The rate (tax_N)
        rate: TaxRateId,
        /// First instant at which it no longer holds (RFC 3339, or a day) [default: now]
        #[arg(long, value_parser = crate::options::instant)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { country, format, data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new([
                text("id"),
                text("country"),
                text("region"),
                text("tax"),
                number("rate_percent"),
                text("from"),
                text("to"),
            ]);
            for rate in tax::rates(database.pool()).await? {
                if country.as_ref().is_some_and(|country| *country != rate.country) {
                    continue;
                }
                listing.row([
                    shown(rate.id),
                    rate.country.into(),
                    rate.region.into(),
                    rate.name.into(),
                    rate.rate.value().into(),
                    at(rate.valid_from_ms),
                    rate.valid_to_ms.map(at).into(),
                ]);
            }
            listing.print(format, "no tax rates: add one with `ezscale tax add`")?;
        }
        Command::Show { rate, format, data } => {
            let (_, database) = data.open_database().await?;
            let found = tax::rates(database.pool())
                .await?
                .into_iter()
                .find(|found| found.id == rate);
            let found = found.with_context(|| format!("no tax rate {rate}: `ezscale tax list` lists them"))?;
            Record::new()
                .field(text("id"), shown(found.id))
                .field(text("country"), found.country)
                .field(
                    text("region").or("all"),
                    Some(found.region).filter(|region| !region.is_empty()),
                )
                .field(text("tax"), found.name)
                .field(number("rate_percent"), found.rate.value())
                .field(text("from"), at(found.valid_from_ms))
                .field(text("to").or("no end"), found.valid_to_ms.map(at))
                .print(format)?;
        }
        Command::Add {
            country,
            region,
            name,
            rate,
            from,
            to,
            data,
        } => {
            let (_, database) = data.open_or_create().await?;
            let now_ms = now_ms(&database).await?;
            let new = NewTaxRate {
                country: &country,
                region: &region,
                name: &name,
                rate_percent: rate,
                valid_from_ms: from.map_or(now_ms, Timestamp::as_millisecond),
                valid_to_ms: to.map(Timestamp::as_millisecond),
            };
            let mut act = audit::begin(&database, now_ms).await?;
            let rate = tax::add_rate(act.connection(), new, now_ms).await?;
            let change = serde_json::json!({"after": {
                "country": rate.country, "region": rate.region, "name": rate.name, "rate": rate.rate.to_string(),
                "from_ms": rate.valid_from_ms, "to_ms": rate.valid_to_ms,
            }});
            act.commit(Note::new("tax.add", rate.id).change(change)).await?;
            say!("{}", rate.id);
        }
        Command::End { rate, at, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let end_ms = at.map_or(now_ms, Timestamp::as_millisecond);
            let mut act = audit::begin(&database, now_ms).await?;
            tax::end_rate(act.connection(), rate, end_ms, now_ms).await?;
            let change = serde_json::json!({"after": {"to_ms": end_ms}});
            act.commit(Note::new("tax.end", rate).change(change)).await?;
        }
    }
    Ok(())
}
