//! What staff do by a form, and how it is refused.
//!
//! ```text
//! POST ─ role ─ CSRF token ─▶ begin: claims the form's token, in the transaction of the action
//!                               │ claimed before ─▶ nothing is done twice: as if it were done now
//!                               ▼
//!                             the action, its entry in the audit log ─▶ commit ─▶ redirect
//!                               │ refused ─▶ nothing is kept: the page again (422), with what was typed and what to do
//! ```
//!
//! Every change has its entry in the audit log, in the same transaction.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use activity::act::{Act, By, Note, Steps};
use activity::audit::{Actor, AuditReceipt};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use billing::action::NewRequest;
use billing::approval::Gate;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use schemas::error_class::ErrorClass;
use schemas::ids::{ApprovalId, UserId};
use schemas::money::{Currency, Money};
use sqlx::AnyConnection;

use crate::auth::SignedIn;
use crate::error::{Failure, PageError};
use crate::error_table;
use crate::once;
use crate::outcome;
use crate::state::AppState;

/// What was typed into a form.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Without white space around it; empty where it was not sent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |text| text.trim())
    }

    /// A box that was ticked.
    pub(crate) fn is_ticked(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// An amount in major units, with no more digits than the currency has.
    pub(crate) fn money(&self, name: &str, currency: Currency) -> Result<Money, ActionFailure> {
        let text = self.text(name);
        let digits = currency.minor_digits();
        let refuse = || said(format!("An amount is like {}, not {text:?}.", example(currency)));
        let value = plain_decimal(text).ok_or_else(refuse)?;
        if value.normalize().scale() > digits {
            return Err(said(format!(
                "{currency} has {digits} digits after the point, not {text:?}."
            )));
        }
        Money::exact_from_major(value, currency).map_err(|_| refuse())
    }

    pub(crate) fn decimal(&self, name: &str, what: &str) -> Result<Decimal, ActionFailure> {
        let text = self.text(name);
        plain_decimal(text)
            .ok_or_else(|| said(format!("{what} is a decimal number such as 19 or 8.875, not {text:?}.")))
    }

    pub(crate) fn integer(&self, name: &str, what: &str) -> Result<i64, ActionFailure> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| said(format!("{what} is a whole number, not {text:?}.")))
    }

    /// A whole number, or nothing.
    pub(crate) fn optional_integer(&self, name: &str, what: &str) -> Result<Option<i64>, ActionFailure> {
        match self.text(name) {
            "" => Ok(None),
            _ => self.integer(name, what).map(Some),
        }
    }

    pub(crate) fn id<T: std::str::FromStr<Err = schemas::ids::IdError>>(&self, name: &str) -> Result<T, ActionFailure> {
        self.text(name).parse().map_err(ActionFailure::from)
    }

    /// Midnight of a day in a zone; nothing where none was chosen.
    pub(crate) fn day_ms(&self, name: &str, zone: &TimeZone) -> Result<Option<i64>, ActionFailure> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let date: Date = text
            .parse()
            .map_err(|_| said(format!("A day is like 2026-11-30, not {text:?}.")))?;
        let start = date.to_zoned(zone.clone()).map_err(ActionFailure::from)?;
        Ok(Some(start.timestamp().as_millisecond()))
    }

    /// A day of the calendar; nothing where none was chosen.
    pub(crate) fn optional_date(&self, name: &str) -> Result<Option<Date>, ActionFailure> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let date = text.parse();
        date.map(Some)
            .map_err(|_| said(format!("A day is like 2026-11-30, not {text:?}.")))
    }

    /// An instant in UTC, as a field of type `datetime-local` sends it.
    pub(crate) fn utc_ms(&self, name: &str) -> Result<i64, ActionFailure> {
        let text = self.text(name);
        let at: DateTime = text
            .parse()
            .map_err(|_| said(format!("A time is like 2026-11-30T04:05, not {text:?}.")))?;
        Ok(at.to_zoned(TimeZone::UTC)?.timestamp().as_millisecond())
    }
}

/// A number of digits with a point at most, as people write amounts: not `1e1`.
fn plain_decimal(text: &str) -> Option<Decimal> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
    is_plain.then(|| text.parse().ok()).flatten()
}

fn example(currency: Currency) -> String {
    Money::new(12_345, currency).to_major().to_string()
}

/// Why an action was not done.
#[derive(Debug)]
pub(crate) enum ActionFailure {
    /// By a rule, told to who asked.
    ByRule(String),
    /// Something is broken.
    Failed(Failure),
}

