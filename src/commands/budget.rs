//! `ezscale budget`: what customers want to spend in a month at most.

use analytics::MeteredUsage;
use anyhow::{Context as _, bail};
use billing::budget::{self, NewBudget, Status, Thresholds};
use clap::Subcommand;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory;
use schemas::money::Money;
use schemas::period::AnchorDay;

use super::audit;
use crate::config::Config;
use crate::options::{Data, now_ms, open_current, plain_decimal};
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, money, number, shown, text, to_the_second};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the budgets that are set
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a customer's budget and what was spent of it
    Show {
        /// Whose (cus_N)
        customer: CustomerId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Set or change a customer's budget; what follows from it is done at once
    Set {
        /// Whose (cus_N)
        customer: CustomerId,
        /// In the customer's currency, for a month
        #[arg(value_parser = plain_decimal)]
        amount: Decimal,
        /// Percentages at which the customer is alerted, 1 to 200, at most 10 [default: 50,75,90]
        #[arg(long, value_delimiter = ',', value_name = "PERCENT")]
        alert: Vec<i64>,
        /// Suspend services when it is spent
        #[arg(long)]
        suspend: bool,
        /// Day of the month on which it resets [default: unchanged, or the customer's billing day]
        #[arg(long, value_name = "DAY")]
        reset_day: Option<i64>,
        #[command(flatten)]
        data: Data,
    },
    /// Remove a customer's budget; suspended services are resumed
    Clear {
        /// Whose (cus_N)
        customer: CustomerId,
        #[command(flatten)]
        data: Data,
    },
    /// Leave a service out: it does not count and is not suspended
    Exclude(OneService),
    /// Take a service in again
    Include(OneService),
    /// Unlock a customer's services until the cycle ends, without a payment
    Unlock {
        /// Whom (cus_N)
        customer: CustomerId,
        /// For the audit log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(clap::Args, Debug)]
struct OneService {
    /// Whose budget (cus_N)
    customer: CustomerId,
    /// Which service (svc_N)
    service: ServiceId,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { format, data } => list(format, &data).await?,
        Command::Show { customer, format, data } => {
            let (config, database) = data.open_database().await?;
            inventory::customer(database.pool(), customer).await?;
            let now_ms = now_ms(&database).await?;
            let usage = MeteredUsage::new(open_current(&config).await?, &config.metering());
            match budget::status(&database, &usage, customer, now_ms).await? {
                Some(status) => record(&status)?.print(format)?,
                None => bail!("{customer} has no budget: set one with `ezscale budget set`"),
            }
        }
        Command::Set {
            customer,
            amount,
            alert,
            suspend,
            reset_day,
            data,
        } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let owner = inventory::customer(act.connection(), customer).await?;
            let new = NewBudget {
                amount: Money::exact_from_major(amount, owner.currency)?,
                thresholds: match alert.is_empty() {
                    true => Thresholds::default(),
                    false => Thresholds::new(&alert).context("--alert")?,
                },
                suspends: suspend,
                reset_day: reset_day.map(AnchorDay::new).transpose().context("--reset-day")?,
            };
            let note = budget::set(act.connection(), customer, &new, now_ms).await?;
            act.commit(note).await?;
            follow(&config, &database, customer, now_ms).await?;
        }
        Command::Clear { customer, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (_, note) = budget::clear(act.connection(), customer, now_ms).await?;
            act.commit(note).await?;
        }
        Command::Exclude(one) => exclude(one, true).await?,
        Command::Include(one) => exclude(one, false).await?,
        Command::Unlock { customer, reason, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let Some((budget, note)) = budget::unlock(act.connection(), customer, &reason, now_ms).await? else {
                say!("{customer} is unlocked already");
                return Ok(());
            };
            act.commit(note).await?;
            if let Some(until_ms) = budget.unlocked_until_ms {
                say!("unlocked until {}", to_the_second(until_ms));
            }
        }
    }
    Ok(())
}

async fn exclude(one: OneService, is_excluded: bool) -> anyhow::Result<()> {
    let (config, database) = one.data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let mut act = audit::begin(&database, now_ms).await?;
    if let Some(note) = budget::exclude(act.connection(), one.customer, one.service, is_excluded, now_ms).await? {
        act.commit(note).await?;
    } else {
        // It holds the lock for writing, which what follows takes.
        drop(act);
    }
    follow(&config, &database, one.customer, now_ms).await
}

/// Does what follows from a change, and shows where the budget stands.
async fn follow(config: &Config, database: &Database, customer: CustomerId, now_ms: i64) -> anyhow::Result<()> {
    let usage = MeteredUsage::new(open_current(config).await?, &config.metering());
    if let Some(looked) = budget::check(database, &usage, customer, now_ms).await? {
        record(&looked.status)?.print(ShowFormat::Table)?;
        for subscription in looked.held {
            say!("suspended: {subscription}");
        }
        for subscription in looked.released {
            say!("resumed: {subscription}");
        }
    }
    Ok(())
}

async fn list(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let mut listing = Listing::new([
        text("customer"),
        text("name"),
        money("amount"),
        text("alert_percentages"),
        text("suspends"),
        number("reset_day"),
        text("unlocked_until"),
    ]);
    for customer in inventory::customers(database.pool()).await? {
        let Some(budget) = budget::budget(database.pool(), customer.id).await? else {
            continue;
        };
        listing.row([
            shown(customer.id),
            customer.name.into(),
            budget.amount.into(),
            Cell::json(&budget.thresholds.percentages())?,
            budget.suspends.into(),
            budget.reset_day.get().into(),
            budget.unlocked_until_ms.map(at).into(),
        ]);
    }
    listing.print(format, "no budgets: set one with `ezscale budget set`")
}

fn record(status: &Status) -> anyhow::Result<Record> {
    let budget = &status.budget;
    let is_locked = status.is_exceeded() && budget.suspends && !status.is_unlocked;
    let excluded: Vec<String> = status.excluded.iter().map(ToString::to_string).collect();
    Ok(Record::new()
        .field(text("customer"), shown(budget.customer))
        .field(money("budget"), budget.amount)
        .field(money("spent"), status.spent)
        .field(money("forecast"), status.forecast)
        .field(text("cycle_start"), at(status.cycle.start_ms))
        .field(text("cycle_end"), at(status.cycle.end_ms))
        .field(number("reset_day"), budget.reset_day.get())
        .field(text("alert_percentages"), Cell::json(&budget.thresholds.percentages())?)
        .field(text("suspends"), budget.suspends)
        .field(
            text("unlocked_until"),
            status.is_unlocked.then(|| at(status.cycle.end_ms)),
        )
        // Of credit to buy; all open invoices paid unlocks too.
        .field(money("to_unlock"), is_locked.then(|| status.unlock_amount()))
        .field(text("excluded_services"), Cell::json(&excluded)?))
}
