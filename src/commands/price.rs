//! `ezscale price`: what plans cost, in every version.

use billing::catalog::{self, Plan, Price, Terms};
use billing::price::UsagePrice;
use clap::Subcommand;
use schemas::ids::{PlanId, PriceId};

use crate::options::Data;
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, money, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List prices with their plans; `ezscale plan price` adds one
    List {
        /// Of this plan (pln_N) [default: all]
        #[arg(long)]
        plan: Option<PlanId>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a price
    Show {
        /// The price (prc_N)
        price: PriceId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { plan, format, data } => list(plan, format, &data).await,
        Command::Show { price, format, data } => {
            let (_, database) = data.open_database().await?;
            let price = catalog::price(database.pool(), price).await?;
            let plan = catalog::plan(database.pool(), price.plan).await?;
            Record::new()
                .field(text("id"), shown(price.id))
                .field(text("plan"), shown(plan.id))
                .field(text("plan_name"), plan.label())
                .field(number("cycle_months"), price.cycle_months)
                .field(money("base"), price.base)
                .field(
                    text("usage_rate"),
                    usage_rate(&plan, &price, format == ShowFormat::Table),
                )
                .field(text("valid_from"), at(price.valid_from_ms))
                .print(format)
        }
    }
}

/// A row for each price of one plan or of all.
async fn list(only: Option<PlanId>, format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let plans = match only {
        Some(plan) => vec![catalog::plan(database.pool(), plan).await?],
        None => catalog::plans(database.pool()).await?,
    };
    let mut listing = Listing::new([
        text("plan"),
        text("name"),
        text("type"),
        text("model"),
        text("archived_at"),
        text("price"),
        number("cycle_months"),
        money("base"),
        text("usage_rate"),
        text("valid_from"),
    ]);
    for plan in plans {
        for price in &catalog::prices_of(database.pool(), plan.id).await? {
            let [id, months, base, usage, from] = cells(&plan, price, format == Format::Table);
            listing.row([
                shown(plan.id),
                plan.label().into(),
                plan.service_type.as_str().into(),
                plan.terms.name().into(),
                plan.archived_at_ms.map(at).into(),
                id,
                months,
                base,
                usage,
                from,
            ]);
        }
    }
    listing.print(
        format,
        "no prices: add one with `ezscale plan price`, or with its plan by `ezscale plan add`",
    )
}

/// What usage costs; tables say in which unit.
fn usage_rate(plan: &Plan, price: &Price, is_table: bool) -> String {
    let unit = match &plan.terms {
        Terms::Transfer { unit, .. } if is_table => unit.name(),
        Terms::Percentile { .. } if is_table => "Mbit/s",
        _ => return price.usage.to_string(),
    };
    match price.usage {
        UsagePrice::PerUnit { rate } => format!("{} per {unit}", rate.normalize()),
        _ => format!("{}, in {unit}", price.usage),
    }
}

fn cells(plan: &Plan, price: &Price, is_table: bool) -> [Cell; 5] {
    [
        shown(price.id),
        price.cycle_months.into(),
        price.base.into(),
        usage_rate(plan, price, is_table).into(),
        at(price.valid_from_ms),
    ]
}

/// The prices of one plan.
pub(super) fn listing(plan: &Plan, prices: &[Price], is_table: bool) -> Listing<5> {
    let mut listing = Listing::new([
        text("id"),
        number("cycle_months"),
        money("base"),
        text("usage_rate"),
        text("valid_from"),
    ]);
    for price in prices {
        listing.row(cells(plan, price, is_table));
    }
    listing
}
