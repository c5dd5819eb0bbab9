//! `ezscale ledger`: the books, and whether they are right.

use anyhow::{Context as _, bail};
use billing::aging::{BUCKETS, aging};
use billing::ledger;
use clap::Subcommand;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::options::{Data, now_ms};
use crate::output::Listing;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Every account with its balance; debits equal credits in each currency
    Balance {
        #[command(flatten)]
        data: Data,
    },
    /// What customers owe, by how long it has been due, in each currency
    Aging {
        /// As of the end of this day in UTC, such as 2026-11-30, by what is known now: a payment counts from its value date on
        /// [default: now]
        #[arg(long, value_name = "DAY")]
        at: Option<Date>,
        #[command(flatten)]
        data: Data,
    },
    /// Look at every transaction, invoice, payment and refund: does each agree with its postings (B1, B2)? Fails when one
    /// does not
    Check {
        #[command(flatten)]
        data: Data,
    },
}

/// The last millisecond of a day in UTC.
fn end_of_day_ms(day: Date) -> anyhow::Result<i64> {
    let next = day.tomorrow().context("--at")?;
    Ok(next
        .to_zoned(TimeZone::UTC)
        .context("--at")?
        .timestamp()
        .as_millisecond()
        - 1)
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Balance { data } => {
            let (_, database) = data.open_database().await?;
            for trial in ledger::trial_balance(database.pool()).await? {
                let mut listing = Listing::new(&["account", "kind", "balance"]);
                for balance in &trial.balances {
                    listing.row([
                        balance.account.name.clone(),
                        balance.account.kind.name().to_owned(),
                        balance.balance.to_string(),
                    ]);
                }
                listing.print("");
                let verdict = if trial.is_balanced() {
                    "balanced"
                } else {
                    "NOT BALANCED"
                };
                println!(
                    "{}: debits {}, credits {}: {verdict}\n",
                    trial.currency, trial.debits, trial.credits
                );
            }
            Ok(())
        }
        Command::Aging { at, data } => {
            let (_, database) = data.open_database().await?;
            let at_ms = match at {
                Some(day) => end_of_day_ms(day)?,
                None => now_ms(&database).await?,
            };
            let mut columns = vec!["customer", "name", "invoices"];
            columns.extend(BUCKETS);
            columns.push("total");
            let mut listing = Listing::new(&columns);
            for column in 2..columns.len() {
                listing = listing.right(column);
            }
            for sums in aging(database.pool(), at_ms).await? {
                for row in sums.customers {
                    let [not_due, first, second, third, last] = row.open.map(|amount| amount.to_string());
                    listing.row([
                        row.customer.to_string(),
                        row.customer_name,
                        row.invoices.to_string(),
                        not_due,
                        first,
                        second,
                        third,
                        last,
                        row.total.to_string(),
                    ]);
                }
            }
            listing.print("nothing is open");
            Ok(())
        }
        Command::Check { data } => {
            let (_, database) = data.open_database().await?;
            let report = ledger::check(&database).await?;
            println!(
                "{} transactions, {} postings, {} invoices looked at",
                report.transactions, report.postings, report.invoices
            );
            for violation in &report.violations {
                println!("{}: {}", violation.invariant, violation.what);
            }
            if !report.is_clean() {
                bail!("{} violations", report.violations.len());
            }
            println!("no violations");
            Ok(())
        }
    }
}
