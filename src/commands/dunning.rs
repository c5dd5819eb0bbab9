//! `ezscale dunning`: invoices that are not paid, and how far their collection has come.

use billing::dunning;
use clap::Subcommand;
use schemas::ids::CustomerId;
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
    /// List open invoices, those that were due first first
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
    let (customer, overdue, exhausted, data) = match args.command {
        Command::List {
            customer,
            overdue,
            exhausted,
            data,
        } => (customer, overdue, exhausted, data),
        Command::Terms { data } => {
            let (_, database) = data.open_database().await?;
            for line in dunning::terms(database.pool()).await?.words() {
                println!("{line}");
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
    let columns = [
        "invoice", "number", "customer", "name", "open", "due", "done", "declined", "next",
    ];
    let mut listing = Listing::new(&columns).right(4).right(7);
    for one in dunning::list(database.pool(), filter).await? {
        let done = match (one.progress, one.progress.done_to_day()) {
            (dunning::Progress::NONE, _) => "nothing yet".to_owned(),
            (_, None) => "charged".to_owned(),
            (_, Some(day)) => format!("day {day}"),
        };
        listing.row([
            one.invoice.to_string(),
            one.number,
            one.customer.to_string(),
            one.customer_name,
            one.open.to_string(),
            instant_text(one.due_at_ms),
            done,
            one.declines.to_string(),
            one.next_at_ms.map_or("decide".to_owned(), instant_text),
        ]);
    }
    listing.print("no invoice is being collected");
    Ok(())
}
