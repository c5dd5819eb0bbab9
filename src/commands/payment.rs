//! `ezscale payment`: money that comes in and goes out.

use activity::act::Note;
use anyhow::Context as _;
use billing::payment::method::{self, PaymentMethod};
use billing::payment::{self, GatewayName, Gateways, NewPayment, NewReversal, Payment, PaymentFilter, Transfer};
use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, PaymentMethodId};
use schemas::inventory;
use schemas::money::{Currency, Money};
use serde_json::json;
use sqlx::Row as _;

use super::audit;
use crate::options::{Data, billing_now_ms, now_ms, plain_decimal};
use crate::output::{Format, Listing, Record, ShowFormat, at, count, money, number, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List payments, the latest first
    List {
        /// Of this customer (cus_N) only
        #[arg(long)]
        customer: Option<CustomerId>,
        /// How many to list at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=500))]
        limit: i64,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Show a payment, its refunds and what is known of it
    Show {
        /// The payment (pay_N)
        payment: PaymentId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShowFormat,
        #[command(flatten)]
        data: Data,
    },
    /// List what a customer can pay with
    Methods {
        /// The customer (cus_N)
        customer: CustomerId,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Charge what an invoice leaves open to a saved payment method, and print the payment's id and state
    Charge {
        /// The invoice (inv_N)
        invoice: InvoiceId,
        /// The method (pmt_N) [default: the customer's default]
        #[arg(long)]
        method: Option<PaymentMethodId>,
        #[command(flatten)]
        data: Data,
    },
    /// Charge a saved payment method for credit, and print the payment's id and state
    TopUp {
        /// The customer (cus_N)
        customer: CustomerId,
        /// In the customer's currency, such as 25.00
        #[arg(long, value_parser = plain_decimal)]
        amount: Decimal,
        /// The method (pmt_N) [default: the customer's default]
        #[arg(long)]
        method: Option<PaymentMethodId>,
        #[command(flatten)]
        data: Data,
    },
    /// Record a bank transfer that has come in for an invoice, or for a customer; more than the invoice leaves open becomes
    /// credit, which pays what else is open
    Record {
        /// The invoice (inv_N), or the customer (cus_N) who paid for several or for none
        #[arg(value_parser = paid_for, value_name = "INVOICE|CUSTOMER")]
        paid_for: TransferPurpose,
        /// In the invoice's or the customer's currency, such as 119.00
        #[arg(long, value_parser = plain_decimal)]
        amount: Decimal,
        /// The bank's reference; a transfer is recorded once
        #[arg(long)]
        reference: String,
        /// The day on which the bank had it, such as 2026-11-30 [default: today]
        #[arg(long, value_name = "DAY")]
        value_date: Option<Date>,
        /// A note on the payment, for finance
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        data: Data,
    },
    /// Reverse a bank transfer that was recorded by mistake or returned by the bank; its invoice is open again
    Reverse {
        /// The payment (pay_N)
        payment: PaymentId,
        /// Kept in the audit log, and shown to the customer
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        data: Data,
    },
    /// Refund a payment or a part of it by the way it came, with the credit note for its invoice, and print the refund's id and
    /// state
    Refund(super::refund::Args),
    /// Look up every payment and refund with an unknown outcome at its gateway
    Reconcile {
        /// As if it were this instant (RFC 3339, or a day) [default: now]
        #[arg(long, value_parser = crate::options::instant)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
}

/// What a bank transfer is for.
#[derive(Clone, Copy, Debug)]
enum TransferPurpose {
    Invoice(InvoiceId),
    Customer(CustomerId),
}

fn paid_for(text: &str) -> Result<TransferPurpose, String> {
    let invoice = text.parse().map(TransferPurpose::Invoice);
    let customer = || text.parse().map(TransferPurpose::Customer);
    invoice
        .or_else(|_| customer())
        .map_err(|_| format!("{text:?} is neither an invoice, such as inv_7, nor a customer, such as cus_7"))
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List {
            customer,
            limit,
            format,
            data,
        } => list(customer, limit, format, &data).await?,
        Command::Show { payment, format, data } => {
            let (_, database) = data.open_database().await?;
            show(&database, payment, format).await?;
        }
        Command::Methods { customer, format, data } => {
            let (_, database) = data.open_database().await?;
            let columns = ["id", "gateway", "kind", "label", "expires", "is_default"];
            let mut listing = Listing::new(columns.map(text));
            for method in method::methods(database.pool(), customer).await? {
                listing.row([
                    shown(method.id),
                    shown(method.gateway),
                    method.kind.into(),
                    method.label.into(),
                    method.expires.into(),
                    method.is_default.into(),
                ]);
            }
            listing.print(format, "no payment methods: customers save them in the portal")?;
        }
        Command::Charge { invoice, method, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let (customer, _) = owner(&database, invoice).await?;
            let gateways = config.gateways(&database).await?;
            let method = chosen(&database, customer, method).await?;
            let begins = Note::new("payment.charge", invoice).change(json!({"after": {"method": method.id}}));
            let payment = audit::in_steps(&database, now_ms, begins, async {
                charge(&database, &gateways, &method, Some(invoice), None, now_ms).await
            })
            .await?;
            print_state(&payment);
        }
        Command::TopUp {
            customer,
            amount,
            method,
            data,
        } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let currency = inventory::customer(database.pool(), customer).await?.currency;
            let amount = Money::exact_from_major(amount, currency).context("--amount")?;
            let gateways = config.gateways(&database).await?;
            let method = chosen(&database, customer, method).await?;
            let change = json!({"after": {"method": method.id, "amount": amount.to_string()}});
            let begins = Note::new("payment.top_up", customer).change(change);
            let payment = audit::in_steps(&database, now_ms, begins, async {
                charge(&database, &gateways, &method, None, Some(amount), now_ms).await
            })
            .await?;
            print_state(&payment);
        }
        Command::Record {
            paid_for,
            amount,
            reference,
            value_date,
            note,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let (customer, invoice, currency) = match paid_for {
                TransferPurpose::Invoice(invoice) => {
                    let (customer, currency) = owner(&database, invoice).await?;
                    (customer, Some(invoice), currency)
                }
                TransferPurpose::Customer(customer) => {
                    let currency = inventory::customer(database.pool(), customer).await?.currency;
                    (customer, None, currency)
                }
            };
            let transfer = Transfer {
                customer,
                invoice,
                amount: Money::exact_from_major(amount, currency).context("--amount")?,
                reference: &reference,
                note: &note,
                value_date,
            };
            let mut act = audit::begin(&database, now_ms).await?;
            let payment = payment::record_transfer_in(act.connection(), &transfer, now_ms).await?;
            let change = json!({"after": {"payment": payment.id, "amount": payment.amount.to_string(),
                "reference": payment.reference, "value_date": payment.value_date().map(|date| date.to_string())}});
            let subject = invoice.map_or(customer.to_string(), |invoice| invoice.to_string());
            act.commit(Note::new("payment.record_transfer", subject).change(change))
                .await?;
            print_state(&payment);
        }
        Command::Refund(args) => super::refund::run(args).await?,
        Command::Reverse { payment, reason, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let mut act = audit::begin(&database, now_ms).await?;
            let (connection, by) = act.parts();
            let new = NewReversal {
                payment,
                reason: &reason,
                created_by: by.name,
            };
            let reversal = payment::reverse_transfer_in(connection, &new, now_ms).await?;
            let change = json!({"after": {"reversed": reversal.amount.to_string(), "reason": reversal.reason}});
            act.commit(Note::new("payment.reverse", payment).change(change)).await?;
            say!("{payment} reversed: {}", reversal.amount);
        }
        Command::Reconcile { at, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let gateways = config.gateways(&database).await?;
            let at_ms = at.map_or(now_ms, Timestamp::as_millisecond);
            let done = audit::in_steps(&database, now_ms, Note::new("payment.reconcile", "payments"), async {
                let done = payment::reconcile(&database, &gateways, at_ms).await?;
                let result = json!({"looked_up": done.looked_for, "settled": done.settled,
                    "retried": done.asked_again, "errors": done.errors, "events": done.events});
                Ok((done, result))
            })
            .await?;
            say!(
                "{} looked up, {} settled, {} retried, {}, {}",
                done.looked_for,
                done.settled,
                done.asked_again,
                count(done.errors, "error"),
                count(done.events, "event")
            );
        }
    }
    Ok(())
}

/// The payment method that was named, or the customer's first.
async fn chosen(
    database: &Database,
    customer: CustomerId,
    method: Option<PaymentMethodId>,
) -> anyhow::Result<PaymentMethod> {
    let mut saved = method::methods(database.pool(), customer).await?.into_iter();
    match method {
        Some(id) => saved.find(|saved| saved.id == id).with_context(|| {
            format!("{customer} has no payment method {id}: see `ezscale payment methods {customer}`")
        }),
        None => saved
            .next()
            .with_context(|| format!("{customer} has saved no payment method")),
    }
}

/// Charges, and says what came of it.
async fn charge(
    database: &Database,
    gateways: &Gateways,
    method: &PaymentMethod,
    invoice: Option<InvoiceId>,
    amount: Option<Money>,
    now_ms: i64,
) -> anyhow::Result<(Payment, serde_json::Value)> {
    let new = NewPayment {
        customer: method.customer,
        invoice,
        amount,
        method: method.id,
        note: "",
        return_url: None,
    };
    let payment = payment::start(database, gateways.get(method.gateway)?, &new, now_ms).await?;
    let result =
        json!({"payment": payment.id, "amount": payment.amount.to_string(), "state": payment.state.to_string()});
    Ok((payment, result))
}

async fn owner(database: &Database, invoice: InvoiceId) -> anyhow::Result<(CustomerId, Currency)> {
    let row = sqlx::query("SELECT customer_id, currency FROM invoices WHERE id = $1")
        .bind(invoice.0)
        .fetch_optional(database.pool())
        .await?
        .with_context(|| format!("no invoice {invoice}"))?;
    Ok((CustomerId(row.try_get(0)?), row.try_get::<String, _>(1)?.parse()?))
}

fn print_state(payment: &Payment) {
    let Payment { id, state, error, .. } = payment;
    match (error.is_empty(), payment.action_url.is_empty()) {
        (true, true) => say!("{id} {state}"),
        (true, false) => say!("{id} {state} {}", payment.action_url),
        (false, _) => say!("{id} {state}: {error}"),
    }
}

/// A transfer that was reversed had succeeded before.
fn state_of(payment: &Payment) -> String {
    match payment.is_reversed {
        true => "reversed".to_owned(),
        false => payment.state.to_string(),
    }
}

async fn list(customer: Option<CustomerId>, limit: i64, format: Format, data: &Data) -> anyhow::Result<()> {
    let (_, database) = data.open_database().await?;
    let filter = PaymentFilter {
        customer,
        ..PaymentFilter::default()
    };
    let mut listing = Listing::new([
        text("id"),
        text("customer"),
        text("invoice").or("top-up"),
        text("gateway"),
        money("amount"),
        text("state"),
        text("created_at"),
        text("value_date").only_data(),
        text("reference").only_data(),
        text("error"),
    ]);
    for payment in payment::list(database.pool(), filter, limit).await? {
        listing.row([
            shown(payment.id),
            shown(payment.customer),
            payment.purpose.invoice().map(shown).into(),
            shown(payment.gateway),
            payment.amount.into(),
            state_of(&payment).into(),
            at(payment.created_at_ms),
            payment.value_date().map(shown).into(),
            payment.reference.into(),
            payment.error.into(),
        ]);
    }
    listing.print(format, "no payments: charge an invoice with `ezscale payment charge`")
}

async fn show(database: &Database, id: PaymentId, format: ShowFormat) -> anyhow::Result<()> {
    let payment = payment::payment(database.pool(), id).await?;
    let mut reversals = Listing::new([text("reversed_at"), money("amount"), text("created_by"), text("reason")]);
    if let Some(reversal) = payment::reversal_of(database.pool(), &payment).await? {
        reversals.row([
            at(reversal.reversed_at_ms),
            reversal.amount.into(),
            reversal.created_by.into(),
            reversal.reason.into(),
        ]);
    }
    let mut connection = database.pool().acquire().await?;
    let standing = billing::refund::refund_balance(&mut connection, id).await?;
    drop(connection);
    let mut refunds = Listing::new([text("id"), money("amount"), text("state"), text("reason")]);
    for refund in payment::refunds_of(database.pool(), id).await? {
        refunds.row([
            shown(refund.id),
            refund.amount.into(),
            shown(refund.state),
            refund.reason.into(),
        ]);
    }
    Record::new()
        .field(text("id"), shown(payment.id))
        .field(text("customer"), shown(payment.customer))
        .field(text("invoice").or("top-up"), payment.purpose.invoice().map(shown))
        .field(money("amount"), payment.amount)
        .field(text("gateway"), shown(payment.gateway))
        .field(text("reference"), payment.reference.as_deref())
        .field(text("state"), state_of(&payment))
        .field(text("error"), payment.error.as_str())
        .field(text("idempotency_key"), payment.idempotency_key.as_str())
        .field(number("calls"), payment.calls)
        .field(text("created_at"), at(payment.created_at_ms))
        .field(text("paid_at"), payment.paid_at_ms.map(at))
        .field(text("value_date"), payment.value_date().map(shown))
        .field(text("checked_at"), payment.check_at_ms.map(at))
        .field(text("note"), payment.note.as_str())
        .field(money("refunded"), standing.refunded)
        .field(money("left_to_refund"), standing.left)
        .list("reversals", reversals)
        .list("refunds", refunds)
        .print(format)?;
    if payment.gateway != GatewayName::Manual && payment.state.is_open() {
        tell!("processing: `ezscale payment reconcile` looks it up at the gateway");
    }
    Ok(())
}
