//! Double entry (B1). Debits are positive, credits negative; the postings of a transaction sum to zero in each currency.
//!
//! Transactions are only ever added. Balances are sums of postings, computed when asked for and stored nowhere. Each
//! transaction has a key that says what caused it (`invoice:inv_7`): posting the same again changes nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use schemas::bulk;
use schemas::db::next_ids;
use schemas::ids::{CustomerId, InvoiceId, PaymentId, RefundId, TransactionId};
use schemas::money::{Currency, Money, MoneyError};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

/// Postings of one transaction at most.
pub const MAX_POSTINGS: usize = 1000;
/// In one posting at most, in minor units: thousands of them still add up within 64 bits.
pub const MAX_POSTING_MINOR: i64 = 1_000_000_000_000_000;

/// Why something was not posted or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("add amounts")]
    Money(#[from] MoneyError),
    #[error("B1: the postings of {key} sum to {sum}, not to zero")]
    Unbalanced { key: String, sum: Money },
    #[error("{key} has {postings} postings, not between 1 and {MAX_POSTINGS}")]
    Postings { key: String, postings: usize },
    #[error("{key} posts {amount} to {account}, an account in another currency")]
    AccountCurrency {
        key: String,
        account: String,
        amount: Money,
    },
    #[error("{key} posts {amount}: {max} is the most in one posting")]
    TooLarge { key: String, amount: Money, max: Money },
    #[error("{key} was posted before with other amounts")]
    KeyReused { key: String },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    LedgerError: "ledger";
    of [Database]
    source []
    Refused: TooLarge = "too_large";
    Fault:
        Money = "money", Unbalanced = "unbalanced", Postings = "postings", AccountCurrency = "account_currency",
        Corrupt = "corrupt", KeyReused = "key_reused";
}

/// Which side an account grows on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    Asset,
    Liability,
    Income,
    Expense,
}

impl AccountKind {
    pub fn name(self) -> &'static str {
        match self {
            AccountKind::Asset => "asset",
            AccountKind::Liability => "liability",
            AccountKind::Income => "income",
            AccountKind::Expense => "expense",
        }
    }
}

impl std::str::FromStr for AccountKind {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<AccountKind, LedgerError> {
        match text {
            "asset" => Ok(AccountKind::Asset),
            "liability" => Ok(AccountKind::Liability),
            "income" => Ok(AccountKind::Income),
            "expense" => Ok(AccountKind::Expense),
            _ => Err(LedgerError::Corrupt {
                what: "account kind",
                text: text.to_owned(),
            }),
        }
    }
}

/// An account, named by what it holds: `receivable:cus_1:USD`. It comes to be with its first posting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Account {
    pub name: String,
    pub kind: AccountKind,
    pub currency: Currency,
    pub customer: Option<CustomerId>,
}

impl Account {
    /// What a customer owes.
    pub fn receivable(customer: CustomerId, currency: Currency) -> Account {
        Account {
            name: format!("receivable:{customer}:{currency}"),
            kind: AccountKind::Asset,
            currency,
            customer: Some(customer),
        }
    }

    /// Earned by base prices.
    pub fn revenue_base(currency: Currency) -> Account {
        Account::shared("revenue:base", AccountKind::Income, currency)
    }

    /// Earned by usage over what is included, adjustments too.
    pub fn revenue_overage(currency: Currency) -> Account {
        Account::shared("revenue:overage", AccountKind::Income, currency)
    }

    /// Earned by add-ons.
    pub fn revenue_addon(currency: Currency) -> Account {
        Account::shared("revenue:addon", AccountKind::Income, currency)
    }

    /// Earned by anything else.
    pub fn revenue_other(currency: Currency) -> Account {
        Account::shared("revenue:other", AccountKind::Income, currency)
    }

    /// Given away by coupons: income that was not had, so its balance is a debit.
    pub fn discounts(currency: Currency) -> Account {
        Account::shared("discounts", AccountKind::Income, currency)
    }

    /// A customer's wallet: what we owe in services or money.
    pub fn credit(customer: CustomerId, currency: Currency) -> Account {
        Account {
            name: format!("credit:{customer}:{currency}"),
            kind: AccountKind::Liability,
            currency,
            customer: Some(customer),
        }
    }

    /// Money that a gateway (`stripe`, `manual` …) has received for us.
    pub fn cash(gateway: &str, currency: Currency) -> Account {
        Account::shared(&format!("cash:{gateway}"), AccountKind::Asset, currency)
    }

