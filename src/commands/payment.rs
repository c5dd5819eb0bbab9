//! `ezscale payment`: money that comes in and goes out.

use anyhow::{Context as _, bail};
use billing::payment::method;
use billing::payment::{self, GatewayName, Gateways, NewPayment, NewReversal, Payment, PaymentFilter, Transfer};
use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, PaymentMethodId};
use schemas::inventory;
use schemas::money::{Currency, Money};
use schemas::window::instant_text;
use serde_json::json;
use sqlx::Row as _;

use super::audit::{self, COMMAND_LINE};
use crate::options::{Data, billing_now_ms, now_ms};
use crate::output::Listing;

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
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=500))]
        limit: i64,
        #[command(flatten)]
        data: Data,
    },
    /// Show a payment, its refunds and what is known of it
    Show {
        /// The payment (pay_N)
        payment: PaymentId,
        #[command(flatten)]
        data: Data,
    },
    /// List what a customer can pay with
    Methods {
        /// The customer (cus_N)
        customer: CustomerId,
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
        #[arg(long)]
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
        paid_for: PaidFor,
        /// In the invoice's or the customer's currency, such as 119.00
        #[arg(long)]
        amount: Decimal,
        /// The bank's reference; a transfer is recorded once
        #[arg(long)]
        reference: String,
        /// The day on which the bank had it, such as 2026-11-30 [default: today]
        #[arg(long, value_name = "DAY")]
        value_date: Option<Date>,
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
        /// As if it were this instant (RFC 3339) [default: now]
        #[arg(long)]
        at: Option<Timestamp>,
        #[command(flatten)]
        data: Data,
    },
}

/// What a bank transfer is for.
#[derive(Clone, Copy, Debug)]
enum PaidFor {
    Invoice(InvoiceId),
    Customer(CustomerId),
}

fn paid_for(text: &str) -> Result<PaidFor, String> {
    let invoice = text.parse().map(PaidFor::Invoice);
    let customer = || text.parse().map(PaidFor::Customer);
    invoice
        .or_else(|_| customer())
        .map_err(|_| format!("{text:?} is neither an invoice, such as inv_7, nor a customer, such as cus_7"))
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { customer, limit, data } => {
            let (_, database) = data.open_database().await?;
            let filter = PaymentFilter {
                customer,
                ..PaymentFilter::default()
            };
            let mut listing = Listing::new(&[
                "payment",
                "customer",
                "for",
                "gateway",
                "amount",
                "state",
                "created",
                "value date",
                "what",
            ])
            .right(4);
            for payment in payment::list(database.pool(), filter, limit).await? {
                listing.row([
                    payment.id.to_string(),
                    payment.customer.to_string(),
                    payment
                        .purpose
                        .invoice()
                        .map_or("top-up".to_owned(), |invoice| invoice.to_string()),
                    payment.gateway.to_string(),
                    payment.amount.to_string(),
                    state_of(&payment),
                    instant_text(payment.created_at_ms),
                    payment.value_date().map_or(String::new(), |date| date.to_string()),
                    payment.error,
                ]);
            }
            listing.print("no payments: charge an invoice with `ezscale payment charge`");
        }
        Command::Show { payment, data } => {
            let (_, database) = data.open_database().await?;
            show(&database, payment).await?;
        }
        Command::Methods { customer, data } => {
            let (_, database) = data.open_database().await?;
            let mut listing = Listing::new(&["method", "gateway", "kind", "label", "expires", "default"]);
            for method in method::methods(database.pool(), customer).await? {
                listing.row([
                    method.id.to_string(),
                    method.gateway.to_string(),
                    method.kind,
                    method.label,
                    method.expires,
                    if method.is_default { "yes" } else { "" }.to_owned(),
                ]);
            }
            listing.print("no payment methods: customers save them in the portal");
        }
        Command::Charge { invoice, method, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = billing_now_ms(&config, &database).await?;
            let (customer, _) = owner(&database, invoice).await?;
            let gateways = config.gateways(&database).await?;
            let payment = charge(&database, &gateways, customer, Some(invoice), None, method, now_ms).await?;
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
            let payment = charge(&database, &gateways, customer, None, Some(amount), method, now_ms).await?;
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
                PaidFor::Invoice(invoice) => {
                    let (customer, currency) = owner(&database, invoice).await?;
                    (customer, Some(invoice), currency)
                }
                PaidFor::Customer(customer) => {
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
            let mut transaction = database.begin_write().await?;
            let payment = payment::record_transfer_in(&mut transaction, &transfer, now_ms).await?;
            let change = json!({"after": {"payment": payment.id, "amount": payment.amount.to_string(),
                "reference": payment.reference, "value_date": payment.value_date().map(|date| date.to_string())}});
            let subject = invoice.map_or(customer.to_string(), |invoice| invoice.to_string());
            audit::note(&mut transaction, "payment.record_transfer", &subject, change, now_ms).await?;
            transaction.commit().await?;
            print_state(&payment);
        }
        Command::Refund(args) => super::refund::run(args).await?,
        Command::Reverse { payment, reason, data } => {
            let (_, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let new = NewReversal {
                payment,
                reason: &reason,
                created_by: COMMAND_LINE.name,
            };
            let mut transaction = database.begin_write().await?;
            let reversal = payment::reverse_transfer_in(&mut transaction, &new, now_ms).await?;
            let change = json!({"after": {"reversed": reversal.amount.to_string(), "reason": reversal.reason}});
            audit::note(
                &mut transaction,
                "payment.reverse",
                &payment.to_string(),
                change,
                now_ms,
            )
            .await?;
            transaction.commit().await?;
            println!("{payment} reversed: {}", reversal.amount);
        }
        Command::Reconcile { at, data } => {
            let (config, database) = data.open_database().await?;
            let now_ms = now_ms(&database).await?;
            let gateways = config.gateways(&database).await?;
            let now_ms = at.map_or(now_ms, Timestamp::as_millisecond);
            let done = payment::reconcile(&database, &gateways, now_ms).await?;
            println!(
                "{} looked up, {} settled, {} retried, {} errors, {} events",
                done.looked_for, done.settled, done.asked_again, done.errors, done.events
            );
        }
    }
    Ok(())
}

async fn charge(
    database: &Database,
    gateways: &Gateways,
    customer: CustomerId,
    invoice: Option<InvoiceId>,
    amount: Option<Money>,
    method: Option<PaymentMethodId>,
    now_ms: i64,
) -> anyhow::Result<Payment> {
    let saved = method::methods(database.pool(), customer).await?;
    let chosen = match method {
        Some(id) => saved.iter().find(|saved| saved.id == id),
        None => saved.first(),
    };
    let Some(chosen) = chosen else {
        match method {
            Some(id) => bail!("{customer} has no payment method {id}: see `ezscale payment methods {customer}`"),
            None => bail!("{customer} has saved no payment method"),
        }
    };
    let new = NewPayment {
        customer,
        invoice,
        amount,
        method: chosen.id,
        note: "",
        return_url: None,
    };
    Ok(payment::start(database, gateways.get(chosen.gateway)?, &new, now_ms).await?)
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
        (true, true) => println!("{id} {state}"),
        (true, false) => println!("{id} {state} {}", payment.action_url),
        (false, _) => println!("{id} {state}: {error}"),
    }
}

