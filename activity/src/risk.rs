//! The rule table of risk (F-60): which actions are of high risk, from which amount or count on, who is told and who decides.
//!
//! ```text
//! an action ──▶ its kind and its size ──▶ the thresholds in force ──▶ passes   it is done; its entry is of normal risk
//!                                                                 ├─▶ told     it is done; the owner is told
//!                                                                 └─▶ waits    a second admin decides (`approval`)
//! ```
//!
//! Promises:
//! * There is one table, [`HighRisk::rule`], for every way in: portal, API and command line ask it by the same call
//!   ([`crate::approval::gate`]).
//! * The thresholds in force are those of the database, which `serve` takes over from the configuration; that is an act of high
//!   risk itself. So no command goes by a configuration of its own.
//!
//! What is no single action, but seen afterwards, such as another key of a gateway in the configuration: [`fingerprint`].

pub mod fingerprint;

use schemas::identity::Role;
use schemas::window::DAY_MS;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::act::Note;
use crate::audit::Risk;

/// The row of `settings` that holds the thresholds in force.
const SETTING: &str = "approvals.thresholds";
/// Days that a request waits at most.
const VALID_DAYS_MAX: i64 = 90;
/// Largest threshold: above it a rule would never hold.
const OVER_MAX: i64 = 1_000_000_000_000;

/// Kinds of action of high risk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HighRisk {
    BulkTermination,
    AccountDeletion,
    /// Prices that subscriptions change to.
    PriceChange,
    Refund,
    CreditGrant,
    WriteOff,
    /// An invoice taken back, as a whole or in part.
    CreditNote,
    UsageExclusion,
    ServiceTransfer,
    /// Somebody can sign in as an admin: added, or let in again.
    AdminCreated,
    AdminDeleted,
    /// Somebody becomes an admin, or an admin becomes something else.
    AdminRole,
    /// What a reseller pays.
    ResellerBilling,
    GatewaySettings,
    DatabaseChange,
}

/// What the size of an action is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Minor units of the currency: cents where it has them.
    MinorUnits,
    Customers,
    Subscriptions,
    Services,
    Hours,
    /// It has no size: it is always of high risk.
    Always,
}

impl Measure {
    pub fn name(self) -> &'static str {
        match self {
            Measure::MinorUnits => "minor units",
            Measure::Customers => "customers",
            Measure::Subscriptions => "subscriptions",
            Measure::Services => "services",
            Measure::Hours => "hours",
            Measure::Always => "",
        }
    }
}

/// Who decides on an action above its threshold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApprovalRequirement {
    /// Nobody else: the owner is told.
    NotifyOwner,
    /// A second admin.
    SecondAdmin,
    /// A second admin once there are two who may sign in; until then the owner is told.
    SecondAdminOfTwo,
}

impl ApprovalRequirement {
    pub fn name(self) -> &'static str {
        match self {
            ApprovalRequirement::NotifyOwner => "nobody else; the owner is notified",
            ApprovalRequirement::SecondAdmin => "a second admin",
            ApprovalRequirement::SecondAdminOfTwo => "a second admin, once there are two",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    pub measure: Measure,
    pub decision: ApprovalRequirement,
    /// The role that may ask beside admins; [`Role::Admin`] where none may.
    pub requester: Role,
}

impl HighRisk {
    pub const ALL: [HighRisk; 15] = [
        HighRisk::BulkTermination,
        HighRisk::AccountDeletion,
        HighRisk::PriceChange,
        HighRisk::Refund,
        HighRisk::CreditGrant,
        HighRisk::WriteOff,
        HighRisk::CreditNote,
        HighRisk::UsageExclusion,
        HighRisk::ServiceTransfer,
        HighRisk::AdminCreated,
        HighRisk::AdminDeleted,
        HighRisk::AdminRole,
        HighRisk::ResellerBilling,
        HighRisk::GatewaySettings,
        HighRisk::DatabaseChange,
    ];

    pub fn name(self) -> &'static str {
        match self {
            HighRisk::BulkTermination => "bulk_termination",
            HighRisk::AccountDeletion => "account_deletion",
            HighRisk::PriceChange => "price_change",
            HighRisk::Refund => "refund",
            HighRisk::CreditGrant => "credit_grant",
            HighRisk::WriteOff => "write_off",
            HighRisk::CreditNote => "credit_note",
            HighRisk::UsageExclusion => "usage_exclusion",
            HighRisk::ServiceTransfer => "service_transfer",
            HighRisk::AdminCreated => "admin_created",
            HighRisk::AdminDeleted => "admin_deleted",
            HighRisk::AdminRole => "admin_role",
            HighRisk::ResellerBilling => "reseller_billing",
            HighRisk::GatewaySettings => "gateway_settings",
            HighRisk::DatabaseChange => "database_change",
        }
    }

