//! The terms of collection: section `[collection]` of the configuration, kept in the database so that every process on it,
//! every page and every mail goes by the same. `serve` stores them when it starts and when its configuration changes.

mod schedule;

use activity::act::Note;
use schemas::window::DAY_MS;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

pub use schedule::{MAX_DAY, MAX_RETRIES, MAX_TERMINATE_DAY, Schedule, ScheduleError};

/// The row of `settings` that holds them.
const SETTING: &str = "collection";
/// Days that a customer has to pay, from finalisation, where nothing else was set.
const PAYMENT_TERM_DAYS: i64 = 14;
/// Days between an invoice and its due date at most.
pub const MAX_TERM_DAYS: i64 = 180;
/// Days before a date on which something can be said.
pub const MAX_NOTICE_DAYS: i64 = 90;
/// Notices before one date at most.
pub const MAX_NOTICES: usize = 5;

/// What customers are given, and when they are told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = CollectionTerms)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// Days from an invoice to its due date.
    pub payment_term_days: i64,
    /// Days after the due date on which the payment method is charged again.
    pub retry_days: Vec<i64>,
    /// Day after the due date on which the services on an invoice are suspended.
    pub suspend_day: i64,
    /// Day after the due date on which subscriptions that are suspended for it end; without one a person decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate_day: Option<i64>,
    /// Days before the due date on which an open invoice is reminded of.
    pub remind_days_before: Vec<i64>,
    /// Days before a card expires on which its owner is told.
    pub card_expiry_notice_days: Vec<i64>,
    /// Whether days on which a service is suspended for an unpaid invoice are charged.
    pub bill_suspended: bool,
}

impl Default for Terms {
    fn default() -> Terms {
        let schedule = Schedule::default();
        Terms {
            payment_term_days: PAYMENT_TERM_DAYS,
            retry_days: schedule.retry_days().to_vec(),
            suspend_day: schedule.suspend_day(),
            terminate_day: None,
            remind_days_before: Vec::new(),
            card_expiry_notice_days: Vec::new(),
            bill_suspended: true,
        }
    }
}

/// Why they are no terms.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TermsError {
    #[error("payment_term_days lies between 0 and {MAX_TERM_DAYS}, not {0}")]
    PaymentTerm(i64),
    #[error("retry_days and suspend_day")]
    Schedule(#[from] ScheduleError),
    #[error("{setting} names days between 1 and {MAX_NOTICE_DAYS}, at most {MAX_NOTICES}, each once: not {days:?}")]
    Notices { setting: &'static str, days: Vec<i64> },
    #[error(
        "remind_days_before = {days:?} is no use where payment_term_days is {term_days}: name fewer days than that"
    )]
    BeforeTheInvoice { days: Vec<i64>, term_days: i64 },
}

schemas::error_codes! {
    TermsError: "collection_terms";
    of [Schedule]
    source []
    Refused: PaymentTerm = "payment_term", Notices = "notices", BeforeTheInvoice = "before_the_invoice";
}

/// Why terms were not stored.
#[derive(Debug, thiserror::Error)]
pub enum SetTermsError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("take over the terms of collection")]
    Terms(#[from] TermsError),
}

schemas::error_codes! {
    SetTermsError: "collection_terms";
    of [Database, Terms]
    source []
}

impl Terms {
    /// # Errors
    /// When a day is out of its range, or they do not follow one another.
    pub fn validate(&self) -> Result<(), TermsError> {
        if !(0..=MAX_TERM_DAYS).contains(&self.payment_term_days) {
            return Err(TermsError::PaymentTerm(self.payment_term_days));
        }
        self.schedule()?;
        notices("remind_days_before", &self.remind_days_before)?;
        notices("card_expiry_notice_days", &self.card_expiry_notice_days)?;
        if self.remind_days_before.iter().any(|day| *day >= self.payment_term_days) {
            return Err(TermsError::BeforeTheInvoice {
                days: self.remind_days_before.clone(),
                term_days: self.payment_term_days,
            });
        }
        Ok(())
    }

    /// What is done on which day after the due date.
    ///
    /// # Errors
    /// When the days are no schedule.
    pub fn schedule(&self) -> Result<Schedule, ScheduleError> {
        let schedule = Schedule::new(&self.retry_days, self.suspend_day)?;
        match self.terminate_day {
            Some(day) => schedule.terminating_on(day),
            None => Ok(schedule),
        }
    }

    /// When an invoice of `at_ms` is due.
    pub fn due_at_ms(&self, at_ms: i64) -> i64 {
        at_ms + self.payment_term_days * DAY_MS
    }

