//! The events there are, by the names that customers' programs know them by. `docs/events.md` says when each is published
//! and what it carries.

use super::EventError;

/// Who is written to when something happened. What goes to no mailbox still goes to webhooks and, where it is about a
/// customer, into their notifications.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// The customer: by email and in the portal.
    Customer,
    /// The customer, in the portal only: worth knowing, not worth a mail, or another event at the same moment is mailed.
    Portal,
    /// The owner of the business.
    Owner,
    /// Every admin.
    Admins,
    /// Everybody of operations, and every admin: who keeps the machines running.
    Operations,
    /// The mailbox that the payload names as `to`: of somebody who signs in, or one that was left.
    User,
    /// Programs only.
    Nobody,
}

macro_rules! event_types {
    ($($variant:ident $name:literal $audience:ident,)*) => {
        /// What happened.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum EventType {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl EventType {
            pub const ALL: &[EventType] = &[$(EventType::$variant,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(EventType::$variant => $name,)*
                }
            }

            /// Who is told by us.
            pub fn audience(self) -> Audience {
                match self {
                    $(EventType::$variant => Audience::$audience,)*
                }
            }
        }

        impl std::str::FromStr for EventType {
            type Err = EventError;

            fn from_str(text: &str) -> Result<EventType, EventError> {
                match text {
                    $($name => Ok(EventType::$variant),)*
                    _ => Err(EventError::UnknownType(text.to_owned())),
                }
            }
        }
    };
}

event_types! {
    InvoiceFinalised "invoice.finalised" Customer,
    InvoiceHeld "invoice.held" Admins,
    InvoicePaid "invoice.paid" Portal,
    InvoiceDueSoon "invoice.due_soon" Customer,
    InvoiceOverdue "invoice.overdue" Customer,
    InvoiceReopened "invoice.reopened" Customer,
    InvoiceVoided "invoice.voided" Customer,
    CreditNoteIssued "credit_note.issued" Customer,
    PaymentSucceeded "payment.succeeded" Customer,
    PaymentFailed "payment.failed" Customer,
    PaymentRequiresAction "payment.requires_action" Customer,
    PaymentReversed "payment.reversed" Customer,
    RefundSucceeded "refund.succeeded" Customer,
    RefundFailed "refund.failed" Owner,
    DisputeOpened "dispute.opened" Owner,
    DisputeWon "dispute.won" Owner,
    DisputeLost "dispute.lost" Owner,
    SubscriptionCreated "subscription.created" Portal,
    SubscriptionActivated "subscription.activated" Customer,
    SubscriptionChanged "subscription.changed" Customer,
    SubscriptionCancelled "subscription.cancelled" Customer,
    SubscriptionResumed "subscription.resumed" Portal,
    SubscriptionEnded "subscription.ended" Customer,
    SubscriptionPastDue "subscription.past_due" Portal,
    SubscriptionSuspended "subscription.suspended" Portal,
    ChangeScheduled "subscription.change_scheduled" Customer,
    ChangeReminder "subscription.change_reminder" Customer,
    ChangeExecuted "subscription.change_executed" Portal,
    ChangeFailed "subscription.change_failed" Customer,
    ChangeCancelled "subscription.change_cancelled" Customer,
    SuspendRequested "service.suspend_requested" Customer,
    UnsuspendRequested "service.unsuspend_requested" Customer,
    TerminateRequested "service.terminate_requested" Portal,
    TransferRequested "service.transfer_requested" Customer,
    TransferApproved "service.transfer_approved" Portal,
    TransferCompleted "service.transfer_completed" Customer,
    TransferCancelled "service.transfer_cancelled" Customer,
    FreeTierInactive "free_tier.inactive" Customer,
    CreditGranted "credit.granted" Customer,
    CreditLow "credit.low" Customer,
    CreditOwed "credit.owed" Customer,
    CreditOverdue "credit.overdue" Customer,
    TopUpSucceeded "top_up.succeeded" Customer,
    TopUpFailed "top_up.failed" Customer,
    BudgetThresholdReached "budget.threshold_reached" Customer,
    BudgetExceeded "budget.exceeded" Customer,
    BudgetReset "budget.reset" Portal,
    BudgetUnlocked "budget.unlocked" Customer,
    PaymentMethodAdded "payment_method.added" Portal,
    PaymentMethodExpiring "payment_method.expiring" Customer,
    PaymentMethodRemoved "payment_method.removed" Portal,
    EmailVerificationRequested "email.verification_requested" Customer,
    EmailChanged "email.changed" User,
    PasswordResetRequested "user.password_reset_requested" User,
    PasswordChanged "user.password_changed" User,
    SecondFactorChanged "user.second_factor_changed" User,
    TokenAdded "user.token_added" User,
    VatNumberInvalid "vat_number.invalid" Admins,
    WebhookDisabled "webhook.disabled" Customer,
    ApprovalRequested "approval.requested" Admins,
    ApprovalDecided "approval.decided" Admins,
    HighRiskAction "admin.high_risk_action" Owner,
    GatewaySettingsChanged "admin.gateway_settings_changed" Admins,
    BillingStopped "billing.stopped" Admins,
    BillingResumed "billing.resumed" Admins,
    UsageUnmeasured "usage.unmeasured" Admins,
    JobFailing "job.failing" Operations,
    JobRecovered "job.recovered" Operations,
}

