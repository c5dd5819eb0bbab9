//! What the description of the API says of an endpoint beyond its row: everything else (path, who may, what it costs, the
//! errors that follow from those) comes from the row.

use std::borrow::Cow;

use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

/// Which part of the product an endpoint belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Area {
    Usage,
    Invoices,
    Credit,
    Subscriptions,
    Notifications,
    Operations,
    Finance,
    Description,
}

impl Area {
    pub(crate) const ALL: [Area; 8] = [
        Area::Usage,
        Area::Invoices,
        Area::Credit,
        Area::Subscriptions,
        Area::Notifications,
        Area::Operations,
        Area::Finance,
        Area::Description,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Area::Usage => "usage",
            Area::Invoices => "invoices",
            Area::Credit => "credit",
            Area::Subscriptions => "subscriptions",
            Area::Notifications => "notifications",
            Area::Operations => "operations",
            Area::Finance => "finance",
            Area::Description => "description",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Area::Usage => "Usage",
            Area::Invoices => "Invoices",
            Area::Credit => "Credit and budget",
            Area::Subscriptions => "Subscriptions and plans",
            Area::Notifications => "Notifications",
            Area::Operations => "Operations",
            Area::Finance => "Finance",
            Area::Description => "Description",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Area::Usage => "What the services of a customer sent and received.",
            Area::Invoices => "Finalised invoices and credit notes of a customer, down to the flows of a usage line.",
            Area::Credit => "Credit, top-ups and the budget of a customer.",
            Area::Subscriptions => "Subscriptions of a customer, and plans on sale.",
            Area::Notifications => "What happened to the account of a customer.",
            Area::Operations => "Traffic of the whole network, and the exporters that report it.",
            Area::Finance => "Money of all customers.",
            Area::Description => "This document.",
        }
    }
}

/// A schema with its name.
pub(crate) type Named = (String, RefOr<Schema>);

/// What an endpoint answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    /// JSON, by the name of its schema.
    Json(fn() -> Cow<'static, str>),
    /// A file of this content type.
    File(&'static str),
}

/// What is said of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) area: Area,
    pub(crate) summary: &'static str,
    /// What its query takes.
    pub(crate) query: fn() -> Vec<Parameter>,
    pub(crate) answer: Answered,
    /// The schema of what it answers, with all that it refers to; none of a file.
    pub(crate) schemas: fn() -> Vec<Named>,
}

/// A type by its name, with all that it refers to.
pub(crate) fn schemas_of<T: ToSchema>() -> Vec<Named> {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    schemas
}

impl Operation {
    /// One that answers `()`, until it says what it answers.
    pub(super) fn new(area: Area, summary: &'static str) -> Operation {
        Operation {
            area,
            summary,
            query: Vec::new,
            answer: Answered::Json(<()>::name),
            schemas: Vec::new,
        }
    }

    /// It takes the fields of `Q` as its query.
    pub(super) fn query<Q: IntoParams>(self) -> Operation {
        Operation {
            query: || Q::into_params(|| Some(ParameterIn::Query)),
            ..self
        }
    }

    /// It answers a `T` as JSON.
    pub(super) fn answers<T: ToSchema>(self) -> Operation {
        Operation {
            answer: Answered::Json(T::name),
            schemas: schemas_of::<T>,
            ..self
        }
    }

    /// It answers a file.
    pub(super) fn answers_file(self, content_type: &'static str) -> Operation {
        Operation {
            answer: Answered::File(content_type),
            schemas: Vec::new,
            ..self
        }
    }
}