    /// The table. A credit note puts right what was charged wrongly, which customers wait for. What a reseller is billed can be put
    /// right with the next invoice; the keys of a gateway and the database are seen when they have changed already, by whoever has
    /// the machine: there is nothing left to wait for.
    pub fn rule(self) -> Rule {
        let rule = |measure, decision, requester| Rule {
            measure,
            decision,
            requester,
        };
        let (second, of_two, told) = (
            ApprovalRequirement::SecondAdmin,
            ApprovalRequirement::SecondAdminOfTwo,
            ApprovalRequirement::NotifyOwner,
        );
        match self {
            HighRisk::BulkTermination => rule(Measure::Subscriptions, second, Role::Admin),
            HighRisk::AccountDeletion => rule(Measure::Always, second, Role::Admin),
            HighRisk::PriceChange => rule(Measure::Customers, second, Role::Admin),
            HighRisk::Refund | HighRisk::CreditGrant | HighRisk::WriteOff => {
                rule(Measure::MinorUnits, second, Role::Finance)
            }
            HighRisk::CreditNote => rule(Measure::MinorUnits, told, Role::Finance),
            HighRisk::UsageExclusion => rule(Measure::Hours, second, Role::Ops),
            HighRisk::ServiceTransfer => rule(Measure::Services, second, Role::Admin),
            HighRisk::AdminCreated | HighRisk::AdminDeleted | HighRisk::AdminRole => {
                rule(Measure::Always, of_two, Role::Admin)
            }
            HighRisk::ResellerBilling | HighRisk::GatewaySettings | HighRisk::DatabaseChange => {
                rule(Measure::Always, told, Role::Admin)
            }
        }
    }
}

/// From which size on actions are of high risk, as the section `[approvals]` of the configuration sets it. What is as large as
/// the threshold passes; parts within 24 hours count together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Refunds of a payment, or of a customer.
    pub refund_over_minor: i64,
    /// Credit granted to a customer.
    pub credit_grant_over_minor: i64,
    /// Invoices of a customer written off.
    pub write_off_over_minor: i64,
    /// Invoices of a customer credited or made void.
    pub credit_note_over_minor: i64,
    /// Time excluded from the usage of a customer's services.
    pub usage_exclusion_over_hours: i64,
    /// Services of a customer that move to others.
    pub transfer_over_services: i64,
    /// Customers who pay any of the prices of one change.
    pub price_change_over_customers: i64,
    /// Subscriptions ended at once.
    pub termination_over_subscriptions: i64,
    /// Days after which a request that nobody decided expires.
    pub valid_days: i64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds::DEFAULT
    }
}

/// A threshold that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name} = {value} is out of range: use {least} to {most}")]
pub struct ThresholdError {
    pub name: &'static str,
    pub value: i64,
    pub least: i64,
    pub most: i64,
}

/// What the rules say of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RiskAssessment {
    /// It is done.
    Passes,
    /// It is done, and the owner is told.
    NotifyOwner,
    /// A second admin decides.
    Waits(ApprovalRequirement),
}

impl Thresholds {
    pub const DEFAULT: Thresholds = Thresholds {
        refund_over_minor: 100_000,
        credit_grant_over_minor: 100_000,
        write_off_over_minor: 100_000,
        credit_note_over_minor: 100_000,
        usage_exclusion_over_hours: 24,
        transfer_over_services: 5,
        price_change_over_customers: 100,
        termination_over_subscriptions: 5,
        valid_days: 14,
    };

