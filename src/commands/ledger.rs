//! `ezscale ledger`: the books, and whether they are right.

use anyhow::bail;
use billing::ledger;
use clap::Subcommand;

use crate::options::Data;
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
    /// Look at every transaction, invoice, payment and refund: does each agree with its postings (B1, B2)? Fails when one
    /// does not
    Check {
        #[command(flatten)]
        data: Data,
    },
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
