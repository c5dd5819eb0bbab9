//! `ezscale plan`: the catalog, and who is subscribed to what.

use analytics::UsageMode;
use anyhow::Context as _;
use billing::catalog::{self, BaseTiming, NewPlan, NewPrice, QuotaUnit, Terms};
use billing::price::UsagePrice;
use billing::subscription::{self, NewSubscription};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemas::ids::{PriceId, ServiceId};
use schemas::money::{Currency, Money};

use crate::options::{Data, now_ms};
use crate::output::Listing;

/// Who did what the command line does.
const ACTOR: &str = "command line";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a plan with its first price; prints the ids of both
    Add(Add),
    /// List plans and prices
    List {
        #[command(flatten)]
        data: Data,
    },
    /// Subscribe a service at a price and print the subscription's id
    Subscribe {
        /// The service (svc_N)
        service: ServiceId,
        /// The price (prc_N), which names the plan
        #[arg(long)]
        price: PriceId,
        /// Day of the month on which periods start [default: the day of the start]
        #[arg(long, value_parser = clap::value_parser!(i64).range(1..=31))]
        anchor_day: Option<i64>,
        /// First instant (RFC 3339) [default: now]
        #[arg(long)]
        from: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Add {
    #[arg(long)]
    name: String,
    /// Kind of service the plan is for
    #[arg(long = "type", default_value = "vps")]
    service_type: String,
    /// How usage is charged
    #[arg(long, value_enum, default_value = "transfer")]
    model: Model,
    /// Included transfer per cycle, in units
    #[arg(long, default_value_t = 0)]
    included: i64,
    /// GB = 1000³ bytes, GiB = 1024³ bytes
    #[arg(long, default_value = "GiB")]
    unit: QuotaUnit,
    /// Which directions count
    #[arg(long, value_enum, default_value = "sum")]
    mode: Mode,
    /// Mbit/s that the base price covers (percentile)
    #[arg(long, default_value = "0")]
    commit_mbps: Decimal,
    /// Base price per cycle, such as 19.99
    #[arg(long)]
    price: Decimal,
    #[arg(long, default_value = "USD")]
    currency: Currency,
    /// Months in a cycle
    #[arg(long, default_value_t = 1)]
    months: i64,
    /// Charge the base price at the end of each cycle, not at its start
    #[arg(long)]
    in_arrears: bool,
    /// Price of one unit over the included transfer, or of one Mbit/s over the commit: 0.05, or
    /// graduated:10=1.5,110=1,*=0.5, volume:10=1.5,*=1, package:10=100
    #[arg(long, default_value = "0")]
    usage_rate: UsagePrice,
    #[command(flatten)]
    data: Data,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Model {
    Flat,
    Transfer,
    Percentile,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Sum,
    In,
    Out,
    Max,
}

impl Add {
    fn terms(&self) -> Terms {
        let mode = match self.mode {
            Mode::Sum => UsageMode::Sum,
            Mode::In => UsageMode::In,
            Mode::Out => UsageMode::Out,
            Mode::Max => UsageMode::Max,
        };
        match self.model {
            Model::Flat => Terms::Flat,
            Model::Transfer => Terms::Transfer {
                included_units: self.included,
                unit: self.unit,
                mode,
            },
            Model::Percentile => Terms::Percentile {
                commit_mbps: self.commit_mbps,
                mode,
            },
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add(add) => {
            let (_, database) = add.data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            let new = NewPlan {
                base_timing: if add.in_arrears {
                    BaseTiming::Arrears
                } else {
                    BaseTiming::Advance
                },
                ..NewPlan::new(&add.name, &add.service_type, add.terms())
            };
            let plan = catalog::create_plan(&mut transaction, new, now_ms).await?;
            let new = NewPrice {
                plan: plan.id,
                cycle_months: add.months,
                base: Money::round_from_major(add.price, add.currency).context("--price")?,
                usage: add.usage_rate,
                valid_from_ms: now_ms,
            };
            let price = catalog::add_price(&mut transaction, new).await?;
            transaction.commit().await?;
            println!("{} {}", plan.id, price.id);
        }
        Command::List { data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new(&["plan", "name", "type", "model", "price", "months", "base", "usage rate"])
                .right(6)
                .right(7);
            for plan in catalog::plans(database.pool()).await? {
                for price in catalog::prices_of(database.pool(), plan.id).await? {
                    listing.row([
                        plan.id.to_string(),
                        plan.name.clone(),
                        plan.service_type.clone(),
                        plan.terms.name().to_owned(),
                        price.id.to_string(),
                        price.cycle_months.to_string(),
                        price.base.to_string(),
                        price.usage.to_string(),
                    ]);
                }
            }
            listing.print("no plans: add one with `ezscale plan add`");
        }
        Command::Subscribe {
            service,
            price,
            anchor_day,
            from,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let started_at_ms = from.map_or(now_ms, Timestamp::as_millisecond);
            let mut transaction = database.begin_write().await?;
            let new = NewSubscription {
                anchor_day,
                ..NewSubscription::new(service, price, started_at_ms)
            };
            let subscription = subscription::subscribe(&mut transaction, new, ACTOR, now_ms).await?;
            transaction.commit().await?;
            println!("{}", subscription.id);
        }
    }
    Ok(())
}
