//! `ezscale invoice`: what is due, what was charged, and why.

use std::collections::{BTreeMap, HashSet};

use activity::act::Note;
use analytics::MeteredUsage;
use anyhow::{Context as _, bail};
use billing::approval::credit_note_risk;
use billing::invoice::{self, Draft, HeldInvoice, Invoice, InvoiceFilter, InvoiceWithLines};
use billing::tax::{HoldReason, TaxAmount};
use billing::{BillingError, lifecycle};
use clap::Subcommand;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, ServiceId};
use schemas::money::{Currency, Money};
use schemas::window::instant_text;

use super::audit;
use crate::config::Config;
use crate::jobs::apply_backdated;
use crate::options::{Data, billing_now_ms, guarded_usage, load_metering, now_ms, open_current, plain_decimal};
use crate::output::{Cell, Format, Listing, Progress, Record, ShowFormat, at, count, money, number, shown, text};

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
        /// Of this customer (cus_N)
        #[arg(long)]
        customer: CustomerId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
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
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// List invoices
    List {
        /// Of this customer (cus_N)
        #[arg(long)]
        customer: Option<CustomerId>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// List due usage that needs a confirmation, because too little of it was measured
    Unmeasured {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
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
    /// Issue a credit note over a gross amount of an invoice, or over all that is left of it: settles what is open,
    /// the rest
    /// becomes credit
    Credit {
        /// Its id (inv_N) or number
        invoice: String,
        /// With tax, in the invoice's currency, such as 10.00 [default: all that is left]
        #[arg(long, value_parser = plain_decimal)]
        amount: Option<Decimal>,
        /// Printed on the credit note
        #[arg(long)]
        reason: String,
        /// Show net, tax and gross, and do nothing
        #[arg(long)]
        preview: bool,
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

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Preview { customer, format, data } => preview(customer, format, &data).await?,
        Command::Close { customer, data } => close(customer, &data).await?,
        Command::Show { invoice, format, data } => {
            let (_, database) = data.open_database().await?;
            let held = match invoice.parse::<InvoiceId>() {
                Ok(id) => invoice::held_invoice(database.pool(), id).await?,
                Err(_) => None,
            };
            match held {
                Some(held) => print_held(&held, format)?,
                None => print_invoice(&find(&database, &invoice).await?, format)?,
            }
        }
        Command::List { customer, format, data } => {
            let (_, database) = data.open_database().await?;
            let held = invoice::held(database.pool(), customer).await?;
            list(&all_invoices(&database, customer).await?, &held, format)?;
        }
        Command::Unmeasured { format, data } => list_unmeasured(format, &data).await?,
        Command::Confirm { customer, reason, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (connection, by) = act.parts();
            let (confirmed, note) = invoice::confirm_unmeasured(connection, customer, &reason, by.name, now_ms).await?;
            act.commit(note).await?;
            say!(
                "finalised by the next close: {} of {customer}",
                count(confirmed, "period")
            );
        }
        Command::Credit {
            invoice,
            amount,
            reason,
            preview,
            data,
        } => credit(&invoice, amount, &reason, preview, &data).await?,
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
    let subject = customer.map_or("all customers".to_owned(), |customer| customer.to_string());
    let closing = audit::in_steps(&database, now_ms, Note::new("invoice.close", subject), async {
        apply_backdated(&database, &analytics, &load_metering(&config, &database).await?).await?;
        let usage = guarded_usage(&config, &database, analytics).await?;
        // Changes and ends that were set for a time before now, so that nothing is charged by terms that do not hold any more.
        for (subscription, error) in lifecycle::advance(&database, now_ms).await?.failed {
            tell!("{subscription}: {:#}", anyhow::Error::from(error));
        }
        let closing = match customer {
            Some(customer) => invoice::close(&database, &usage, customer, now_ms).await?,
            None => {
                let progress = Progress::counted("closing customers", 0);
                let tell = |done: usize, of: usize| progress.set_of(done as u64, of as u64);
                let closing = invoice::close_all_with_progress(&database, &usage, now_ms, &tell).await?;
                progress.clear();
                closing
            }
        };
        let result = serde_json::json!({"invoices": closing.invoices.len(), "first": closing.invoices.iter().min(),
            "last": closing.invoices.iter().max(), "refused": closing.refused.len(), "failed": closing.failed.len()});
        Ok((closing, result))
    })
    .await?;
    print_closed(&database, &closing.invoices).await?;
    for open in &closing.refused {
        if let Some(unsettled) = &open.unsettled {
            tell!("{}: held, {}", open.customer, resolution_hint(open.customer, unsettled));
            continue;
        }
        let advice = match open.reason.waits_for_a_person() {
            true => "close again when it is measured, or confirm it with `ezscale invoice confirm`",
            false => "close again later",
        };
        tell!("{}: not closed, {}: {advice}", open.customer, open.reason);
    }
    let failed = closing.failed.len();
    for (customer, error) in closing.failed {
        tell!("{customer}: {:#}", anyhow::Error::from(error));
    }
    if failed > 0 {
        bail!("{} could not be closed", count(failed, "customer"));
    }
    Ok(())
}

async fn list_unmeasured(format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let mut listing = Listing::new([
        text("customer"),
        text("name"),
        text("due_at"),
        text("from"),
        number("measured_percent"),
        text("reason"),
        text("held_at"),
        text("confirmed_by"),
    ]);
    for waiting in invoice::unmeasured(database.pool()).await? {
        listing.row([
            shown(waiting.customer),
            waiting.customer_name.into(),
            at(waiting.due_ms),
            at(waiting.period_start_ms),
            waiting.coverage_percent.into(),
            shown(waiting.reason),
            at(waiting.held_at_ms),
            waiting.confirmed_by.into(),
        ]);
    }
    listing.print(format, "no usage waits for confirmation")
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
        return rows(&listed, &[]).print(Format::Table, "no period has ended since the last close");
    }
    let mut listing = Listing::new([text("currency"), number("invoices"), money("total")]);
    for (currency, (count, sum)) in sums {
        listing.row([shown(currency), count.into(), sum.into()]);
    }
    listing.print(Format::Table, "")?;
    tell!("`ezscale invoice list` lists them");
    Ok(())
}

async fn credit(
    name: &str,
    amount: Option<Decimal>,
    reason: &str,
    is_preview: bool,
    data: &Data,
) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let now_ms = billing_now_ms(&config, &database).await?;
    let found = find(&database, name).await?.invoice;
    let gross = match amount {
        Some(amount) => Some(Money::exact_from_major(amount, found.currency).context("--amount")?),
        None => None,
    };
    let mut act = audit::begin(&database, now_ms).await?;
    let (note, preview) = if is_preview {
        // Not committed: it is only looked at.
        let preview = invoice::preview_credit(act.connection(), found.id, gross, reason).await?;
        (None, preview)
    } else {
        let (note, preview) = invoice::credit_gross(act.connection(), found.id, gross, reason, None, now_ms).await?;
        let change = serde_json::json!({"before": {"open": found.outstanding().to_string()},
            "after": preview.change(note, reason)});
        let risk = credit_note_risk(act.connection(), note, now_ms).await?;
        act.commit(Note::new("invoice.credit", found.id).change(change).risk(risk))
            .await?;
        (Some(note), preview)
    };
    for (name, amount) in [
        ("net", preview.net),
        ("tax", preview.tax),
        ("gross", preview.gross),
        ("settles open", preview.split.to_open),
        ("not written off", preview.split.to_written_off),
        ("becomes credit", preview.split.to_credit),
    ] {
        say!("{name:16} {amount}");
    }
    if let Some(note) = note {
        say!("credit note {note}");
    }
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
    let (mut equal, mut adjusted, mut differ) = (0u64, 0u64, Vec::new());
    for (done, invoice) in invoices.iter().enumerate() {
        for line in invoice::recompute(&database, &usage, invoice.id).await? {
            if line.equal {
                equal += 1;
                continue;
            }
            if !line.is_open() {
                adjusted += 1;
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
    say!(
        "{}, {} recomputed from flows: {equal} equal, {adjusted} adjusted since, {} different",
        count(invoices.len(), "invoice"),
        count(equal + adjusted + differ.len() as u64, "usage line"),
        differ.len()
    );
    for line in &differ {
        say!("{line}");
    }
    if !differ.is_empty() {
        bail!(
            "{} differing from flows: the next invoice adjusts what late flows and corrections changed",
            count(differ.len(), "line")
        );
    }
    Ok(())
}

/// What is to be settled, and how.
fn resolution_hint(customer: CustomerId, unsettled: &HoldReason) -> String {
    let missing = match unsettled {
        HoldReason::Rate(missing) => missing,
        HoldReason::Issuer => {
            return format!(
                "{unsettled}: say who that is with `ezscale entity set --name NAME --street STREET --postal-code CODE --city CITY \
                 --country CODE --vat-id NUMBER`, then close again"
            );
        }
        HoldReason::VatNumber { .. } => {
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

fn print_held(held: &HeldInvoice, format: ShowFormat) -> anyhow::Result<()> {
    Record::new()
        .field(text("id"), shown(held.id))
        .field(text("number").or("none yet"), Cell::Absent)
        .field(text("customer"), shown(held.customer))
        .field(text("customer_name"), held.customer_name.as_str())
        .field(text("status"), "held")
        .field(text("held_at"), at(held.held_at_ms))
        .field(text("due_at"), at(held.due_ms))
        .field(text("to_do"), resolution_hint(held.customer, &held.reason))
        .print(format)
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

async fn preview(customer: CustomerId, format: ShowFormat, data: &Data) -> anyhow::Result<()> {
    let (config, database) = data.open_database().await?;
    let now_ms = now_ms(&database).await?;
    let usage = measured(&config).await?;
    let drafts = invoice::preview(&database, &usage, customer, now_ms).await?;
    if let ShowFormat::Json = format {
        let records = drafts.iter().map(draft_record);
        return Record::print_all_json(&records.collect::<Vec<_>>());
    }
    if drafts.is_empty() {
        say!("{customer} has no subscriptions: nothing is due");
    }
    for draft in &drafts {
        draft_record(draft).print(format)?;
        say!();
    }
    Ok(())
}

fn draft_record(draft: &Draft) -> Record {
    let state = if draft.is_complete() { "complete" } else { "so far" };
    let to_do = draft
        .unsettled
        .as_ref()
        .map(|unsettled| resolution_hint(draft.customer, unsettled));
    let whole = (draft.period_start_ms, draft.period_end_ms);
    let lines = draft.lines.iter().map(|line| Line {
        period: other_period((line.period_start_ms, line.period_end_ms), whole, &draft.time_zone),
        service: line.service,
        description: &line.description,
        quantity: line.quantity,
        unit: &line.unit,
        unit_price: line.unit_price,
        amount: line.amount,
    });
    Record::new()
        .field(text("customer"), shown(draft.customer))
        .field(text("customer_name"), draft.customer_name.as_str())
        .field(text("period_start"), date(draft.period_start_ms, &draft.time_zone))
        .field(text("period_end"), last_day(draft.period_end_ms, &draft.time_zone))
        .field(text("time_zone"), draft.time_zone.as_str())
        .field(text("state"), state)
        .field(text("prices_include_tax"), draft.prices_include_tax)
        .field(money("subtotal"), draft.subtotal)
        .field(money("total"), draft.total)
        .field(text("to_do"), to_do)
        .list("taxes", tax_rows(&draft.taxes))
        .list("lines", line_rows(lines))
}

fn print_invoice(with_lines: &InvoiceWithLines, format: ShowFormat) -> anyhow::Result<()> {
    let invoice = &with_lines.invoice;
    let zone = &invoice.time_zone;
    let whole = (invoice.period_start_ms, invoice.period_end_ms);
    let lines = with_lines.lines.iter().map(|line| Line {
        period: other_period((line.period_start_ms, line.period_end_ms), whole, zone),
        service: line.service,
        description: &line.description,
        quantity: line.quantity,
        unit: &line.unit,
        unit_price: line.unit_price,
        amount: line.amount,
    });
    Record::new()
        .field(text("id"), shown(invoice.id))
        .field(text("number"), invoice.number.as_str())
        .field(text("kind"), invoice.kind.name())
        .field(text("corrects"), invoice.corrects.map(shown))
        .field(text("reason"), invoice.reason.as_str())
        .field(text("customer"), shown(invoice.customer))
        .field(text("customer_name"), invoice.customer_name.as_str())
        .field(text("entity"), shown(invoice.entity))
        .field(text("period_start"), date(invoice.period_start_ms, zone))
        .field(text("period_end"), last_day(invoice.period_end_ms, zone))
        .field(text("time_zone"), zone.as_str())
        .field(text("issued"), date(invoice.finalised_at_ms, zone))
        .field(text("due"), date(invoice.due_at_ms, zone))
        .field(text("status"), invoice.status.name_of(invoice.kind))
        .field(text("prices_include_tax"), invoice.prices_include_tax)
        .field(money("subtotal"), invoice.subtotal)
        .field(money("tax"), invoice.tax)
        .field(money("total"), invoice.total)
        .field(money("settled"), invoice.settled)
        .field(money("outstanding"), invoice.outstanding())
        .list("taxes", tax_rows(&with_lines.taxes))
        .list("lines", line_rows(lines))
        .print(format)
}

fn tax_rows(taxes: &[TaxAmount]) -> Listing<4> {
    let mut listing = Listing::new([text("tax"), number("rate_percent"), money("net"), money("amount")]);
    for tax in billing::tax::merged(taxes) {
        listing.row([
            tax.rule.name.as_str().into(),
            tax.rule.rate.value().into(),
            tax.net.into(),
            tax.tax.into(),
        ]);
    }
    listing
}

/// What is printed of a line, drafted or final.
struct Line<'a> {
    service: Option<ServiceId>,
    description: &'a str,
    /// Where it is not the document's.
    period: Option<String>,
    quantity: Decimal,
    unit: &'a str,
    unit_price: Decimal,
    amount: Money,
}

/// The days of a line whose period is another than that of its document.
fn other_period(own: (i64, i64), document: (i64, i64), zone: &str) -> Option<String> {
    let (start_ms, end_ms) = own;
    if own == document {
        return None;
    }
    Some(if end_ms <= start_ms {
        date(start_ms, zone)
    } else {
        format!("{} – {}", date(start_ms, zone), last_day(end_ms, zone))
    })
}

fn line_rows<'a>(lines: impl Iterator<Item = Line<'a>>) -> Listing<8> {
    let mut listing = Listing::new([
        number("position"),
        text("service"),
        text("description"),
        text("period"),
        number("quantity"),
        text("unit"),
        number("unit_price"),
        money("amount"),
    ]);
    for (index, line) in lines.enumerate() {
        listing.row([
            (index + 1).into(),
            line.service.map(shown).into(),
            line.description.into(),
            line.period.map(shown).into(),
            line.quantity.into(),
            line.unit.into(),
            line.unit_price.into(),
            line.amount.into(),
        ]);
    }
    listing
}

/// Held invoices have an id and no amounts yet: their tax is not known.
fn list(invoices: &[Invoice], held: &[HeldInvoice], format: Format) -> anyhow::Result<()> {
    rows(invoices, held).print(format, "no invoices: close a period with `ezscale invoice close`")?;
    for held in held.iter().filter(|_| format == Format::Table) {
        tell!(
            "{} of {} is held, {}",
            held.id,
            held.customer,
            resolution_hint(held.customer, &held.reason)
        );
    }
    Ok(())
}

/// The latest first, as they come.
fn rows(invoices: &[Invoice], held: &[HeldInvoice]) -> Listing<13> {
    let mut listing = Listing::new([
        text("id"),
        text("number").or("none yet"),
        text("kind"),
        text("customer"),
        text("customer_name"),
        text("period_start"),
        text("period_end"),
        text("status"),
        money("subtotal").only_data(),
        money("tax").only_data(),
        money("total"),
        money("outstanding"),
        text("reason").only_data(),
    ]);
    let invoiced = invoices.iter().map(|invoice| {
        let cells = [
            shown(invoice.id),
            invoice.number.as_str().into(),
            invoice.kind.name().into(),
            shown(invoice.customer),
            invoice.customer_name.as_str().into(),
            date(invoice.period_start_ms, &invoice.time_zone).into(),
            last_day(invoice.period_end_ms, &invoice.time_zone).into(),
            invoice.status.name_of(invoice.kind).into(),
            invoice.subtotal.into(),
            invoice.tax.into(),
            invoice.total.into(),
            invoice.outstanding().into(),
            invoice.reason.as_str().into(),
        ];
        (invoice.id, cells)
    });
    let waiting = held.iter().map(|held| {
        let none = Cell::Absent;
        let cells = [
            shown(held.id),
            none.clone(),
            "invoice".into(),
            shown(held.customer),
            held.customer_name.as_str().into(),
            none.clone(),
            none.clone(),
            "held".into(),
            none.clone(),
            none.clone(),
            none.clone(),
            none,
            held.reason.to_string().into(),
        ];
        (held.id, cells)
    });
    let mut all: Vec<_> = invoiced.chain(waiting).collect();
    if !held.is_empty() {
        all.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
    }
    for (_, cells) in all {
        listing.row(cells);
    }
    listing
}
