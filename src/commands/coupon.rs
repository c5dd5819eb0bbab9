//! `ezscale coupon`: what is taken off base prices.

use anyhow::{Context as _, bail};
use billing::catalog::{self, Coupon, Discount, NewCoupon};
use billing::catalog_act;
use clap::Subcommand;
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemas::ids::{CouponId, PlanId};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;

use super::audit;
use crate::options::{Data, now_ms, plain_decimal};
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, money, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a coupon and print its id
    Add(Add),
    /// List coupons
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a coupon
    Show {
        /// The coupon (cpn_N)
        coupon: CouponId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// End a coupon; subscriptions that redeemed it keep it
    Archive {
        /// The coupon (cpn_N)
        coupon: CouponId,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct Add {
    /// What customers type: letters, digits, hyphens and underscores
    code: String,
    /// Percent off the base price
    #[arg(long, conflicts_with = "amount", required_unless_present = "amount", value_parser = plain_decimal)]
    percent: Option<Decimal>,
    /// Amount off the base price of each cycle as it is ordered, such as 5.00
    #[arg(long, value_parser = plain_decimal)]
    amount: Option<Decimal>,
    /// Of the amount
    #[arg(long, default_value = "USD", value_parser = crate::options::currency)]
    currency: Currency,
    /// Months that it lasts, whatever the cycle, from the first charged day on [default: no end]
    #[arg(long, alias = "cycles")]
    months: Option<i64>,
    /// The one plan that it is for [default: any]
    #[arg(long)]
    plan: Option<PlanId>,
    /// How often it can be redeemed [default: any number of times]
    #[arg(long)]
    max_redemptions: Option<i64>,
    /// How often one customer can redeem it; 0 for any number of times
    #[arg(long, default_value_t = 1)]
    per_customer: i64,
    /// Expiry (RFC 3339, or a day): from then on it cannot be redeemed
    #[arg(long, value_parser = crate::options::instant)]
    expires: Option<Timestamp>,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add(add) => {
            let (_, database) = add.data.open_or_create().await?;
            let now_ms = now_ms(&database).await?;
            let discount = match (add.percent, add.amount) {
                (Some(percent), None) => Discount::Percent(Percent::new(percent).context("--percent")?),
                (None, Some(amount)) => {
                    Discount::Amount(Money::exact_from_major(amount, add.currency).context("--amount")?)
                }
                _ => bail!("give --percent or --amount"),
            };
            let new = NewCoupon {
                code: &add.code,
                discount,
                months: add.months,
                plan: add.plan,
                max_redemptions: add.max_redemptions,
                per_customer: Some(add.per_customer).filter(|&times| times != 0),
                expires_at_ms: add.expires.map(Timestamp::as_millisecond),
            };
            let mut act = audit::begin(&database, now_ms).await?;
            let (made, note) = catalog_act::add_coupon(act.connection(), new, now_ms).await?;
            act.commit(note).await?;
            say!("{}", made.id);
        }
        Command::List { format, data } => list(format, &data).await?,
        Command::Show { coupon, format, data } => show(coupon, format, &data).await?,
        Command::Archive { coupon, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let note = catalog_act::archive_coupon(act.connection(), coupon, now_ms).await?;
            act.commit(note).await?;
        }
    }
    Ok(())
}

async fn list(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let mut listing = Listing::new([
        text("id"),
        text("code"),
        number("off_percent"),
        money("off_amount"),
        number("months").or("all"),
        text("plan").or("any"),
        number("redeemed"),
        number("max_redemptions").or("any"),
        number("per_customer").or("any"),
        text("expires_at"),
        text("archived_at"),
    ]);
    for coupon in catalog::coupons(database.pool()).await? {
        let (percent, amount) = off(&coupon);
        listing.row([
            shown(coupon.id),
            coupon.code.into(),
            percent,
            amount,
            coupon.months.into(),
            coupon.plan.map(shown).into(),
            coupon.redeemed.into(),
            coupon.max_redemptions.into(),
            coupon.per_customer.into(),
            coupon.expires_at_ms.map(at).into(),
            coupon.archived_at_ms.map(at).into(),
        ]);
    }
    listing.print(format, "no coupons: add one with `ezscale coupon add`")
}

async fn show(coupon: CouponId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let coupon = catalog::coupon(database.pool(), coupon).await?;
    let (percent, amount) = off(&coupon);
    Record::new()
        .field(text("id"), shown(coupon.id))
        .field(text("code"), coupon.code)
        .field(number("off_percent"), percent)
        .field(money("off_amount"), amount)
        .field(number("months").or("all"), coupon.months)
        .field(text("plan").or("any"), coupon.plan.map(shown))
        .field(number("redeemed"), coupon.redeemed)
        .field(number("max_redemptions").or("any number"), coupon.max_redemptions)
        .field(number("per_customer").or("any number"), coupon.per_customer)
        .field(text("created_at"), at(coupon.created_at_ms))
        .field(text("expires_at").or("never"), coupon.expires_at_ms.map(at))
        .field(text("archived_at"), coupon.archived_at_ms.map(at))
        .print(format)
}

/// What it takes off: a percentage or an amount.
fn off(coupon: &Coupon) -> (Cell, Cell) {
    match coupon.discount {
        Discount::Percent(percent) => (percent.value().into(), Cell::Absent),
        Discount::Amount(amount) => (Cell::Absent, amount.into()),
    }
}
