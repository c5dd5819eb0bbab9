//! The trial balance: every account, debits against credits, one table per currency (B1), and what a check of the books
//! found.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::ledger::{self, Balance, LedgerReport, TrialBalance};
use schemas::ids::CustomerId;
use schemas::money::Money;
use sqlx::Row as _;

use super::PATH;
use crate::auth::Finance;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;

/// One account, or the sum of those of all customers.
struct AccountRow {
    name: String,
    kind: &'static str,
    /// Without the currency, which heads the table.
    debit: Option<String>,
    credit: Option<String>,
}

struct CustomerRow {
    customer: CustomerId,
    name: String,
    balance: Money,
}

/// One currency.
struct Trial {
    currency: String,
    accounts: Vec<AccountRow>,
    customers: Vec<CustomerRow>,
    debits: String,
    credits: String,
    difference: Money,
    is_balanced: bool,
}

#[derive(Template)]
#[template(path = "finance_ledger.html")]
struct LedgerPage {
    shell: Shell,
    trials: Vec<Trial>,
    report: LedgerReport,
    transactions: String,
    postings: String,
    invoices: String,
}

pub(super) async fn show(State(state): State<AppState>, Finance(who): Finance) -> Result<Response, PageError> {
    let billing = |error: ledger::LedgerError| Failure::from(BillingError::from(error));
    let balances = ledger::trial_balance(state.db().pool()).await.map_err(billing)?;
    let report = ledger::check(state.db()).await.map_err(billing)?;
    let mut trials = Vec::with_capacity(balances.len());
    for trial in balances {
        trials.push(read_trial(&state, trial).await?);
    }
    page(&LedgerPage {
        shell: Shell::new(&who, "Trial balance", PATH),
        transactions: format::grouped(report.transactions),
        postings: format::grouped(report.postings),
        invoices: format::grouped(report.invoices),
        report,
        trials,
    })
}

async fn read_trial(state: &AppState, trial: TrialBalance) -> Result<Trial, Failure> {
    let overflow = |error: schemas::money::MoneyError| Failure::internal("add balances")(error.into());
    let difference = trial
        .credits
        .checked_neg()
        .and_then(|credits| trial.debits.checked_add(credits))
        .map_err(overflow)?;
    let is_balanced = trial.is_balanced();
    let mut accounts = Vec::new();
    let mut customers = Vec::new();
    let (mut owed, mut owing) = (Money::zero(trial.currency), Money::zero(trial.currency));
    for Balance { account, balance } in trial.balances {
        let Some(customer) = account.customer else {
            accounts.push(account_row(account.name, account.kind.name(), balance)?);
            continue;
        };
        if balance.minor >= 0 {
            owed = owed.checked_add(balance).map_err(overflow)?;
        } else {
            owing = owing
                .checked_add(balance.checked_neg().map_err(overflow)?)
                .map_err(overflow)?;
        }
        customers.push(CustomerRow {
            customer,
            name: customer_name(state, customer).await?,
            balance,
        });
    }
    customers.sort_by(|a, b| b.balance.minor.cmp(&a.balance.minor).then_with(|| a.name.cmp(&b.name)));
    if !customers.is_empty() {
        let row = AccountRow {
            name: format!("receivables of {} customers", customers.len()),
            kind: "asset",
            debit: (owed.minor != 0).then(|| format::amount(owed)),
            credit: (owing.minor != 0).then(|| format::amount(owing)),
        };
        accounts.insert(0, row);
    }
    Ok(Trial {
        currency: trial.currency.to_string(),
        accounts,
        customers,
        debits: format::amount(trial.debits),
        credits: format::amount(trial.credits),
        difference,
        is_balanced,
    })
}

fn account_row(name: String, kind: &'static str, balance: Money) -> Result<AccountRow, Failure> {
    let (debit, credit) = if balance.minor >= 0 {
        (Some(format::amount(balance)), None)
    } else {
        let credit = balance
            .checked_neg()
            .map_err(|error| Failure::internal("read a balance")(error.into()))?;
        (None, Some(format::amount(credit)))
    };
    Ok(AccountRow {
        name,
        kind,
        debit,
        credit,
    })
}

async fn customer_name(state: &AppState, customer: CustomerId) -> Result<String, Failure> {
    let row = sqlx::query("SELECT name FROM customers WHERE id = $1")
        .bind(customer.0)
        .fetch_optional(state.db().pool())
        .await?;
    match row {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(customer.to_string()),
    }
}