/// A refusal in words.
pub(crate) fn said(text: impl Into<String>) -> ActionFailure {
    ActionFailure::ByRule(text.into())
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for ActionFailure {
    /// What broke is a failure; everything else is a rule, and its own words say which. What has no class is a failure: nobody is
    /// told to type something else because a disk is full.
    fn from(error: E) -> ActionFailure {
        let error: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
        let error = match error.downcast::<Failure>() {
            Ok(failure) => {
                return match *failure {
                    Failure::Refused { words, .. } => ActionFailure::ByRule(words),
                    failure => ActionFailure::Failed(failure),
                };
            }
            Err(error) => error,
        };
        match error_table::classify(error.as_ref()).class {
            ErrorClass::Fault => ActionFailure::Failed(Failure::internal("do what a form asked for")(error)),
            ErrorClass::NotFound | ErrorClass::Refused | ErrorClass::Conflict | ErrorClass::Limit => {
                ActionFailure::ByRule(outcome::words(error.as_ref()))
            }
        }
    }
}

/// What a form shows: what is stored, or what was typed and why that was refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    form: String,
    problem: String,
    fields: Fields,
    /// The first field of the refused form has taken the focus.
    has_focus: Arc<AtomicBool>,
}

impl Draft {
    /// Of a form that was refused; a failure is passed on.
    pub(crate) fn refused(form: impl Into<String>, refused: ActionFailure, fields: Fields) -> Result<Draft, PageError> {
        match refused {
            ActionFailure::ByRule(problem) => Ok(Draft {
                form: form.into(),
                problem,
                fields,
                has_focus: Arc::default(),
            }),
            ActionFailure::Failed(failure) => Err(failure.into()),
        }
    }

    /// Why this form was refused, if it was.
    pub(crate) fn problem(&self, form: &str) -> Option<&str> {
        (!self.problem.is_empty() && self.form == form).then_some(self.problem.as_str())
    }

    /// The form that was refused and why, for the top of its page.
    pub(crate) fn refusal(&self) -> Option<(&str, &str)> {
        (!self.problem.is_empty()).then_some((self.form.as_str(), self.problem.as_str()))
    }

    /// Whether a field takes the focus: the first one of the refused form that asks.
    pub(crate) fn takes_focus(&self, form: &str) -> bool {
        self.problem(form).is_some() && !self.has_focus.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn value<'a>(&'a self, form: &str, name: &str, stored: &'a str) -> &'a str {
        match self.problem(form) {
            Some(_) => self.fields.text(name),
            None => stored,
        }
    }

    pub(crate) fn is_ticked(&self, form: &str, name: &str, stored: bool) -> bool {
        match self.problem(form) {
            Some(_) => self.fields.is_ticked(name),
            None => stored,
        }
    }

    /// The status of the page that shows it.
    pub(crate) fn answer(&self, page: Response) -> Response {
        if self.problem.is_empty() {
            return page;
        }
        (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
    }
}

/// An action under way: an act that begins with a form's token.
#[derive(Debug)]
pub(crate) struct Action {
    act: Act,
    /// The email address of who acts.
    pub(crate) actor: String,
    pub(crate) user: UserId,
    pub(crate) ip: String,
    pub(crate) now_ms: i64,
}

impl Action {
    /// Begins; `None` when this very form was sent before.
    pub(crate) async fn begin(
        state: &AppState,
        who: &SignedIn,
        ip: IpAddr,
        fields: &Fields,
    ) -> Result<Option<Action>, ActionFailure> {
        let token = fields.text("form_token");
        if !once::is_token(token) {
            return Err(said(
                "This form is too old. Look at the values below and send it again.",
            ));
        }
        let mut act = begin(state, who, ip).await?;
        let now_ms = act.now_ms();
        if !once::take(act.connection(), token, now_ms).await? {
            return Ok(None);
        }
        Ok(Some(Action {
            act,
            actor: who.user.email.clone(),
            user: who.user.id,
            ip: ip.to_string(),
            now_ms,
        }))
    }

    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        self.act.connection()
    }

    /// The connection with who acts, for what keeps that too.
    pub(crate) fn parts(&mut self) -> (&mut AnyConnection, Actor<'_>) {
        self.act.parts()
    }

    /// Records what was done, with the values before and after, and commits both.
    pub(crate) async fn commit(self, note: Note) -> Result<(), ActionFailure> {
        self.act.commit(note).await?;
        Ok(())
    }

    /// Commits what has recorded itself.
    pub(crate) async fn commit_entered(self, entered: AuditReceipt) -> Result<(), ActionFailure> {
        self.act.commit_entered(entered).await?;
        Ok(())
    }

    /// Asks the rules of risk whether something may be done; where it waits, what is committed is the request
    /// ([`Action::commit_entered`]).
    pub(crate) async fn gate(&mut self, wanted: &NewRequest) -> Result<Gate, ActionFailure> {
        let now_ms = self.now_ms;
        let (connection, by) = self.act.asking();
        Ok(billing::action::gate(connection, wanted, by, now_ms).await?)
    }

    /// Commits a decision on an approval, and what was done by it.
    pub(crate) async fn commit_decision(self, id: ApprovalId, note: Note) -> Result<(), ActionFailure> {
        activity::approval::commit_decision(self.act, id, note).await?;
        Ok(())
    }

    /// Records what begins and takes more transactions.
    pub(crate) async fn begin_steps(self, state: &AppState, begins: Note) -> Result<Steps, ActionFailure> {
        Ok(self.act.begin_steps(state.db(), begins).await?)
    }
}

/// Begins an act of who has signed in.
pub(crate) async fn begin(state: &AppState, who: &SignedIn, ip: IpAddr) -> Result<Act, sqlx::Error> {
    let by = By::user(&who.user.email, who.user.id, ip.to_canonical().to_string());
    Act::begin(state.db(), by, state.now_ms()).await
}

/// Does what takes several transactions, such as what a gateway is asked for: it is recorded before it begins, and again with
/// what came of it.
pub(crate) async fn in_steps<T, E: std::fmt::Display>(
    state: &AppState,
    (who, ip): (&SignedIn, IpAddr),
    begins: Note,
    work: impl Future<Output = Result<T, E>>,
    result: impl FnOnce(&T) -> serde_json::Value,
) -> Result<Result<T, E>, Failure> {
    let act = begin(state, who, ip).await?;
    let steps = act.begin_steps(state.db(), begins).await?;
    let done = work.await;
    let outcome = match &done {
        Ok(value) => Ok(result(value)),
        Err(error) => Err(error.to_string()),
    };
    steps.end(outcome).await?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Fields(pairs.collect())
    }

