//! Postings, payments and events, each alone.

use std::time::Instant;

use activity::channel;
use activity::event::{EventType, NewEvent};
use anyhow::ensure;
use billing::ledger::{self, Account, NewTransaction, Posting};
use billing::payment::{Transfer, record_transfer_in};
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId};
use schemas::money::{Currency, Money};
use serde::Serialize;
use serde_json::json;
use sqlx::Row as _;

use super::{Server, month, world};

/// Of so many operations one is a transaction of the database of its own, where each is.
const ALONE_SHARE: u32 = 10;
/// What is one transaction of the database otherwise, as in closing.
const PER_TRANSACTION: u32 = 200;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LedgerRow {
    database: Server,
    what: String,
    postings: u64,
    seconds: f64,
    postings_per_second: f64,
}

impl LedgerRow {
    pub(super) fn new(database: Server, what: String, postings: u64, seconds: f64) -> LedgerRow {
        LedgerRow {
            database,
            what,
            postings,
            seconds,
            postings_per_second: postings as f64 / seconds,
        }
    }

    pub(super) fn cells(&self) -> [String; 5] {
        [
            self.database.name().to_owned(),
            self.what.clone(),
            self.postings.to_string(),
            format!("{:.1}", self.seconds),
            format!("{:.0}", self.postings_per_second),
        ]
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EventRow {
    what: String,
    number: u64,
    seconds: f64,
    events_per_second: f64,
}

impl EventRow {
    pub(super) fn new(what: impl Into<String>, number: u64, seconds: f64) -> EventRow {
        EventRow {
            what: what.into(),
            number,
            seconds,
            events_per_second: number as f64 / seconds,
        }
    }

    pub(super) fn cells(&self) -> [String; 4] {
        [
            self.what.clone(),
            self.number.to_string(),
            format!("{:.1}", self.seconds),
            format!("{:.0}", self.events_per_second),
        ]
    }
}

pub(super) struct Made {
    pub(super) ledger: Vec<LedgerRow>,
    pub(super) events: Vec<EventRow>,
}

/// On a database with customers 1 to `customers`: `number` operations of each kind.
pub(super) async fn run(database: &Database, server: Server, customers: u32, number: u32) -> anyhow::Result<Made> {
    let now_ms = month::END.parse::<jiff::Zoned>()?.timestamp().as_millisecond();
    let ledger = vec![
        post(database, server, customers, (number, PER_TRANSACTION), now_ms).await?,
        post(database, server, customers, (number / ALONE_SHARE, 1), now_ms).await?,
        pay(database, server, number / ALONE_SHARE, now_ms).await?,
    ];
    // What closing and paying had to tell comes first, so that only what is published here is counted.
    channel::dispatch(database, now_ms).await?;
    let events = tell(database, server, (customers, number), now_ms).await?;
    Ok(Made { ledger, events })
}

/// Transactions of two postings.
async fn post(
    database: &Database,
    server: Server,
    customers: u32,
    (number, per_transaction): (u32, u32),
    now_ms: i64,
) -> anyhow::Result<LedgerRow> {
    let currency: Currency = world::CURRENCY.parse()?;
    let amount = Money::new(100, currency);
    let begun = Instant::now();
    for first in (0..number).step_by(per_transaction as usize) {
        let mut transaction = database.begin_write().await?;
        let new: Vec<NewTransaction> = (first..(first + per_transaction).min(number))
            .map(|at| {
                let customer = CustomerId(i64::from(at % customers) + 1);
                Ok(NewTransaction {
                    idempotency_key: format!("benchmark:{per_transaction}:{at}"),
                    customer: Some(customer),
                    invoice: None,
                    payment: None,
                    refund: None,
                    description: "given by the benchmark".to_owned(),
                    posted_at_ms: now_ms,
                    postings: vec![
                        Posting {
                            account: Account::promotion(currency),
                            amount,
                        },
                        Posting {
                            account: Account::credit(customer, currency),
                            amount: amount.checked_neg()?,
                        },
                    ],
                })
            })
            .collect::<anyhow::Result<_>>()?;
        ledger::post_all(&mut transaction, &new).await?;
        transaction.commit().await?;
    }
    let what = format!("transactions of two postings, {per_transaction} a commit");
    Ok(LedgerRow::new(
        server,
        what,
        u64::from(number) * 2,
        begun.elapsed().as_secs_f64(),
    ))
}

/// Bank transfers for open invoices, one commit each: payment, postings, the invoice's state and the event.
async fn pay(database: &Database, server: Server, number: u32, now_ms: i64) -> anyhow::Result<LedgerRow> {
    let sql = "SELECT id, customer_id, total_minor FROM invoices WHERE status = 'finalised' ORDER BY id LIMIT $1";
    let rows = sqlx::query(sql)
        .bind(i64::from(number))
        .fetch_all(database.pool())
        .await?;
    ensure!(!rows.is_empty(), "no invoice is open");
    let currency: Currency = world::CURRENCY.parse()?;
    let postings = async || -> anyhow::Result<i64> {
        let row = sqlx::query("SELECT count(*) FROM ledger_postings");
        Ok(row.fetch_one(database.pool()).await?.try_get(0)?)
    };
    let before = postings().await?;
    let begun = Instant::now();
    for row in &rows {
        let transfer = Transfer {
            invoice: Some(InvoiceId(row.try_get(0)?)),
            customer: CustomerId(row.try_get(1)?),
            amount: Money::new(row.try_get(2)?, currency),
            reference: &format!("bank-{}", row.try_get::<i64, _>(0)?),
            note: "",
            value_date: None,
        };
        let mut transaction = database.begin_write().await?;
        record_transfer_in(&mut transaction, &transfer, now_ms).await?;
        transaction.commit().await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let made = u64::try_from(postings().await? - before)?;
    let what = format!("{} payments of invoices, a commit each", rows.len());
    Ok(LedgerRow::new(server, what, made, seconds))
}

/// Events into the outbox, and from there to notifications and mails to be sent.
async fn tell(
    database: &Database,
    server: Server,
    (customers, number): (u32, u32),
    now_ms: i64,
) -> anyhow::Result<Vec<EventRow>> {
    let begun = Instant::now();
    for first in (0..number).step_by(PER_TRANSACTION as usize) {
        let mut transaction = database.begin_write().await?;
        let new = (first..(first + PER_TRANSACTION).min(number)).map(|at| NewEvent {
            event_type: EventType::InvoicePaid,
            customer: Some(CustomerId(i64::from(at % customers) + 1)),
            subject: format!("inv_{at}"),
            payload: json!({ "number": format!("INV-{at}"), "total_minor": 2379, "currency": world::CURRENCY }),
        });
        billing::event::publish_all(&mut transaction, new.collect(), now_ms).await?;
        transaction.commit().await?;
    }
    let published = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let dispatched = channel::dispatch(database, now_ms).await?;
    let told = begun.elapsed().as_secs_f64();
    ensure!(
        dispatched.events == u64::from(number),
        "{} events were dispatched, not {number}",
        dispatched.events
    );
    let name = server.name();
    Ok(vec![
        EventRow::new(
            format!("outbox, {name}: published, {PER_TRANSACTION} a commit"),
            u64::from(number),
            published,
        ),
        EventRow::new(
            format!("outbox, {name}: made out as notifications and mails"),
            dispatched.events,
            told,
        ),
    ])
}
