//! `ezscale invoice`: what is due, what was charged, and why.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, bail};
use billing::invoice::{self, Draft, HeldInvoice, Invoice, InvoiceFilter, InvoiceWithLines};
use billing::tax::{TaxAmount, Unsettled};
use billing::usage::MeteredUsage;
use billing::{BillingError, lifecycle};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, ServiceId};
use schemas::money::{Currency, Money};
use schemas::window::instant_text;

use super::audit::COMMAND_LINE;
use crate::config::Config;
use crate::jobs::apply_backdated;
use crate::options::{Data, billing_now_ms, guarded_usage, load_metering, now_ms, open_current};
use crate::output::{Listing, Progress};

/// Invoices that closing lists one by one at most.
const LISTED_MAX: usize = 100;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what a customer's invoices would say now; nothing is stored
    Preview {
        #[arg(long)]
        customer: CustomerId,
        #[command(flatten)]
        data: Data,
    },
    /// Close the periods that have ended; closing again changes nothing
    Close {
        /// One customer (cus_N) [default: all]
        #[arg(long)]
        customer: Option<CustomerId>,
        #[command(flatten)]
        data: Data,
    },
    /// Show an invoice with its lines
    Show {
        /// Its id (inv_N) or number (INV-2026-000001)
        invoice: String,
        #[command(flatten)]
        data: Data,
    },
    /// List invoices
    List {
        #[arg(long)]
        customer: Option<CustomerId>,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// List due usage that needs a confirmation, because too little of it was measured
    Unmeasured {
        #[command(flatten)]
        data: Data,
    },
    /// Say that what waits for a customer is to be finalised as it was measured; the next close does
    Confirm {
        /// Whose (cus_N)
        customer: CustomerId,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// Recompute the usage lines of invoices from stored flows alone and compare
    Check {
        /// Its id (inv_N) or number
        #[arg(required_unless_present = "all")]
        invoice: Option<String>,
        /// Every invoice
        #[arg(long, conflicts_with = "invoice")]
        all: bool,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Preview { customer, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let usage = measured(&config).await?;
            let drafts = invoice::preview(&database, &usage, customer, now_ms).await?;
            if drafts.is_empty() {
                println!("{customer} has no subscriptions: nothing is due");
            }
            for draft in &drafts {
                print_draft(draft);
            }
        }
        Command::Close { customer, data } => close(customer, &data).await?,
        Command::Show { invoice, data } => {
            let (_, database) = data.open_database().await?;
            let held = match invoice.parse::<InvoiceId>() {
                Ok(id) => invoice::held_invoice(database.pool(), id).await?,
                Err(_) => None,
            };
            match held {
                Some(held) => print_held(&held),
                None => print_invoice(&find(&database, &invoice).await?),
            }
        }
        Command::List { customer, format, data } => {
            let (_, database) = data.open_database().await?;
            let held = invoice::held(database.pool(), customer).await?;
            list(&all_invoices(&database, customer).await?, &held, format)?;
        }
        Command::Unmeasured { data } => list_unmeasured(&data).await?,
        Command::Confirm { customer, reason, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let mut transaction = database.begin_write().await?;
            let confirmed =
                invoice::confirm_unmeasured(&mut transaction, customer, &reason, COMMAND_LINE, now_ms).await?;
            transaction.commit().await?;
            println!("{confirmed} periods of {customer} are finalised by the next close");
        }
        Command::Check { invoice, all: _, data } => check(invoice.as_deref(), &data).await?,
    }
    Ok(())
}

async fn measured(config: &Config) -> anyhow::Result<MeteredUsage> {
    Ok(MeteredUsage::new(open_current(config).await?, &config.metering()))
}

async fn find(database: &Database, name: &str) -> anyhow::Result<InvoiceWithLines> {
    if let Ok(id) = name.parse::<InvoiceId>() {
        return Ok(invoice::get(database, id).await?);
    }
    let found = invoice::by_number(database, name).await?;
    found.with_context(|| format!("there is no invoice {name}: give an id like inv_1 or a number like INV-2026-000001"))
}

async fn all_invoices(database: &Database, customer: Option<CustomerId>) -> Result<Vec<Invoice>, BillingError> {
    let mut invoices: Vec<Invoice> = Vec::new();
    loop {
        let filter = InvoiceFilter {
            customer,
            before: invoices.last().map(|invoice| invoice.id),
            ..InvoiceFilter::default()
        };
        let page = invoice::list_all(database.pool(), filter).await?;
        if page.is_empty() {
            return Ok(invoices);
        }
        invoices.extend(page);
    }
}

async fn close(customer: Option<CustomerId>, data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let now_ms = billing_now_ms(&config, &database).await?;
    let analytics = open_current(&config).await?;
    apply_backdated(&database, &analytics, &load_metering(&config, &database).await?).await?;
    let usage = guarded_usage(&config, &database, analytics).await?;
    // Changes and ends that were set for a time before now, so that nothing is charged by terms that do not hold any more.
    for (subscription, error) in lifecycle::advance(&database, now_ms).await?.failed {
        eprintln!("{subscription}: {:#}", anyhow::Error::from(error));
    }
    let closing = match customer {
        Some(customer) => invoice::close(&database, &usage, customer, now_ms).await?,
        None => {
            let progress = Progress::counted("closing customers", 0);
            let tell = |done: usize, of: usize| progress.set_of(done as u64, of as u64);
            let closing = invoice::close_all_telling(&database, &usage, now_ms, tell).await?;
            progress.clear();
            closing
        }
    };
    print_closed(&database, &closing.invoices).await?;
    for open in &closing.refused {
        if let Some(unsettled) = &open.unsettled {
            eprintln!("{}: held, {}", open.customer, what_to_do(open.customer, unsettled));
            continue;
        }
        let advice = match open.reason.waits_for_a_person() {
            true => "close again when it is measured, or confirm it with `ezscale invoice confirm`",
            false => "close again later",
        };
        eprintln!("{}: not closed, {}: {advice}", open.customer, open.reason);
    }
    let failed = closing.failed.len();
    for (customer, error) in closing.failed {
        eprintln!("{customer}: {:#}", anyhow::Error::from(error));
    }
    if failed > 0 {
        bail!("{failed} customers could not be closed");
    }
    Ok(())
}

async fn list_unmeasured(data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let columns = [
        "customer",
        "name",
        "due",
        "from",
        "measured",
        "why",
        "since",
        "confirmed by",
    ];
    let mut listing = Listing::new(&columns).right(4);
    for waiting in invoice::unmeasured(database.pool()).await? {
        listing.row([
            waiting.customer.to_string(),
            waiting.customer_name,
            instant_text(waiting.due_ms),
            instant_text(waiting.period_start_ms),
            format!("{} %", waiting.coverage_percent),
            waiting.reason.to_string(),
            instant_text(waiting.held_at_ms),
            waiting.confirmed_by.unwrap_or_default(),
        ]);
    }
    listing.print("nothing that is due waits for a person");
    Ok(())
}

/// The invoices that were made, or how many and what they come to where there are more than anybody reads.
async fn print_closed(database: &Database, ids: &[InvoiceId]) -> anyhow::Result<()> {
    let mut listed: Vec<Invoice> = Vec::new();
    let mut sums: BTreeMap<Currency, (u64, Money)> = BTreeMap::new();
    let made: HashSet<InvoiceId> = ids.iter().copied().collect();
    let first = ids.iter().min();
    let mut before = None;
    while let Some(first) = first {
        let filter = InvoiceFilter {
            before,
            ..InvoiceFilter::default()
        };
        let page = invoice::list_all(database.pool(), filter).await?;
        before = page.last().map(|invoice| invoice.id);
        for invoice in page.into_iter().filter(|invoice| made.contains(&invoice.id)) {
            let zero = Money::new(0, invoice.currency);
            let (count, sum) = sums.entry(invoice.currency).or_insert((0, zero));
            *count += 1;
            *sum = sum.checked_add(invoice.total)?;
            if made.len() <= LISTED_MAX {
                listed.push(invoice);
            }
        }
        if before.is_none_or(|last| last <= *first) {
            break;
        }
    }
    if made.len() <= LISTED_MAX {
        listed.reverse();
        print_list(&listed, "no period has ended since the last close");
        return Ok(());
    }
    let mut listing = Listing::new(&["currency", "invoices", "total"]).right(1).right(2);
    for (currency, (count, sum)) in sums {
        listing.row([currency.to_string(), count.to_string(), sum.to_string()]);
    }
    listing.print("");
    eprintln!("`ezscale invoice list` lists them");
    Ok(())
}

async fn check(name: Option<&str>, data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let usage = measured(&config).await?;
    let invoices = match name {
        Some(name) => vec![find(&database, name).await?.invoice],
        None => all_invoices(&database, None).await?,
    };
    let progress = Progress::counted("recomputing invoices", invoices.len() as u64);
    let (mut equal, mut differ) = (0u64, Vec::new());
    for (done, invoice) in invoices.iter().enumerate() {
        for line in invoice::recompute(&database, &usage, invoice.id).await? {
            if line.equal {
                equal += 1;
                continue;
            }
            differ.push(format!(
                "{} line {}: invoiced {}, flows now say {} ({})",
                invoice.number, line.position, line.invoiced_amount, line.recomputed_amount, line.description
            ));
        }
        progress.set(done as u64 + 1);
    }
    progress.clear();
    println!(
        "{} invoices, {} usage lines recomputed from flows: {equal} equal, {} differ",
        invoices.len(),
        equal as usize + differ.len(),
        differ.len()
    );
    for line in &differ {
        println!("{line}");
    }
    if !differ.is_empty() {
        bail!(
            "{} lines differ: late flows are adjusted on the next invoice",
            differ.len()
        );
    }
    Ok(())
}

/// What is to be settled, and how.
fn what_to_do(customer: CustomerId, unsettled: &Unsettled) -> String {
    let missing = match unsettled {
        Unsettled::Rate(missing) => missing,
        Unsettled::VatNumber { .. } => {
            return format!(
                "{unsettled}: ask again with `ezscale customer vat-check {customer}`, or accept it with `ezscale customer vat-accept \
                 {customer} --reason …`, then close again"
            );
        }
    };
    let region = match missing.region.as_str() {
        "" => String::new(),
        region => format!(" --region '{region}'"),
    };
    format!(
        "{missing}: add it, be it 0, with `ezscale tax add --country {}{region} --rate PERCENT --from {}`, then close again",
        missing.country,
        instant_text(missing.at_ms)
    )
}

fn print_held(held: &HeldInvoice) {
    println!("{}  {}  {}", held.id, held.customer, held.customer_name);
    println!(
        "held since {}, due {}: no number yet",
        instant_text(held.held_at_ms),
        instant_text(held.due_ms)
    );
    println!("{}", what_to_do(held.customer, &held.reason));
}

fn date(at_ms: i64, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    match Timestamp::from_millisecond(at_ms) {
        Ok(at) => at.to_zoned(zone).date().to_string(),
        Err(_) => at_ms.to_string(),
    }
}

/// The last local day of a period that ends at `end_ms`, as people write periods.
fn last_day(end_ms: i64, zone: &str) -> String {
    date(end_ms - 1, zone)
}

fn print_draft(draft: &Draft) {
    let state = if draft.is_complete() { "complete" } else { "so far" };
    println!(
        "{} {}  {} – {}  {state}",
        draft.customer,
        draft.customer_name,
        date(draft.period_start_ms, &draft.time_zone),
        last_day(draft.period_end_ms, &draft.time_zone)
    );
    print_lines(draft.lines.iter().map(|line| Shown {
        service: line.service,
        description: &line.description,
        quantity: line.quantity,
        unit: &line.unit,
        unit_price: line.unit_price,
        amount: line.amount,
    }));
    print_totals(draft.subtotal, &draft.taxes, draft.total);
    if let Some(unsettled) = &draft.unsettled {
        println!("{}", what_to_do(draft.customer, unsettled));
    }
    println!();
}

fn print_invoice(with_lines: &InvoiceWithLines) {
    let invoice = &with_lines.invoice;
    println!(
        "{} ({})  {}  {}",
        invoice.number, invoice.id, invoice.customer, invoice.customer_name
    );
    println!(
        "period {} – {} ({}), issued {}, due {}",
        date(invoice.period_start_ms, &invoice.time_zone),
        last_day(invoice.period_end_ms, &invoice.time_zone),
        invoice.time_zone,
        date(invoice.finalised_at_ms, &invoice.time_zone),
        date(invoice.due_at_ms, &invoice.time_zone)
    );
    print_lines(with_lines.lines.iter().map(|line| Shown {
        service: line.service,
        description: &line.description,
        quantity: line.quantity,
        unit: &line.unit,
        unit_price: line.unit_price,
        amount: line.amount,
    }));
    print_totals(invoice.subtotal, &with_lines.taxes, invoice.total);
    if invoice.outstanding() != invoice.total {
        println!("settled {}, outstanding {}", invoice.settled, invoice.outstanding());
    }
}

fn print_totals(subtotal: Money, taxes: &[TaxAmount], total: Money) {
    print!("subtotal {subtotal}");
    for tax in billing::tax::merged(taxes) {
        print!(", {} {}", tax.rule.name, tax.tax);
    }
    println!(", total {total}");
}

/// What is printed of a line, drafted or final.
struct Shown<'a> {
    service: Option<ServiceId>,
    description: &'a str,
    quantity: Decimal,
    unit: &'a str,
    unit_price: Decimal,
    amount: Money,
}