    /// Money that gateways hold back until a dispute is decided.
    pub fn disputes(currency: Currency) -> Account {
        Account::shared("disputes", AccountKind::Asset, currency)
    }

    /// Written off.
    pub fn bad_debt(currency: Currency) -> Account {
        Account::shared("bad_debt", AccountKind::Expense, currency)
    }

    /// Credit that was given and not paid for.
    pub fn promotion(currency: Currency) -> Account {
        Account::shared("promotion", AccountKind::Expense, currency)
    }

    /// Owed to the tax office.
    pub fn tax(currency: Currency) -> Account {
        Account::shared("tax", AccountKind::Liability, currency)
    }

    fn shared(name: &str, kind: AccountKind, currency: Currency) -> Account {
        Account {
            name: format!("{name}:{currency}"),
            kind,
            currency,
            customer: None,
        }
    }
}

/// An amount on an account: positive debits, negative credits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posting {
    pub account: Account,
    pub amount: Money,
}

/// A transaction to be posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTransaction {
    /// What caused it; a cause is posted once.
    pub idempotency_key: String,
    /// Whose books it is in, and which invoice, payment and refund it is about, where it is about one.
    pub customer: Option<CustomerId>,
    pub invoice: Option<InvoiceId>,
    pub payment: Option<PaymentId>,
    pub refund: Option<RefundId>,
    pub description: String,
    pub posted_at_ms: i64,
    pub postings: Vec<Posting>,
}

/// An account with the sum of its postings.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Balance {
    pub account: Account,
    pub balance: Money,
}

/// All accounts of one currency; debits equal credits (B1).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct TrialBalance {
    pub currency: Currency,
    pub balances: Vec<Balance>,
    /// Sum of the positive balances.
    pub debits: Money,
    /// Sum of the negative balances, as a positive amount.
    pub credits: Money,
}

impl TrialBalance {
    pub fn is_balanced(&self) -> bool {
        self.debits == self.credits
    }
}

/// Something that must never be.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Violation {
    /// Which invariant of ARCHITECTURE.md: `B1`, `B2`, `B4`, `B6`.
    pub invariant: &'static str,
    pub what: String,
}

/// What a check of the books looked at and found.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct LedgerReport {
    pub transactions: u64,
    pub postings: u64,
    pub invoices: u64,
    pub payments: u64,
    pub violations: Vec<Violation>,
}

