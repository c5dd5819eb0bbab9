//! `ezscale coupon`: what is taken off base prices.

use anyhow::{Context as _, bail};
use billing::catalog::{self, Discount, NewCoupon};
use clap::Subcommand;
use jiff::Timestamp;
use rust_decimal::Decimal;
use schemas::ids::{CouponId, PlanId};
use schemas::money::{Currency, Money};
use schemas::percent::Percent;
use schemas::window::instant_text;

use crate::options::{Data, now_ms};
use crate::output::Listing;

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
    code: String,
    /// Percent off the base price
    #[arg(long, conflicts_with = "amount", required_unless_present = "amount")]
    percent: Option<Decimal>,
    /// Amount off the base price of each cycle as it is ordered, such as 5.00
    #[arg(long)]
    amount: Option<Decimal>,
    /// Of the amount
    #[arg(long, default_value = "USD")]
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
    /// Expiry (RFC 3339): from then on it cannot be redeemed
    #[arg(long)]
    expires: Option<Timestamp>,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add(add) => {
            let (_, database) = add.data.open_database().await?;
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
            let mut transaction = database.begin_write().await?;
            let made = catalog::create_coupon(&mut transaction, new, now_ms).await?;
            transaction.commit().await?;
            println!("{}", made.id);
        }
        Command::List { data } => {
            let (_, database) = data.open_database().await?;
            let columns = [
                "id", "code", "off", "months", "plan", "redeemed", "each", "expires", "archived",
            ];
            let mut listing = Listing::new(&columns).right(2).right(5);
            for coupon in catalog::coupons(database.pool()).await? {
                let redeemed = match coupon.max_redemptions {
                    Some(limit) => format!("{} of {limit}", coupon.redeemed),
                    None => coupon.redeemed.to_string(),
                };
                listing.row([
                    coupon.id.to_string(),
                    coupon.code,
                    match coupon.discount {
                        Discount::Percent(percent) => percent.to_string(),
                        Discount::Amount(amount) => amount.to_string(),
                    },
                    coupon
                        .months
                        .map_or_else(|| "all".to_owned(), |months| months.to_string()),
                    coupon.plan.map_or_else(|| "any".to_owned(), |plan| plan.to_string()),
                    redeemed,
                    coupon
                        .per_customer
                        .map_or_else(|| "any".to_owned(), |times| times.to_string()),
                    coupon.expires_at_ms.map_or_else(String::new, instant_text),
                    coupon.archived_at_ms.map_or_else(String::new, instant_text),
                ]);
            }
            listing.print("no coupons: add one with `ezscale coupon add`");
        }
        Command::Archive { coupon, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            catalog::archive_coupon(&mut transaction, coupon, now_ms).await?;
            transaction.commit().await?;
        }
    }
    Ok(())
}
