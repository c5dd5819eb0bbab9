//! The ledger's transactions with their postings, by account, customer and day.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::ledger::{self, PostedTransaction, TransactionFilter};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemas::money::MoneyError;
use sqlx::Row as _;

use super::PATH;
use super::customers::url_encoded;
use crate::auth::Finance;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::query::{PageQuery, filter, wrong};
use crate::shell::Shell;
use crate::state::AppState;

/// Transactions on one page.
const PAGE_TRANSACTIONS: i64 = 50;
/// Accounts that are proposed.
const MAX_ACCOUNTS: i64 = 500;

#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct TransactionsQuery {
    #[serde(default)]
    account: String,
    #[serde(default)]
    customer: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    before: String,
}

pub(super) struct PostingRow {
    pub(super) account: String,
    pub(super) debit: Option<String>,
    pub(super) credit: Option<String>,
}

pub(super) struct TransactionRow {
    pub(super) id: String,
    pub(super) posted: String,
    /// Of a payment whose value date is not the day on which it was posted.
    pub(super) value_date: Option<String>,
    pub(super) description: String,
    pub(super) invoice: Option<String>,
    pub(super) payment: Option<String>,
    pub(super) postings: Vec<PostingRow>,
}

/// The value date in words, where it is another day than that of the posting.
pub(super) fn other_day(value_at_ms: Option<i64>, posted_at_ms: i64) -> Option<String> {
    let day = |at_ms: i64| format::date(at_ms, &TimeZone::UTC);
    value_at_ms.map(day).filter(|value| *value != day(posted_at_ms))
}

pub(super) fn transaction_rows(found: &[PostedTransaction]) -> Result<Vec<TransactionRow>, Failure> {
    let money = |error: MoneyError| Failure::internal("read a posting")(error.into());
    let mut rows = Vec::with_capacity(found.len());
    for transaction in found {
        let mut postings = Vec::with_capacity(transaction.postings.len());
        for posted in &transaction.postings {
            let (debit, credit) = if posted.amount.minor >= 0 {
                (Some(posted.amount.to_string()), None)
            } else {
                (None, Some(posted.amount.checked_neg().map_err(money)?.to_string()))
            };
            postings.push(PostingRow {
                account: posted.account.clone(),
                debit,
                credit,
            });
        }
        rows.push(TransactionRow {
            id: transaction.id.to_string(),
            posted: format::minute(transaction.posted_at_ms, &TimeZone::UTC),
            value_date: other_day(transaction.value_at_ms, transaction.posted_at_ms),
            description: transaction.description.clone(),
            invoice: transaction.invoice.map(|invoice| invoice.to_string()),
            payment: transaction.payment.map(|payment| payment.to_string()),
            postings,
        });
    }
    Ok(rows)
}

#[derive(Template)]
#[template(path = "finance_transactions.html")]
struct TransactionsPage {
    shell: Shell,
    query: TransactionsQuery,
    accounts: Vec<String>,
    rows: Vec<TransactionRow>,
    older_href: Option<String>,
}

/// Midnight of the day that a parameter names, in UTC, `days` later.
pub(super) fn midnight(name: &str, text: &str, days: i64) -> Result<Option<i64>, Failure> {
    const EXPECTED: &str = "a day like 2026-11-30";
    let Some(date) = filter::<Date>(name, text, EXPECTED)? else {
        return Ok(None);
    };
    let zoned = date
        .to_zoned(TimeZone::UTC)
        .map_err(|_| wrong(name, text.trim(), EXPECTED))?;
    Ok(Some(
        zoned.timestamp().as_millisecond() + days * schemas::window::DAY_MS,
    ))
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Finance(who): Finance,
    PageQuery(query): PageQuery<TransactionsQuery>,
) -> Result<Response, PageError> {
    let account = query.account.trim();
    let wanted = TransactionFilter {
        account: (!account.is_empty()).then_some(account),
        customer: filter("customer", &query.customer, "an id such as cus_7")?,
        from_ms: midnight("from", &query.from, 0)?,
        to_ms: midnight("to", &query.to, 1)?,
        before: filter("before", &query.before, "the id of a transaction")?,
        ..TransactionFilter::default()
    };
    let mut found = ledger::transactions(state.db().pool(), wanted, PAGE_TRANSACTIONS + 1)
        .await
        .map_err(BillingError::from)?;
    let most = usize::try_from(PAGE_TRANSACTIONS).unwrap_or(usize::MAX);
    let has_older = found.len() > most;
    found.truncate(most);
    let older_href = found.last().filter(|_| has_older).map(|last| {
        format!(
            "{PATH}/transactions?account={}&customer={}&from={}&to={}&before={}",
            url_encoded(account),
            url_encoded(query.customer.trim()),
            url_encoded(query.from.trim()),
            url_encoded(query.to.trim()),
            last.id
        )
    });
    let accounts = sqlx::query("SELECT name FROM ledger_accounts ORDER BY customer_id IS NOT NULL, name LIMIT $1")
        .bind(MAX_ACCOUNTS)
        .fetch_all(state.db().pool())
        .await?;
    let accounts = accounts.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    page(&TransactionsPage {
        shell: Shell::new(&who, "Transactions", PATH),
        rows: transaction_rows(&found)?,
        query,
        accounts,
        older_href,
    })
}