/// A transfer that was reversed had succeeded before.
fn state_of(payment: &Payment) -> String {
    match payment.is_reversed {
        true => "reversed".to_owned(),
        false => payment.state.to_string(),
    }
}

async fn show(database: &Database, id: PaymentId) -> anyhow::Result<()> {
    let payment = payment::payment(database.pool(), id).await?;
    let reversal = payment::reversal_of(database.pool(), &payment).await?;
    let optional_ms = |at_ms: Option<i64>| at_ms.map_or("-".to_owned(), instant_text);
    let value_date = payment.value_date().map_or("-".to_owned(), |date| date.to_string());
    for (name, value) in [
        ("payment", payment.id.to_string()),
        ("customer", payment.customer.to_string()),
        (
            "for",
            payment
                .purpose
                .invoice()
                .map_or("top-up".to_owned(), |invoice| invoice.to_string()),
        ),
        ("amount", payment.amount.to_string()),
        ("gateway", payment.gateway.to_string()),
        ("reference", payment.reference.clone().unwrap_or("-".to_owned())),
        ("state", state_of(&payment)),
        ("error", payment.error),
        ("key", payment.idempotency_key),
        ("asked", payment.calls.to_string()),
        ("created", instant_text(payment.created_at_ms)),
        ("paid", optional_ms(payment.paid_at_ms)),
        ("value date", value_date),
        ("looked for at", optional_ms(payment.check_at_ms)),
        ("note", payment.note),
    ] {
        println!("{name:14} {value}");
    }
    if let Some(reversal) = reversal {
        println!(
            "{:14} {} {} by {}: {}",
            "reversed",
            instant_text(reversal.reversed_at_ms),
            reversal.amount,
            reversal.created_by,
            reversal.reason
        );
    }
    let mut connection = database.pool().acquire().await?;
    let standing = billing::refund::standing(&mut connection, id).await?;
    drop(connection);
    println!("{:14} {}", "refunded", standing.refunded);
    println!("{:14} {}", "left to refund", standing.left);
    for refund in payment::refunds_of(database.pool(), id).await? {
        println!(
            "{:14} {} {} {}",
            refund.id.to_string(),
            refund.amount,
            refund.state,
            refund.reason
        );
    }
    if payment.gateway != GatewayName::Manual && payment.state.is_open() {
        println!("processing: `ezscale payment reconcile` looks it up at the gateway");
    }
    Ok(())
}
