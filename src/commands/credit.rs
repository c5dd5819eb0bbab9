//! `ezscale credit`: what customers have paid or were given ahead, and its automatic top-up.

use anyhow::{Context as _, bail};
use billing::approval::wanted;
use billing::settlement;
use billing::top_up::{self, TopUp};
use clap::Subcommand;
use rust_decimal::Decimal;
use schemas::ids::CustomerId;
use schemas::inventory;
use schemas::money::Money;

use super::audit;
use crate::options::{Data, now_ms, plain_decimal};
use crate::output::{Format, Listing, Record, ShowFormat, at, count, money, number, shown, text, to_the_second};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the customers that have credit, owe some, or have an automatic top-up
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a customer's credit and how it is topped up
    Show {
        /// Whose (cus_N)
        customer: CustomerId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Give a customer credit; it pays for open and coming invoices
    Grant {
        /// To whom (cus_N)
        customer: CustomerId,
        /// In the customer's currency, such as 20 or 12.50
        #[arg(value_parser = plain_decimal)]
        amount: Decimal,
        /// What it is given once for, such as ticket:4711: the same again gives nothing
        #[arg(long = "for", value_name = "CAUSE")]
        cause: String,
        /// As the customer reads it
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// Switch a customer's automatic top-up on or off, or show it
    Topup {
        /// Whose (cus_N)
        customer: CustomerId,
        /// Top up when there is less than this, such as 10, 25 or 50
        #[arg(long, requires = "amount", value_parser = plain_decimal)]
        threshold: Option<Decimal>,
        /// Charge so much, such as 50, 100 or 200
        #[arg(long, requires = "threshold", value_parser = plain_decimal)]
        amount: Option<Decimal>,
        /// Switch automatic charging off
        #[arg(long, conflicts_with_all = ["threshold", "amount"])]
        off: bool,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { format, data } => list(format, &data).await?,
        Command::Show { customer, format, data } => show(customer, format, &data).await?,
        Command::Grant {
            customer,
            amount,
            cause,
            reason,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let owner = inventory::customer(act.connection(), customer).await?;
            let amount = Money::exact_from_major(amount, owner.currency)?;
            let wanted = wanted::credit_grant(act.connection(), customer, amount, &cause, &reason, now_ms).await?;
            let Some(mut act) = audit::gate(act, &wanted).await? else {
                return Ok(());
            };
            let (granted, note) = top_up::grant(act.connection(), customer, amount, &cause, &reason, now_ms).await?;
            // Without one it was granted before, and this is the transaction of then.
            if let Some(note) = note {
                act.commit(note).await?;
            }
            say!("{granted}");
        }
        Command::Topup {
            customer,
            threshold,
            amount,
            off,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let owner = inventory::customer(act.connection(), customer).await?;
            let note = match (threshold, amount) {
                (Some(threshold), Some(amount)) => {
                    let threshold = Money::exact_from_major(threshold, owner.currency).context("--threshold")?;
                    let amount = Money::exact_from_major(amount, owner.currency).context("--amount")?;
                    Some(top_up::set(act.connection(), customer, threshold, amount, now_ms).await?)
                }
                (None, None) if off => Some(top_up::disable(act.connection(), customer, now_ms).await?),
                (None, None) => None,
                _ => bail!("--threshold and --amount belong together"),
            };
            let settings = top_up::settings(act.connection(), customer).await?;
            if let Some(note) = note {
                act.commit(note).await?;
            }
            print_top_up(settings.as_ref());
        }
    }
    Ok(())
}

async fn list(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let mut connection = database.pool().acquire().await?;
    let mut listing = Listing::new([
        text("customer"),
        text("name"),
        money("credit"),
        money("available"),
        money("top_up_below"),
        money("top_up_amount"),
        text("top_up_enabled"),
    ]);
    for customer in inventory::customers(&mut *connection).await? {
        let credit = settlement::credit_balance(&mut *connection, customer.id, customer.currency).await?;
        let available = settlement::available_credit(&mut connection, customer.id, customer.currency).await?;
        let top_up = top_up::settings(&mut *connection, customer.id).await?;
        if credit.minor == 0 && top_up.is_none() {
            continue;
        }
        listing.row([
            shown(customer.id),
            customer.name.into(),
            credit.into(),
            available.into(),
            top_up.map(|top_up| top_up.threshold).into(),
            top_up.map(|top_up| top_up.amount).into(),
            top_up.map(|top_up| top_up.is_enabled).into(),
        ]);
    }
    listing.print(format, "no customer has credit or an automatic top-up")
}

async fn show(customer: CustomerId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let mut connection = database.pool().acquire().await?;
    let owner = inventory::customer(&mut *connection, customer).await?;
    let credit = settlement::credit_balance(&mut *connection, customer, owner.currency).await?;
    let available = settlement::available_credit(&mut connection, customer, owner.currency).await?;
    let paid_in = settlement::paid_in(&mut connection, customer, owner.currency).await?;
    let due_ms = settlement::credit_claim_due(&mut *connection, customer, owner.currency).await?;
    let top_up = top_up::settings(&mut *connection, customer).await?;
    Record::new()
        .field(text("customer"), shown(customer))
        .field(text("name"), owner.name)
        .field(money("credit"), credit)
        // The rest is promised to refunds.
        .field(money("available"), available)
        // Only this can be refunded: credit that was granted is not paid out.
        .field(money("refundable"), paid_in)
        .field(text("owed_by"), due_ms.map(at))
        .field(money("top_up_below").or("none"), top_up.map(|top_up| top_up.threshold))
        .field(money("top_up_amount"), top_up.map(|top_up| top_up.amount))
        .field(text("top_up_enabled"), top_up.map(|top_up| top_up.is_enabled))
        .field(number("top_up_declines"), top_up.map(|top_up| top_up.declines))
        .field(
            text("top_up_not_before"),
            top_up
                .map(|top_up| top_up.not_before_ms)
                .filter(|&at_ms| at_ms > 0)
                .map(at),
        )
        .print(format)
}

fn print_top_up(top_up: Option<&TopUp>) {
    let Some(top_up) = top_up else {
        say!("top-up     none");
        return;
    };
    let state = match (top_up.is_enabled, top_up.declines) {
        (true, 0) => String::new(),
        (true, declines) => format!(
            ", {}, not charged before {}",
            count(declines, "decline"),
            to_the_second(top_up.not_before_ms)
        ),
        (false, declines) if declines >= top_up::MAX_DECLINES => format!(", off after {}", count(declines, "decline")),
        (false, _) => ", off".to_owned(),
    };
    say!("top-up     {} below {}{state}", top_up.amount, top_up.threshold);
}
