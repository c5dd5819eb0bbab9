//! The trial balance: every account, debits against credits, one table per currency (B1), and what a check of the books
//! found.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::ledger::{self, AccountKind, Balance, LedgerReport, TrialBalance};
use schemas::ids::CustomerId;
use schemas::money::{Currency, Money, MoneyError};
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
    owes: Money,
    credit: Money,
}

/// The accounts of one kind that each customer has one of.
struct Side {
    what: &'static str,
    kind: &'static str,
    /// With a balance that is not zero.
    customers: usize,
    debit: Money,
    credit: Money,
}

impl Side {
    fn new(what: &'static str, currency: Currency) -> Side {
        let zero = Money::zero(currency);
        Side {
            what,
            kind: "",
            customers: 0,
            debit: zero,
            credit: zero,
        }
    }

    fn add(&mut self, kind: &'static str, balance: Money) -> Result<(), MoneyError> {
        self.kind = kind;
        self.customers += usize::from(balance.minor != 0);
        if balance.minor >= 0 {
            self.debit = self.debit.checked_add(balance)?;
        } else {
            self.credit = self.credit.checked_add(balance.checked_neg()?)?;
        }
        Ok(())
    }

    fn row(&self) -> AccountRow {
        let shown = |sum: Money| (sum.minor != 0).then(|| format::amount(sum));
        AccountRow {
            name: format!(
                "{} of {} customer{}",
                self.what,
                self.customers,
                if self.customers == 1 { "" } else { "s" }
            ),
            kind: self.kind,
            debit: shown(self.debit),
            credit: shown(self.credit),
        }
    }
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

pub(crate) async fn show(State(state): State<AppState>, Finance(who): Finance) -> Result<Response, PageError> {
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
    let overflow = |error: MoneyError| Failure::internal("add balances")(error.into());
    let difference = trial
        .credits
        .checked_neg()
        .and_then(|credits| trial.debits.checked_add(credits))
        .map_err(overflow)?;
    let is_balanced = trial.is_balanced();
    let mut accounts = Vec::new();
    // What customers owe and what they have ahead are two sides: each is one line, whoever's accounts they are.
    let mut sides = [
        Side::new("receivables", trial.currency),
        Side::new("credit", trial.currency),
    ];
    let mut customers: BTreeMap<CustomerId, (Money, Money)> = BTreeMap::new();
    for Balance { account, balance } in trial.balances {
        let Some(customer) = account.customer else {
            accounts.push(account_row(account.name, account.kind.name(), balance)?);
            continue;
        };
        let is_credit = account.kind != AccountKind::Asset;
        sides[usize::from(is_credit)]
            .add(account.kind.name(), balance)
            .map_err(overflow)?;
        let zero = Money::zero(trial.currency);
        let (owes, credit) = customers.entry(customer).or_insert((zero, zero));
        if is_credit {
            *credit = balance
                .checked_neg()
                .and_then(|ahead| credit.checked_add(ahead))
                .map_err(overflow)?;
        } else {
            *owes = owes.checked_add(balance).map_err(overflow)?;
        }
    }
    for side in sides.into_iter().rev().filter(|side| side.customers > 0) {
        accounts.insert(0, side.row());
    }
    let mut rows = Vec::new();
    for (customer, (owes, credit)) in customers {
        if owes.minor != 0 || credit.minor != 0 {
            rows.push(CustomerRow {
                customer,
                name: customer_name(state, customer).await?,
                owes,
                credit,
            });
        }
    }
    rows.sort_by(|a, b| b.owes.minor.cmp(&a.owes.minor).then_with(|| a.name.cmp(&b.name)));
    Ok(Trial {
        currency: trial.currency.to_string(),
        accounts,
        customers: rows,
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
