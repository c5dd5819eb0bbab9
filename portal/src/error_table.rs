//! The codes of all types of error that reach a person, and which of them an error has. What becomes of its class is said in
//! the module `outcome`.
//!
//! ```text
//! an error ─▶ the first in its chain that has a code ─▶ class ─┬─▶ status, problem+json, page   (crate::error)
//!             none has: a fault                                └─▶ exit code of the command line
//! ```
//!
//! `docs/errors.md` is the table of outcomes and the list of codes; a test compares them.

use std::error::Error;

use schemas::error_class::{Classified, ErrorCode, ErrorCodes};

pub use crate::outcome::{Outcome, UNKNOWN, outcome};

macro_rules! known_types {
    ($($type:ty),+ $(,)?) => {
        fn code_of(error: &(dyn Error + 'static)) -> Option<ErrorCode> {
            $(if let Some(known) = error.downcast_ref::<$type>() {
                return Some(known.error_code());
            })+
            None
        }

        /// Every code there is, by name.
        pub fn codes() -> Vec<ErrorCode> {
            let mut codes = [&[UNKNOWN][..], $(<$type as ErrorCodes>::CODES),+].concat();
            codes.sort_unstable();
            codes
        }
    };
}

known_types! {
    crate::error::Failure,
    crate::auth::UserError,
    crate::auth::PasswordError,
    crate::auth::SessionLimitsError,
    crate::overview::query::QueryError,
    activity::approval::ApprovalError,
    activity::audit::AuditError,
    activity::channel::ChannelError,
    activity::channel::ReplayError,
    activity::channel::endpoint::EndpointError,
    activity::channel::mailer::MailError,
    activity::event::EventError,
    activity::job::JobError,
    activity::job::ScheduleError,
    activity::password_reset::PasswordResetError,
    activity::verification::VerificationError,
    analytics::AnalyticsError,
    analytics::StoreError,
    analytics::console::OutputError,
    analytics::console::SqlError,
    billing::BillingError,
    billing::action::ActionError,
    billing::approval::ExecuteError,
    billing::budget::BudgetError,
    billing::charger::ChargerError,
    billing::collection_terms::ScheduleError,
    billing::collection_terms::SetTermsError,
    billing::collection_terms::TermsError,
    billing::document::pdf::PdfError,
    billing::document::ubl::UblError,
    billing::dunning::DunningError,
    billing::export::ExportError,
    billing::guard::GuardError,
    billing::ledger::LedgerError,
    billing::payment::gateway::GatewayError,
    billing::payment::PaymentError,
    billing::payment::gateway::WebhookError,
    billing::refund::RefundError,
    billing::settlement::SettlementError,
    billing::tax::TaxCategoryError,
    billing::tax::TaxError,
    billing::top_up::TopUpError,
    billing::vat::RegisterError,
    schemas::assignment::OverlapError,
    schemas::clock::ClockError,
    schemas::metering::correction::CorrectionError,
    schemas::db::DatabaseError,
    schemas::file_format::NewerFormat,
    schemas::identity::RoleError,
    schemas::ids::IdError,
    schemas::inventory::InventoryError,
    schemas::money::MoneyError,
    schemas::percent::PercentError,
    schemas::period::PeriodError,
    schemas::secret::SecretError,
    schemas::usage::UsageError,
    schemas::vat_number::VatNumberError,
    sqlx::Error,
    jiff::Error,
    rust_decimal::Error,
    ipnet::AddrParseError,
    std::net::AddrParseError,
    std::num::ParseIntError,
}

/// The code of an error, or of the first of its causes that has one; [`UNKNOWN`] where none has: what nobody classified is
/// never shown as if a person had erred.
pub fn classify(error: &(dyn Error + 'static)) -> ErrorCode {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = code_of(error) {
            return code;
        }
        next = error.source();
    }
    UNKNOWN
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::error_class::ErrorClass;
    use schemas::ids::PlanId;

    use super::*;
    use crate::error::status_of;
    use crate::outcome::words;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let codes = codes();
        assert!(codes.len() > 200, "{}", codes.len());
        let names: BTreeSet<&str> = codes.iter().map(|code| code.code).collect();
        let twice: Vec<&str> = codes
            .windows(2)
            .filter(|two| two[0].code == two[1].code)
            .map(|two| two[0].code)
            .collect();
        assert_eq!(names.len(), codes.len(), "these are two things: {twice:?}");
        for name in names {
            let is_plain = name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'));
            assert!(is_plain, "{name:?}");
        }
    }

    /// The part of `docs/errors.md` that is derived.
    fn documented() -> String {
        let mut text = String::from("| class | status | exit code |\n|---|---|---|\n");
        for class in ErrorClass::ALL {
            let Outcome { status, exit_code, .. } = outcome(class);
            text.push_str(&format!("| {} | {} | {exit_code} |\n", class.name(), status.as_u16()));
        }
        text.push_str("\n| code | class | status |\n|---|---|---|\n");
        for code in codes() {
            let status = status_of(code).as_u16();
            text.push_str(&format!("| `{}` | {} | {status} |\n", code.code, code.class.name()));
        }
        text
    }

    #[test]
    fn every_code_is_documented_and_none_was_taken_away() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, derived) = page.split_once("| class | status | exit code |\n").unwrap();
        let derived = format!("| class | status | exit code |\n{derived}");
        let expected = documented();
        if derived == expected {
            return;
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{expected}")).unwrap();
        }
        let rows = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
        let (old, new) = (rows(&derived), rows(&expected));
        panic!(
            "docs/errors.md differs from the program (UPDATE_DOCS=1 writes it); programs compare codes, so one that was \
             released stays. only in the page: {:?}; only in the program: {:?}",
            old.difference(&new).collect::<Vec<_>>(),
            new.difference(&old).collect::<Vec<_>>(),
        );
    }

    #[test]
    fn the_first_that_has_a_code_decides_and_what_has_none_is_a_fault() {
        #[derive(Debug, thiserror::Error)]
        #[error("carry out a command")]
        struct Context(#[source] Box<dyn Error + Send + Sync>);

        let carried = Context(billing::BillingError::NoPlan(PlanId(7)).into());
        assert_eq!(classify(&carried).code, "billing.no_plan");
        assert_eq!(outcome(classify(&carried).class).exit_code, 4);
        assert_eq!(words(&carried), "No plan pln_7.");
        let broken = Context(billing::BillingError::Database(sqlx::Error::PoolClosed).into());
        assert_eq!(classify(&broken).class, ErrorClass::Fault);
        let odd = Context(std::io::Error::other("odd").into());
        assert_eq!((classify(&odd), outcome(ErrorClass::Fault).exit_code), (UNKNOWN, 1));
    }
}