fn print_lines<'a>(lines: impl Iterator<Item = Shown<'a>>) {
    let columns = ["#", "service", "line", "quantity", "unit", "rate", "amount"];
    let mut listing = Listing::new(&columns).right(0).right(3).right(5).right(6);
    for (index, line) in lines.enumerate() {
        listing.row([
            (index + 1).to_string(),
            line.service.map_or_else(String::new, |service| service.to_string()),
            line.description.to_owned(),
            line.quantity.normalize().to_string(),
            line.unit.to_owned(),
            line.unit_price.normalize().to_string(),
            line.amount.to_string(),
        ]);
    }
    listing.print("no lines");
}

/// Held invoices have an id and no amounts yet: their tax is not known.
fn list(invoices: &[Invoice], held: &[HeldInvoice], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            print_list(invoices, "no invoices: close a period with `ezscale invoice close`");
            for held in held {
                eprintln!(
                    "{} of {} is held, {}",
                    held.id,
                    held.customer,
                    what_to_do(held.customer, &held.reason)
                );
            }
        }
        Format::Csv => print!("{}", invoice::export_csv(invoices)?),
        Format::Json => {
            let invoiced = invoices.iter().map(|invoice| {
                let row = serde_json::json!({
                    "id": invoice.id,
                    "number": invoice.number,
                    "customer": invoice.customer,
                    "currency": invoice.currency,
                    "period_start": date(invoice.period_start_ms, &invoice.time_zone),
                    "period_end": date(invoice.period_end_ms, &invoice.time_zone),
                    "status": invoice.status,
                    "subtotal_minor": invoice.subtotal.minor,
                    "tax_minor": invoice.tax.minor,
                    "total_minor": invoice.total.minor,
                });
                (invoice.id, row)
            });
            let waiting = held.iter().map(|held| {
                let row = serde_json::json!({
                    "id": held.id,
                    "number": null,
                    "customer": held.customer,
                    "currency": null,
                    "period_start": null,
                    "period_end": null,
                    "status": "held",
                    "reason": held.reason.to_string(),
                    "subtotal_minor": null,
                    "tax_minor": null,
                    "total_minor": null,
                });
                (held.id, row)
            });
            let mut rows: Vec<_> = invoiced.chain(waiting).collect();
            rows.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
            let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
            println!("{}", serde_json::to_string(&rows)?);
        }
    }
    Ok(())
}

fn print_list(invoices: &[Invoice], empty: &str) {
    let mut listing = Listing::new(&["number", "id", "customer", "name", "period", "status", "total"]).right(6);
    for invoice in invoices {
        listing.row([
            invoice.number.clone(),
            invoice.id.to_string(),
            invoice.customer.to_string(),
            invoice.customer_name.clone(),
            format!(
                "{} – {}",
                date(invoice.period_start_ms, &invoice.time_zone),
                last_day(invoice.period_end_ms, &invoice.time_zone)
            ),
            invoice.status.name().to_owned(),
            invoice.total.to_string(),
        ]);
    }
    listing.print(empty);
}
