//! What stands between braces in addresses: a new parameter is a line here.

use schemas::ids::{
    ApprovalId, ChangeId, CouponId, CustomerId, EndpointId, EntityId, InvoiceId, InvoiceLineId, PaymentId,
    PaymentMethodId, PlanId, ServiceId, SubscriptionId, TaxRateId, TokenId, TransferId, UserId,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use super::operation::{Named, schemas_of};

/// A parameter of addresses, which means the same wherever it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathParameter {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// It names something that belongs to one customer (S1).
    pub(crate) is_a_customers: bool,
    /// The schema of its values with its name; `None` for a text.
    schema: Option<fn() -> Vec<Named>>,
}

impl PathParameter {
    /// The schema of its values with its name; `None` for a text.
    pub(crate) fn schema(&self) -> Option<Named> {
        let schemas = self.schema?;
        schemas().into_iter().next()
    }

    /// A reference to that schema.
    pub(crate) fn reference(&self) -> RefOr<Schema> {
        match self.schema() {
            Some((name, _)) => Ref::from_schema_name(name).into(),
            None => String::schema(),
        }
    }
}

const fn of<T: ToSchema>(name: &'static str, description: &'static str) -> PathParameter {
    PathParameter {
        name,
        description,
        is_a_customers: false,
        schema: Some(schemas_of::<T>),
    }
}

const fn text(name: &'static str, description: &'static str) -> PathParameter {
    PathParameter {
        name,
        description,
        is_a_customers: false,
        schema: None,
    }
}

impl PathParameter {
    const fn a_customers(self) -> PathParameter {
        PathParameter {
            is_a_customers: true,
            ..self
        }
    }
}

/// All of them.
pub(crate) const PATH_PARAMETERS: &[PathParameter] = &[
    of::<ServiceId>("service", "A service").a_customers(),
    of::<SubscriptionId>("subscription", "A subscription").a_customers(),
    of::<InvoiceId>("invoice", "An invoice or credit note").a_customers(),
    of::<InvoiceLineId>("line", "A line of the invoice").a_customers(),
    of::<PaymentId>("payment", "A payment").a_customers(),
    of::<PaymentMethodId>("method", "A payment method").a_customers(),
    of::<EndpointId>("endpoint", "An endpoint of webhooks").a_customers(),
    // Of a subscription, an invoice or a service that stands before it, or known to who was given it.
    of::<ChangeId>("change", "A scheduled change of the subscription"),
    text("exclusion", "A time of attack traffic of the service"),
    text("setup", "A setup at the test gateway"),
    text("charge", "A charge at the test gateway"),
    text("session", "A session of the user who asks"),
    text("token", "The token of a link that was mailed"),
    of::<TokenId>("api_token", "An API token of the user who asks"),
    // Of no customer, or for staff.
    of::<CustomerId>("customer", "A customer"),
    of::<PlanId>("plan", "A plan of the catalog"),
    of::<CouponId>("coupon", "A coupon"),
    of::<ApprovalId>("approval", "An action that waits for a second admin"),
    of::<TransferId>("transfer", "A move of a service"),
    of::<TaxRateId>("rate", "A tax rate"),
    of::<EntityId>("entity", "A company that issues invoices"),
    of::<UserId>("user", "A user"),
    text("step", "What is done to the transfer"),
    text("act", "What is done to the user"),
    text("job", "A background job"),
    text("sheet", "A sheet of the export"),
    text("gateway", "A payment gateway"),
    text("name", "A file of the pages"),
];

/// The names between the braces of a path, in order.
pub(crate) fn names_in(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0))
}

/// A parameter by its name.
pub(crate) fn parameter(name: &str) -> Option<&'static PathParameter> {
    PATH_PARAMETERS.iter().find(|parameter| parameter.name == name)
}