impl LedgerReport {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Posts a transaction, or finds it posted already.
///
/// # Errors
/// When the postings do not sum to zero in each currency, or the key stands for other postings.
pub async fn post(connection: &mut AnyConnection, new: &NewTransaction) -> Result<TransactionId, LedgerError> {
    let ids = post_all(connection, std::slice::from_ref(new)).await?;
    // One was given, so one was posted.
    Ok(ids[0])
}

/// [`post`] of many, with a few statements for all of them: their ids in the same order.
///
/// # Errors
/// As [`post`]; then the caller's transaction is to be given up.
pub async fn post_all(
    connection: &mut AnyConnection,
    transactions: &[NewTransaction],
) -> Result<Vec<TransactionId>, LedgerError> {
    transactions.iter().try_for_each(check_balanced)?;
    // The sequence's row lock makes concurrent writers take turns, so that the look-ups below see what they wrote.
    let count = i64::try_from(transactions.len()).unwrap_or(i64::MAX);
    let first = next_ids(connection, "ledger_transaction", count).await?;
    let select = "SELECT idempotency_key, id FROM ledger_transactions WHERE idempotency_key IN ({values})";
    let rows = bulk::rows_of_values(connection, select, transactions, |query, new| {
        query.bind(&new.idempotency_key)
    })
    .await?;
    let mut earlier: HashMap<String, TransactionId> = HashMap::new();
    for row in &rows {
        earlier.insert(row.try_get(0)?, TransactionId(row.try_get(1)?));
    }
    let mut ids = Vec::with_capacity(transactions.len());
    let (mut posted, mut again) = (Vec::new(), Vec::new());
    for (new, id) in transactions.iter().zip((first..).map(TransactionId)) {
        match earlier.entry(new.idempotency_key.clone()) {
            Entry::Occupied(before) => {
                again.push((new, *before.get()));
                ids.push(*before.get());
            }
            Entry::Vacant(entry) => {
                posted.push((new, *entry.insert(id)));
                ids.push(id);
            }
        }
    }
    insert(connection, &posted).await?;
    for (new, before) in again {
        same_postings(connection, before, new).await?;
    }
    Ok(ids)
}

async fn insert(
    connection: &mut AnyConnection,
    posted: &[(&NewTransaction, TransactionId)],
) -> Result<(), LedgerError> {
    let sql = "INSERT INTO ledger_transactions (id, idempotency_key, customer_id, invoice_id, payment_id, refund_id, description, \
               posted_at_ms) VALUES {rows}";
    bulk::for_rows(connection, sql, 8, posted, |query, (new, id)| {
        query
            .bind(id.0)
            .bind(&new.idempotency_key)
            .bind(new.customer.map(|customer| customer.0))
            .bind(new.invoice.map(|invoice| invoice.0))
            .bind(new.payment.map(|payment| payment.0))
            .bind(new.refund.map(|refund| refund.0))
            .bind(&new.description)
            .bind(new.posted_at_ms)
    })
    .await?;
    let accounts = account_ids(connection, posted).await?;
    let mut postings = Vec::new();
    for (new, id) in posted {
        for (position, posting) in (1i64..).zip(&new.postings) {
            postings.push((id.0, position, accounts[posting.account.name.as_str()], posting.amount));
        }
    }
    let sql =
        "INSERT INTO ledger_postings (transaction_id, position, account_id, currency, amount_minor) VALUES {rows}";
    bulk::for_rows(
        connection,
        sql,
        5,
        &postings,
        |query, (id, position, account, amount)| {
            query
                .bind(id)
                .bind(position)
                .bind(account)
                .bind(amount.currency.code())
                .bind(amount.minor)
        },
    )
    .await?;
    Ok(())
}

/// The accounts that are posted to, by name; those that are not there yet are made.
async fn account_ids<'a>(
    connection: &mut AnyConnection,
    posted: &[(&'a NewTransaction, TransactionId)],
) -> Result<HashMap<&'a str, i64>, LedgerError> {
    let accounts: BTreeMap<&'a str, &'a Account> = posted
        .iter()
        .flat_map(|(new, _)| &new.postings)
        .map(|posting| (posting.account.name.as_str(), &posting.account))
        .collect();
    let wanted: Vec<&Account> = accounts.into_values().collect();
    let select = "SELECT name, id FROM ledger_accounts WHERE name IN ({values})";
    let rows = bulk::rows_of_values(connection, select, &wanted, |query, account| query.bind(&account.name)).await?;
    let mut known: HashMap<String, i64> = HashMap::new();
    for row in &rows {
        known.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let missing: Vec<&Account> = wanted
        .iter()
        .copied()
        .filter(|account| !known.contains_key(&account.name))
        .collect();
    let mut made: Vec<(i64, &Account)> = Vec::new();
    if !missing.is_empty() {
        let count = i64::try_from(missing.len()).unwrap_or(i64::MAX);
        let first = next_ids(connection, "ledger_account", count).await?;
        made = (first..).zip(missing).collect();
        let sql = "INSERT INTO ledger_accounts (id, name, kind, currency, customer_id) VALUES {rows}";
        bulk::for_rows(connection, sql, 5, &made, |query, (id, account)| {
            query
                .bind(id)
                .bind(&account.name)
                .bind(account.kind.name())
                .bind(account.currency.code())
                .bind(account.customer.map(|customer| customer.0))
        })
        .await?;
    }
    let mut ids: HashMap<&str, i64> = made.iter().map(|(id, account)| (account.name.as_str(), *id)).collect();
    for account in wanted {
        if let Some(id) = known.get(&account.name) {
            ids.insert(account.name.as_str(), *id);
        }
    }
    Ok(ids)
}

/// Every account with its balance, by name.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn balances(db: impl AnyExecutor<'_>) -> Result<Vec<Balance>, LedgerError> {
    let rows = sqlx::query(
        "SELECT a.name, a.kind, a.currency, a.customer_id, CAST(coalesce(sum(p.amount_minor), 0) AS BIGINT) AS balance_minor \
         FROM ledger_accounts a LEFT JOIN ledger_postings p ON p.account_id = a.id \
         GROUP BY a.id, a.name, a.kind, a.currency, a.customer_id ORDER BY a.name",
    )
    .fetch_all(db)
    .await?;
    let mut balances = Vec::with_capacity(rows.len());
    for row in &rows {
        let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
        let customer: Option<i64> = row.try_get("customer_id")?;
        balances.push(Balance {
            account: Account {
                name: row.try_get("name")?,
                kind: row.try_get::<String, _>("kind")?.parse()?,
                currency,
                customer: customer.map(CustomerId),
            },
            balance: Money::new(row.try_get("balance_minor")?, currency),
        });
    }
    Ok(balances)
}

/// The balance of one account; zero before its first posting.
///
/// # Errors
/// As the database answers.
pub async fn balance(db: impl AnyExecutor<'_>, account: &Account) -> Result<Money, LedgerError> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(sum(p.amount_minor), 0) AS BIGINT) FROM ledger_postings p \
         JOIN ledger_accounts a ON a.id = p.account_id WHERE a.name = $1",
    )
    .bind(&account.name)
    .fetch_one(db)
    .await?;
    Ok(Money::new(row.try_get(0)?, account.currency))
}

