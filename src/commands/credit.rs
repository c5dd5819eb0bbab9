//! `ezscale credit`: what customers have paid or were given ahead, and its automatic top-up.

use anyhow::{Context as _, bail};
use billing::settlement;
use billing::top_up::{self, TopUp};
use clap::Subcommand;
use rust_decimal::Decimal;
use schemas::ids::CustomerId;
use schemas::inventory;
use schemas::money::Money;
use schemas::window::instant_text;

use super::audit::COMMAND_LINE;
use crate::options::{Data, now_ms};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show a customer's credit and how it is topped up
    Show {
        /// Whose (cus_N)
        customer: CustomerId,
        #[command(flatten)]
        data: Data,
    },
    /// Give a customer credit; it pays for open and coming invoices
    Grant {
        /// To whom (cus_N)
        customer: CustomerId,
        /// In the customer's currency, such as 20 or 12.50
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
        #[arg(long, requires = "amount")]
        threshold: Option<Decimal>,
        /// Charge so much, such as 50, 100 or 200
        #[arg(long, requires = "threshold")]
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
        Command::Show { customer, data } => {
            let (_, database) = data.open_database().await?;
            let mut connection = database.pool().acquire().await?;
            let owner = inventory::customer(&mut *connection, customer).await?;
            let balance = settlement::credit_balance(&mut *connection, customer, owner.currency).await?;
            let available = settlement::available_credit(&mut connection, customer, owner.currency).await?;
            println!("credit     {balance}");
            if available != balance {
                println!("to spend   {available} (the rest is promised to refunds)");
            }
            let paid_in = settlement::paid_in(&mut connection, customer, owner.currency).await?;
            if paid_in != balance {
                println!("paid in    {paid_in} (only this can be refunded: credit that was granted is not paid out)");
            }
            if let Some(due_ms) = settlement::credit_claim_due(&mut *connection, customer, owner.currency).await? {
                println!("owed by    {}", instant_text(due_ms));
            }
            print_top_up(top_up::settings(&mut *connection, customer).await?.as_ref());
        }
        Command::Grant {
            customer,
            amount,
            cause,
            reason,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut transaction = database.begin_write().await?;
            let owner = inventory::customer(&mut *transaction, customer).await?;
            let amount = Money::exact_from_major(amount, owner.currency)?;
            let granted = top_up::grant(
                &mut transaction,
                customer,
                amount,
                &cause,
                &reason,
                COMMAND_LINE,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
            println!("{granted}");
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
            let mut transaction = database.begin_write().await?;
            let owner = inventory::customer(&mut *transaction, customer).await?;
            match (threshold, amount) {
                (Some(threshold), Some(amount)) => {
                    let threshold = Money::exact_from_major(threshold, owner.currency).context("--threshold")?;
                    let amount = Money::exact_from_major(amount, owner.currency).context("--amount")?;
                    top_up::set(&mut transaction, customer, threshold, amount, COMMAND_LINE, now_ms).await?;
                }
                (None, None) if off => top_up::disable(&mut transaction, customer, COMMAND_LINE, now_ms).await?,
                (None, None) => {}
                _ => bail!("--threshold and --amount belong together"),
            }
            let settings = top_up::settings(&mut *transaction, customer).await?;
            transaction.commit().await?;
            print_top_up(settings.as_ref());
        }
    }
    Ok(())
}

fn print_top_up(top_up: Option<&TopUp>) {
    let Some(top_up) = top_up else {
        println!("top-up     none");
        return;
    };
    let state = match (top_up.is_enabled, top_up.declines) {
        (true, 0) => String::new(),
        (true, declines) => format!(
            ", declined {declines} times, not charged before {}",
            instant_text(top_up.not_before_ms)
        ),
        (false, declines) if declines >= top_up::MAX_DECLINES => format!(", off after {declines} declines"),
        (false, _) => ", off".to_owned(),
    };
    println!("top-up     {} below {}{state}", top_up.amount, top_up.threshold);
}