impl EventType {
    /// Whether the customer finds it among their notifications.
    pub fn is_shown_in_portal(self) -> bool {
        matches!(self.audience(), Audience::Customer | Audience::Portal)
    }

    /// Whether a customer's endpoints may hear of it. What staff does is not theirs to see, whoever the
    /// event is about.
    pub fn is_for_customers(self) -> bool {
        self.is_shown_in_portal()
            || matches!(
                self,
                EventType::RefundFailed | EventType::DisputeOpened | EventType::DisputeWon | EventType::DisputeLost
            )
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for EventType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_read_back_and_unique() {
        let mut names = HashSet::new();
        for kind in EventType::ALL {
            assert_eq!(kind.name().parse::<EventType>().unwrap(), *kind);
            assert!(names.insert(kind.name()), "{kind}");
            let (area, verb) = kind.name().split_once('.').unwrap();
            let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(is_word(area) && is_word(verb), "{kind}");
        }
        let error = "invoice.paidd".parse::<EventType>().unwrap_err().to_string();
        assert!(error.contains("invoice.paidd"), "{error}");
    }

    #[test]
    fn every_type_is_documented_once_with_whom_it_is_told_to() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows: Vec<(EventType, &str)> = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].trim_matches('`');
            if name.contains('.') {
                rows.push((name.parse().unwrap(), cells.last().unwrap()));
            }
        }
        for kind in EventType::ALL {
            let told: Vec<&str> = rows
                .iter()
                .filter(|(row, _)| row == kind)
                .map(|(_, told)| *told)
                .collect();
            let [told] = told[..] else {
                panic!("docs/events.md has {} rows of {kind}", told.len())
            };
            let expected = match kind.audience() {
                Audience::Customer => "customer",
                Audience::Portal => "portal",
                Audience::Owner => "owner",
                Audience::Admins => "admins",
                Audience::Operations => "operations",
                Audience::User => "user",
                Audience::Nobody => "programs",
            };
            assert!(
                told.starts_with(expected),
                "docs/events.md says {kind} is told to {told:?}, not {expected}"
            );
        }
    }

    /// The code of the product in a folder of the workspace, without its tests and without those files that only tell of events.
    fn product_code(folder: &std::path::Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.file_name().unwrap().to_string_lossy().contains("tests");
            let only_tells = [
                "event/kind.rs",
                "channel/message",
                "channel/message.rs",
                "channel/mail.rs",
                "src/attachments.rs",
            ];
            if is_test || only_tells.iter().any(|part| path.ends_with(part)) {
                continue;
            }
            if path.is_dir() {
                product_code(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = std::fs::read_to_string(&path).unwrap();
                text.push_str(code.split("#[cfg(test)]").next().unwrap());
            }
        }
    }

    /// Documented events that nobody publishes are promises that nobody keeps.
    #[test]
    fn every_type_is_published_by_somebody() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut code = String::new();
        for folder in ["activity/src", "analytics/src", "billing/src", "portal/src", "src"] {
            product_code(&root.join(folder), &mut code);
        }
        let silent: Vec<&str> = EventType::ALL
            .iter()
            .filter(|kind| {
                let named = format!("EventType::{kind:?}");
                let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
                !code.split(named.as_str()).skip(1).any(is_whole)
            })
            .map(|kind| kind.name())
            .collect();
        assert_eq!(
            silent, [""; 0],
            "nobody publishes these: publish them or remove them with their docs"
        );
    }

    #[test]
    fn s1_what_staff_does_and_how_users_sign_in_is_for_no_customer() {
        for kind in [
            EventType::InvoiceHeld,
            EventType::VatNumberInvalid,
            EventType::ApprovalRequested,
            EventType::ApprovalDecided,
            EventType::HighRiskAction,
            EventType::BillingStopped,
            EventType::GatewaySettingsChanged,
            EventType::BillingResumed,
            EventType::UsageUnmeasured,
            EventType::JobFailing,
            EventType::JobRecovered,
            EventType::EmailChanged,
            EventType::PasswordResetRequested,
            EventType::PasswordChanged,
            EventType::SecondFactorChanged,
            EventType::TokenAdded,
        ] {
            assert!(!kind.is_for_customers(), "{kind}");
        }
    }
}