/// The trial balance of each currency.
///
/// # Errors
/// As the database answers, or when a sum does not fit.
pub async fn trial_balance(db: impl AnyExecutor<'_>) -> Result<Vec<TrialBalance>, LedgerError> {
    let mut by_currency: BTreeMap<Currency, Vec<Balance>> = BTreeMap::new();
    for balance in balances(db).await? {
        by_currency.entry(balance.account.currency).or_default().push(balance);
    }
    let mut trials = Vec::with_capacity(by_currency.len());
    for (currency, balances) in by_currency {
        let mut debits = Money::zero(currency);
        let mut credits = Money::zero(currency);
        for Balance { balance, .. } in &balances {
            if balance.minor >= 0 {
                debits = debits.checked_add(*balance)?;
            } else {
                credits = credits.checked_add(balance.checked_neg()?)?;
            }
        }
        trials.push(TrialBalance {
            currency,
            balances,
            debits,
            credits,
        });
    }
    Ok(trials)
}

fn check_balanced(new: &NewTransaction) -> Result<(), LedgerError> {
    let key = || new.idempotency_key.clone();
    if !(1..=MAX_POSTINGS).contains(&new.postings.len()) {
        return Err(LedgerError::Postings {
            key: key(),
            postings: new.postings.len(),
        });
    }
    let mut sums: BTreeMap<Currency, Money> = BTreeMap::new();
    for Posting { account, amount } in &new.postings {
        if account.currency != amount.currency {
            return Err(LedgerError::AccountCurrency {
                key: key(),
                account: account.name.clone(),
                amount: *amount,
            });
        }
        if !(-MAX_POSTING_MINOR..=MAX_POSTING_MINOR).contains(&amount.minor) {
            return Err(LedgerError::TooLarge {
                key: key(),
                amount: *amount,
                max: Money::new(MAX_POSTING_MINOR, amount.currency),
            });
        }
        let sum = sums.entry(amount.currency).or_insert(Money::zero(amount.currency));
        *sum = sum.checked_add(*amount)?;
    }
    match sums.into_values().find(|sum| sum.minor != 0) {
        Some(sum) => Err(LedgerError::Unbalanced { key: key(), sum }),
        None => Ok(()),
    }
}

async fn same_postings(
    connection: &mut AnyConnection,
    earlier: TransactionId,
    new: &NewTransaction,
) -> Result<(), LedgerError> {
    let rows = sqlx::query(
        "SELECT a.name, p.amount_minor FROM ledger_postings p JOIN ledger_accounts a ON a.id = p.account_id \
         WHERE p.transaction_id = $1 ORDER BY p.position",
    )
    .bind(earlier.0)
    .fetch_all(connection)
    .await?;
    let mut posted = Vec::with_capacity(rows.len());
    for row in &rows {
        posted.push((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?));
    }
    let asked = new
        .postings
        .iter()
        .map(|posting| (posting.account.name.clone(), posting.amount.minor));
    if !posted.into_iter().eq(asked) {
        return Err(LedgerError::KeyReused {
            key: new.idempotency_key.clone(),
        });
    }
    Ok(())
}

/// The transaction that a cause was posted as, if it was.
///
/// # Errors
/// As the database answers.
pub async fn posted(db: impl AnyExecutor<'_>, idempotency_key: &str) -> Result<Option<TransactionId>, LedgerError> {
    let row = sqlx::query("SELECT id FROM ledger_transactions WHERE idempotency_key = $1")
        .bind(idempotency_key)
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?.map(TransactionId))
}

mod check;
mod read;

pub use check::check;
pub use read::{
    MAX_PAGE, Owed, Posted, PostedTransaction, StatementLine, TransactionFilter, owed, posted_since, statement,
    transactions,
};

#[cfg(test)]
mod tests;
