//! `ezscale dunning`: invoices that are not paid, and how far their collection has come.

use anyhow::Context as _;
use billing::{collection_terms, dunning};
use clap::Subcommand;
use schemas::ids::{CustomerId, InvoiceId};

use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, Record, ShowFormat, at, money, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List open invoices, earliest due date first
    List {
        /// Of this customer (cus_N)
        #[arg(long)]
        customer: Option<CustomerId>,
        /// Only those past their due date
        #[arg(long)]
        overdue: bool,
        /// Only those with no automatic step left: write off, terminate or wait
        #[arg(long)]
        exhausted: bool,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show how far the collection of an invoice has come, and what follows
    Show {
        /// The invoice (inv_N)
        invoice: InvoiceId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// Say the terms of collection in force: what customers are given to pay, and what happens when they do not
    Terms {
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (customer, overdue, exhausted, format, data) = match args.command {
        Command::List {
            customer,
            overdue,
            exhausted,
            format,
            data,
        } => (customer, overdue, exhausted, format, data),
        Command::Show { invoice, format, data } => return show(invoice, format, &data).await,
        Command::Terms { data } => {
            let (_, database) = data.open_database().await?;
            for line in collection_terms::terms(database.pool()).await?.words() {
                say!("{line}");
            }
            return Ok(());
        }
    };
    let (_, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let filter = dunning::CollectionFilter {
        customer,
        exhausted,
        overdue_at_ms: overdue.then_some(now_ms),
    };
    let mut listing = Listing::new([
        text("invoice"),
        text("number"),
        text("customer"),
        text("name"),
        money("open"),
        text("due_at"),
        text("done"),
        number("declines"),
        text("next_at").or("no automatic step"),
    ]);
    for one in dunning::list(database.pool(), filter).await? {
        listing.row([
            shown(one.invoice),
            one.number.into(),
            shown(one.customer),
            one.customer_name.into(),
            one.open.into(),
            at(one.due_at_ms),
            done(one.progress).into(),
            one.declines.into(),
            one.next_at_ms.map(at).into(),
        ]);
    }
    listing.print(format, "no invoice is being collected")
}

fn done(progress: dunning::Progress) -> String {
    match (progress, progress.done_to_day()) {
        (dunning::Progress::NONE, _) => "nothing yet".to_owned(),
        (_, None) => "charged".to_owned(),
        (_, Some(day)) => format!("day {day}"),
    }
}

async fn show(invoice: InvoiceId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let all = dunning::list(database.pool(), dunning::CollectionFilter::default()).await?;
    let found = all.into_iter().find(|one| one.invoice == invoice);
    let found =
        found.with_context(|| format!("{invoice} is not being collected: `ezscale dunning list` lists what is"))?;
    Record::new()
        .field(text("invoice"), shown(found.invoice))
        .field(text("number"), found.number)
        .field(text("customer"), shown(found.customer))
        .field(text("name"), found.customer_name)
        .field(money("open"), found.open)
        .field(text("due_at"), at(found.due_at_ms))
        .field(text("done"), done(found.progress))
        .field(number("declines"), found.declines)
        .field(text("next_at").or("no automatic step"), found.next_at_ms.map(at))
        .print(format)
}