    /// Refuses what is out of range.
    ///
    /// # Errors
    /// [`ThresholdError`] names the setting and its range.
    pub fn validate(&self) -> Result<(), ThresholdError> {
        let overs = [
            ("refund_over_minor", self.refund_over_minor),
            ("credit_grant_over_minor", self.credit_grant_over_minor),
            ("write_off_over_minor", self.write_off_over_minor),
            ("credit_note_over_minor", self.credit_note_over_minor),
            ("usage_exclusion_over_hours", self.usage_exclusion_over_hours),
            ("transfer_over_services", self.transfer_over_services),
            ("price_change_over_customers", self.price_change_over_customers),
            ("termination_over_subscriptions", self.termination_over_subscriptions),
        ];
        let overs = overs.map(|(name, value)| (name, value, 0, OVER_MAX));
        for (name, value, least, most) in overs
            .into_iter()
            .chain([("valid_days", self.valid_days, 1, VALID_DAYS_MAX)])
        {
            if !(least..=most).contains(&value) {
                return Err(ThresholdError {
                    name,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }

    /// What is larger than this is of high risk; `None` where everything is.
    pub fn over(&self, kind: HighRisk) -> Option<i64> {
        match kind {
            HighRisk::BulkTermination => Some(self.termination_over_subscriptions),
            HighRisk::PriceChange => Some(self.price_change_over_customers),
            HighRisk::Refund => Some(self.refund_over_minor),
            HighRisk::CreditGrant => Some(self.credit_grant_over_minor),
            HighRisk::WriteOff => Some(self.write_off_over_minor),
            HighRisk::CreditNote => Some(self.credit_note_over_minor),
            HighRisk::UsageExclusion => Some(self.usage_exclusion_over_hours),
            HighRisk::ServiceTransfer => Some(self.transfer_over_services),
            HighRisk::AccountDeletion
            | HighRisk::AdminCreated
            | HighRisk::AdminDeleted
            | HighRisk::AdminRole
            | HighRisk::ResellerBilling
            | HighRisk::GatewaySettings
            | HighRisk::DatabaseChange => None,
        }
    }

    /// What the rules say of an action of this size.
    pub fn judge(&self, kind: HighRisk, size: i64) -> RiskAssessment {
        if self.over(kind).is_some_and(|over| size <= over) {
            return RiskAssessment::Passes;
        }
        match kind.rule().decision {
            ApprovalRequirement::NotifyOwner => RiskAssessment::NotifyOwner,
            decision => RiskAssessment::Waits(decision),
        }
    }

    /// How long a request waits.
    pub(crate) fn valid_ms(&self) -> i64 {
        self.valid_days * DAY_MS
    }
}

/// The thresholds in force: those that `serve` took over last, else the default.
///
/// # Errors
/// As the database answers, or when what is stored is not understood.
pub async fn thresholds(db: impl AnyExecutor<'_>) -> Result<Thresholds, sqlx::Error> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(SETTING)
        .fetch_optional(db)
        .await?;
    let Some(row) = row else {
        return Ok(Thresholds::DEFAULT);
    };
    let text: String = row.try_get(0)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Stores thresholds; `None` where they are in force already.
///
/// # Errors
/// As the database answers, or when what is stored is not understood.
pub async fn set_thresholds(connection: &mut AnyConnection, new: &Thresholds) -> Result<Option<Note>, sqlx::Error> {
    let before = thresholds(&mut *connection).await?;
    if before == *new {
        return Ok(None);
    }
    store(connection, SETTING, serde_json::to_string(new)).await?;
    let change = serde_json::json!({ "before": before, "after": new });
    Ok(Some(
        Note::new("approval.thresholds", SETTING)
            .change(change)
            .risk(Risk::High),
    ))
}

/// Writes a setting.
async fn store(
    connection: &mut AnyConnection,
    name: &str,
    value: Result<String, serde_json::Error>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value.map_err(|error| sqlx::Error::Encode(Box::new(error)))?)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn f60_what_is_larger_than_its_threshold_is_of_high_risk() {
        let thresholds = Thresholds::DEFAULT;
        assert_eq!(thresholds.validate(), Ok(()));
        for kind in HighRisk::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            let rule = kind.rule();
            let above = match rule.decision {
                ApprovalRequirement::NotifyOwner => RiskAssessment::NotifyOwner,
                decision => RiskAssessment::Waits(decision),
            };
            match thresholds.over(kind) {
                Some(over) => {
                    assert_ne!(rule.measure, Measure::Always, "{kind:?}");
                    assert_eq!(thresholds.judge(kind, over), RiskAssessment::Passes, "{kind:?}");
                    assert_eq!(thresholds.judge(kind, over + 1), above, "{kind:?}");
                }
                None => {
                    assert_eq!(rule.measure, Measure::Always, "{kind:?}");
                    assert_eq!(thresholds.judge(kind, 0), above, "{kind:?}");
                }
            }
        }
        assert_eq!(
            thresholds.judge(HighRisk::GatewaySettings, 1),
            RiskAssessment::NotifyOwner
        );
    }

    #[test]
    fn a_threshold_out_of_range_is_refused_by_name() {
        let negative = Thresholds {
            write_off_over_minor: -1,
            ..Thresholds::DEFAULT
        };
        let error = negative.validate().unwrap_err().to_string();
        assert_eq!(
            error,
            "write_off_over_minor = -1 is out of range: use 0 to 1000000000000"
        );
        let endless = Thresholds {
            valid_days: 91,
            ..Thresholds::DEFAULT
        };
        assert!(endless.validate().unwrap_err().to_string().contains("use 1 to 90"));
    }

    #[tokio::test]
    async fn other_thresholds_are_an_act_of_high_risk() {
        let world = World::new().await;
        let mut transaction = world.database.begin_write().await.unwrap();
        assert_eq!(thresholds(&mut *transaction).await.unwrap(), Thresholds::DEFAULT);
        let none = set_thresholds(&mut transaction, &Thresholds::DEFAULT).await.unwrap();
        assert_eq!(none, None);
        let stricter = Thresholds {
            refund_over_minor: 0,
            ..Thresholds::DEFAULT
        };
        let note = set_thresholds(&mut transaction, &stricter).await.unwrap().unwrap();
        assert_eq!(note.risk, Risk::High);
        assert_eq!(note.change["before"]["refund_over_minor"], 100_000);
        assert_eq!(thresholds(&mut *transaction).await.unwrap(), stricter);
        assert_eq!(set_thresholds(&mut transaction, &stricter).await.unwrap(), None);
    }
}
