//! `ezscale ledger`: the books, and whether they are right.

use anyhow::{Context as _, bail};
use billing::aging::aging;
use billing::ledger::{self, PostedTransaction, TransactionFilter};
use clap::Subcommand;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, TransactionId};

use crate::options::{Data, now_ms};
use crate::output::{Cell, Format, Listing, Record, ShowFormat, at, count, money, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Every account with its balance; debits equal credits in each currency
    Balance {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// What customers owe, by how long it has been due, in each currency
    Aging {
        /// As of the end of this day in UTC, such as 2026-11-30, by what is known now: a payment counts from its value date on
        /// [default: now]
        #[arg(long, value_name = "DAY")]
        at: Option<Date>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// List transactions with their postings, a row for each, latest first
    List {
        /// In the books of this customer (cus_N)
        #[arg(long)]
        customer: Option<CustomerId>,
        /// That post to this account, such as bank:USD
        #[arg(long)]
        account: Option<String>,
        /// Older than this transaction (txn_N)
        #[arg(long)]
        before: Option<TransactionId>,
        /// Transactions at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=ledger::MAX_PAGE))]
        limit: i64,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a transaction with its postings
    Show {
        /// The transaction (txn_N)
        transaction: TransactionId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Look at every transaction, invoice, payment and refund: does each agree with its postings (B1, B2), and is nothing given
    /// back twice (B6)? Fails when one thing does not hold
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
        Command::Balance { format, data } => balance(format, &data).await,
        Command::Aging { at, format, data } => list_aging(at, format, &data).await,
        Command::List {
            customer,
            account,
            before,
            limit,
            format,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let filter = TransactionFilter {
                account: account.as_deref(),
                customer,
                before,
                ..TransactionFilter::default()
            };
            list(&ledger::transactions(database.pool(), filter, limit).await?, format)
        }
        Command::Show {
            transaction,
            format,
            data,
        } => show(transaction, format, &data).await,
        Command::Check { data } => {
            let (_, database) = data.open_database().await?;
            let report = ledger::check(&database).await?;
            say!(
                "{}, {}, {} checked",
                count(report.transactions, "transaction"),
                count(report.postings, "posting"),
                count(report.invoices, "invoice")
            );
            for violation in &report.violations {
                say!("{}: {}", violation.invariant, violation.what);
            }
            if !report.is_clean() {
                bail!("{}", count(report.violations.len(), "violation"));
            }
            say!("no violations");
            Ok(())
        }
    }
}

/// Every account; in tables, whether debits equal credits is said beneath.
async fn balance(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let trials = ledger::trial_balance(database.pool()).await?;
    let mut listing = Listing::new([text("account"), text("kind"), money("balance")]);
    for balance in trials.iter().flat_map(|trial| &trial.balances) {
        listing.row([
            balance.account.name.as_str().into(),
            balance.account.kind.name().into(),
            balance.balance.into(),
        ]);
    }
    listing.print(format, "nothing was posted")?;
    for trial in trials.iter().filter(|_| format == Format::Table) {
        let verdict = if trial.is_balanced() {
            "balanced"
        } else {
            "NOT BALANCED"
        };
        say!(
            "{}: debits {}, credits {}: {verdict}",
            trial.currency,
            trial.debits,
            trial.credits
        );
    }
    Ok(())
}

async fn list_aging(day: Option<Date>, format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let at_ms = match day {
        Some(day) => end_of_day_ms(day)?,
        None => now_ms(&database).await?,
    };
    let mut listing = Listing::new([
        text("customer"),
        text("name"),
        number("invoices"),
        money("not_due"),
        money("days_1_30").titled("1-30 days"),
        money("days_31_60").titled("31-60 days"),
        money("days_61_90").titled("61-90 days"),
        money("over_90_days"),
        money("total"),
    ]);
    for row in aging(database.pool(), at_ms)
        .await?
        .into_iter()
        .flat_map(|sums| sums.customers)
    {
        let [not_due, first, second, third, last] = row.open.map(Cell::from);
        listing.row([
            shown(row.customer),
            row.customer_name.into(),
            row.invoices.into(),
            not_due,
            first,
            second,
            third,
            last,
            row.total.into(),
        ]);
    }
    listing.print(format, "nothing is open")
}

fn list(transactions: &[PostedTransaction], format: Format) -> anyhow::Result<()> {
    let mut listing = Listing::new([
        text("id"),
        text("posted_at"),
        text("value_at").only_data(),
        text("customer"),
        text("invoice"),
        text("payment"),
        text("refund").only_data(),
        text("description"),
        text("account"),
        money("amount"),
    ]);
    for transaction in transactions {
        for posted in &transaction.postings {
            listing.row([
                shown(transaction.id),
                at(transaction.posted_at_ms),
                transaction.value_at_ms.map(at).into(),
                transaction.customer.map(shown).into(),
                transaction.invoice.map(shown).into(),
                transaction.payment.map(shown).into(),
                transaction.refund.map(shown).into(),
                transaction.description.as_str().into(),
                posted.account.as_str().into(),
                posted.amount.into(),
            ]);
        }
    }
    listing.print(format, "nothing was posted")
}

async fn show(id: TransactionId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let filter = TransactionFilter {
        before: Some(TransactionId(id.0.saturating_add(1))),
        ..TransactionFilter::default()
    };
    let found = ledger::transactions(database.pool(), filter, 1).await?.pop();
    let found = found
        .filter(|found| found.id == id)
        .with_context(|| format!("no transaction {id}: `ezscale ledger list` lists them"))?;
    let mut postings = Listing::new([text("account"), money("amount")]);
    for posted in &found.postings {
        postings.row([posted.account.as_str().into(), posted.amount.into()]);
    }
    Record::new()
        .field(text("id"), shown(found.id))
        .field(text("posted_at"), at(found.posted_at_ms))
        .field(text("value_at"), found.value_at_ms.map(at))
        .field(text("description"), found.description)
        .field(text("customer"), found.customer.map(shown))
        .field(text("invoice"), found.invoice.map(shown))
        .field(text("payment"), found.payment.map(shown))
        .field(text("refund"), found.refund.map(shown))
        .field(text("idempotency_key"), found.idempotency_key)
        .list("postings", postings)
        .print(format)
}