    #[test]
    fn amounts_are_exact_or_refused() {
        let typed = fields(&[
            ("a", " 12.30 "),
            ("b", "12.345"),
            ("c", "1,000"),
            ("d", ""),
            ("f", "1e1"),
            ("g", "1_0"),
        ]);
        let usd = Currency::USD;
        assert_eq!(typed.money("a", usd).unwrap(), Money::new(1230, usd));
        for bad in ["b", "c", "d", "e", "f", "g"] {
            assert!(matches!(typed.money(bad, usd), Err(ActionFailure::ByRule(_))), "{bad}");
        }
        let yen = "JPY".parse().unwrap();
        assert!(matches!(typed.money("a", yen), Err(ActionFailure::ByRule(_))));
    }

    #[test]
    fn rules_are_told_in_a_sentence_and_failures_are_not() {
        let rule = billing::BillingError::NoPlan(schemas::ids::PlanId(7));
        assert!(matches!(ActionFailure::from(rule), ActionFailure::ByRule(text) if text == "No plan pln_7."));
        let broken = billing::BillingError::Database(sqlx::Error::PoolClosed);
        assert!(matches!(ActionFailure::from(broken), ActionFailure::Failed(_)));
        // Once these were told as if a person had typed them: stored data that is damaged, a file, an answer that is no JSON.
        let damaged = billing::BillingError::Corrupt {
            what: "terms",
            text: "?".to_owned(),
        };
        assert!(matches!(ActionFailure::from(damaged), ActionFailure::Failed(_)));
        assert!(matches!(
            ActionFailure::from(std::io::Error::other("disk full")),
            ActionFailure::Failed(_)
        ));
        let no_json = serde_json::from_str::<i64>("?").unwrap_err();
        assert!(matches!(ActionFailure::from(no_json), ActionFailure::Failed(_)));
        // What somebody typed stays theirs.
        let typed = "abc".parse::<schemas::ids::PlanId>().unwrap_err();
        assert!(matches!(ActionFailure::from(typed), ActionFailure::ByRule(_)));
        assert!(matches!(
            ActionFailure::from(Failure::NotFound),
            ActionFailure::Failed(Failure::NotFound)
        ));
    }

    #[test]
    fn a_refused_form_shows_what_was_typed_and_others_what_is_stored() {
        let draft = Draft::refused("one", said("No."), fields(&[("name", "typed")])).unwrap();
        assert_eq!(draft.value("one", "name", "stored"), "typed");
        assert_eq!(draft.value("two", "name", "stored"), "stored");
        assert_eq!(draft.problem("one"), Some("No."));
        assert_eq!(draft.problem("two"), None);
        assert_eq!(draft.refusal(), Some(("one", "No.")));
        assert_eq!(Draft::default().refusal(), None);
        // The first field of the refused form has the focus, and no other.
        let focus = [
            draft.takes_focus("two"),
            draft.takes_focus("one"),
            draft.takes_focus("one"),
        ];
        assert_eq!(focus, [false, true, false]);
    }
}
