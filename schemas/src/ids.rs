//! Ids of stored things: a number in the database, a prefixed name everywhere else (`svc_42`).

/// The text is not an id of the expected kind.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected an id like {expected}_1, not {text:?}")]
pub struct IdError {
    pub expected: &'static str,
    pub text: String,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                let error = || IdError { expected: $prefix, text: text.to_owned() };
                let number = text.strip_prefix(concat!($prefix, "_")).ok_or_else(error)?;
                match number.parse::<i64>() {
                    Ok(value) if value > 0 && number == value.to_string() => Ok($name(value)),
                    _ => Err(error()),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::api_text::schema(
                    concat!("An id such as ", $prefix, "_7."),
                    concat!("^", $prefix, "_[1-9][0-9]*$"),
                    concat!($prefix, "_7"),
                )
            }
        }

        impl utoipa::ToSchema for $name {}

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(/// A customer account.
    CustomerId, "cus");
id_type!(/// Somebody who signs in.
    UserId, "usr");
id_type!(/// A service that sends and receives; its number is the `service` column of flows and usage.
    ServiceId, "svc");
id_type!(/// A plan of the catalog.
    PlanId, "pln");
id_type!(/// A price of a plan in one currency and cycle.
    PriceId, "prc");
id_type!(/// A service's subscription to a plan.
    SubscriptionId, "sub");
id_type!(/// A target given to a service for a time.
    AssignmentId, "asg");
id_type!(/// An invoice.
    InvoiceId, "inv");
id_type!(/// A line of an invoice.
    InvoiceLineId, "inl");
id_type!(/// A ledger transaction.
    TransactionId, "txn");
id_type!(/// A company of ours that issues invoices.
    EntityId, "ent");
id_type!(/// What a subscription is to over some days.
    PhaseId, "phs");
id_type!(/// A coupon.
    CouponId, "cpn");
id_type!(/// A reason for which a subscription's service is suspended.
    HoldId, "hld");
id_type!(/// A change of a subscription that is to happen at a time.
    ChangeId, "chg");
id_type!(/// A service's move to another customer.
    TransferId, "trf");
id_type!(/// An agreement with one customer.
    DealId, "del");
id_type!(/// What an invoice charges or credits once.
    ChargeItemId, "itm");
id_type!(/// A tax rate.
    TaxRateId, "tax");
id_type!(/// A part of an invoice that was settled.
    AllocationId, "alc");
id_type!(/// A saved way to pay.
    PaymentMethodId, "pmt");
id_type!(/// A payment.
    PaymentId, "pay");
id_type!(/// Money that goes back.
    RefundId, "rfd");
id_type!(/// A payment that the payer disputes.
    DisputeId, "dsp");
id_type!(/// Something that happened, as told to others.
    EventId, "evt");
id_type!(/// An event on its way to somebody.
    DeliveryId, "dlv");
id_type!(/// An address of a customer's that events are sent to.
    EndpointId, "whk");
id_type!(/// A notification in the portal.
    NotificationId, "ntf");
id_type!(/// An entry of the audit log.
    AuditId, "aud");
id_type!(/// An action that waits for a second admin.
    ApprovalId, "apr");
id_type!(/// A token by which a user proves who they are.
    TokenId, "tok");
id_type!(/// Traffic that is not billed.
    ExclusionId, "exc");
id_type!(/// A correction of what an exporter said.
    CorrectionId, "cor");
id_type!(/// A run of a background job.
    JobRunId, "run");

impl ServiceId {
    /// The number that flows and usage carry.
    pub fn number(self) -> u32 {
        u32::try_from(self.0).unwrap_or(0)
    }
}

impl From<u32> for ServiceId {
    fn from(number: u32) -> ServiceId {
        ServiceId(i64::from(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        assert_eq!("svc_42".parse::<ServiceId>().unwrap(), ServiceId(42));
        assert_eq!(ServiceId(42).to_string(), "svc_42");
        for bad in [
            "42",
            "svc_",
            "svc_0",
            "svc_-1",
            "svc_042",
            "svc_+1",
            "cus_42",
            "svc_99999999999999999999",
        ] {
            assert!(bad.parse::<ServiceId>().is_err(), "{bad}");
        }
    }
}