    /// In sentences, for people who set them.
    pub fn words(&self) -> Vec<String> {
        let list = |days: &[i64]| days.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut words = vec![format!("invoices are due after {} days", self.payment_term_days)];
        if !self.remind_days_before.is_empty() {
            words.push(format!("reminded of {} days before", list(&self.remind_days_before)));
        }
        words.push(match self.retry_days.is_empty() {
            true => "charged when issued, and by no retry".to_owned(),
            false => format!(
                "charged when issued and {} days after the due date",
                list(&self.retry_days)
            ),
        });
        words.push(format!(
            "services are suspended {} days after the due date, and {} meanwhile",
            self.suspend_day,
            if self.bill_suspended { "charged" } else { "not charged" }
        ));
        words.push(match self.terminate_day {
            Some(day) => format!("subscriptions end {day} days after the due date"),
            None => "subscriptions are terminated manually only".to_owned(),
        });
        if !self.card_expiry_notice_days.is_empty() {
            words.push(format!(
                "card owners are notified {} days before expiry",
                list(&self.card_expiry_notice_days)
            ));
        }
        words
    }
}

fn notices(setting: &'static str, days: &[i64]) -> Result<(), TermsError> {
    let in_range = days.iter().all(|day| (1..=MAX_NOTICE_DAYS).contains(day));
    let once = days.iter().collect::<std::collections::BTreeSet<_>>().len() == days.len();
    if in_range && once && days.len() <= MAX_NOTICES {
        return Ok(());
    }
    Err(TermsError::Notices {
        setting,
        days: days.to_vec(),
    })
}

/// The terms in force; the default where none were stored.
///
/// # Errors
/// As the database answers, or when what is stored is not understood.
pub async fn terms(db: impl AnyExecutor<'_>) -> Result<Terms, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(SETTING)
        .fetch_optional(db)
        .await?;
    match row {
        Some(row) => {
            let text: String = row.try_get(0)?;
            serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
        }
        None => Ok(Terms::default()),
    }
}

/// Stores terms; `None` where they are in force already.
///
/// # Errors
/// When they are no terms, or as the database answers.
pub async fn set_terms(connection: &mut AnyConnection, new: &Terms) -> Result<Option<Note>, SetTermsError> {
    new.validate()?;
    let before = terms(&mut *connection).await?;
    if before == *new {
        return Ok(None);
    }
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(SETTING)
    .bind(serde_json::to_string(new).map_err(|error| sqlx::Error::Encode(Box::new(error)))?)
    .execute(connection)
    .await?;
    let change = serde_json::json!({ "before": before, "after": new });
    Ok(Some(Note::new("collection.terms", SETTING).change(change)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn the_default_is_what_it_was() {
        let terms = Terms::default();
        assert_eq!(terms.validate(), Ok(()));
        assert_eq!(terms.schedule().unwrap(), Schedule::default());
        assert_eq!(
            (terms.payment_term_days, terms.terminate_day, terms.bill_suspended),
            (14, None, true)
        );
        assert!(terms.remind_days_before.is_empty() && terms.card_expiry_notice_days.is_empty());
    }

    #[test]
    fn closed_terms() {
        let with = |change: fn(&mut Terms)| {
            let mut terms = Terms::default();
            change(&mut terms);
            terms.validate().map_err(|error| {
                let error: &dyn std::error::Error = &error;
                error
                    .source()
                    .map_or(error.to_string(), |source| format!("{error}: {source}"))
            })
        };
        for (change, words) in [
            (
                (|terms| terms.payment_term_days = 181) as fn(&mut Terms),
                "payment_term_days lies between 0 and 180, not 181",
            ),
            (
                |terms| terms.retry_days = vec![3, 1],
                "retry_days and suspend_day: the days of charges ascend, and 1 comes after 3",
            ),
            (
                |terms| terms.terminate_day = Some(14),
                "retry_days and suspend_day: subscriptions end after they were suspended on day 14 and by day 365, not on day 14",
            ),
            (
                |terms| terms.remind_days_before = vec![3, 3],
                "remind_days_before names days between 1 and 90, at most 5, each once: not [3, 3]",
            ),
            (
                |terms| terms.remind_days_before = vec![14],
                "remind_days_before = [14] is no use where payment_term_days is 14: name fewer days than that",
            ),
            (
                |terms| terms.card_expiry_notice_days = vec![0],
                "card_expiry_notice_days names days between 1 and 90, at most 5, each once: not [0]",
            ),
        ] {
            assert_eq!(with(change), Err(words.to_owned()));
        }
        assert_eq!(with(|terms| terms.terminate_day = Some(30)), Ok(()));
    }

    #[tokio::test]
    async fn terms_are_stored_once_and_say_what_they_were() {
        let world = World::new().await;
        assert_eq!(terms(world.database.pool()).await.unwrap(), Terms::default());
        let new = Terms {
            terminate_day: Some(60),
            remind_days_before: vec![3],
            ..Terms::default()
        };
        for is_new in [true, false] {
            let mut transaction = world.database.begin_write().await.unwrap();
            let note = set_terms(&mut transaction, &new).await.unwrap();
            assert_eq!(
                note.map(|note| note.action).as_deref(),
                is_new.then_some("collection.terms")
            );
            transaction.commit().await.unwrap();
        }
        assert_eq!(terms(world.database.pool()).await.unwrap(), new);
    }
}
