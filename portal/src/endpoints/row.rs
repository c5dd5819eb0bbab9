//! How a row of the table is written.

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};

use super::{Access, Endpoint, Operation, Proof, Queue};
use crate::admission::Cost;
use crate::state::AppState;

impl Endpoint {
    fn new(
        method: &'static str,
        path: &'static str,
        access: Access,
        proof: Proof,
        route: MethodRouter<AppState>,
    ) -> Endpoint {
        Endpoint {
            method,
            path,
            access,
            proof,
            cost: Cost::Light,
            queue: Queue::Requests,
            operation: None,
            route,
        }
    }

    /// It asks the stored tables, or sums over many rows.
    pub(super) fn read(self) -> Endpoint {
        Endpoint {
            cost: Cost::Read,
            ..self
        }
    }

    /// It goes down to flows, tries an order, or writes a month of documents.
    pub(super) fn heavy(self) -> Endpoint {
        Endpoint {
            cost: Cost::Heavy,
            ..self
        }
    }

    /// It answers when everything else is at its limit.
    pub(super) fn unqueued(self) -> Endpoint {
        Endpoint {
            queue: Queue::None,
            ..self
        }
    }

    /// It is of the API, whose description says this of it.
    pub(super) fn documented(self, operation: Operation) -> Endpoint {
        Endpoint {
            operation: Some(operation),
            ..self
        }
    }
}

/// What is looked at.
pub(super) fn get<T: 'static>(path: &'static str, access: Access, handler: impl Handler<T, AppState>) -> Endpoint {
    Endpoint::new("GET", path, access, Proof::None, routing::get(handler))
}

/// A form of a page. One that is refused answers with its page, and costs as much: the tests compare the two.
pub(super) fn form<T: 'static>(path: &'static str, access: Access, handler: impl Handler<T, AppState>) -> Endpoint {
    Endpoint::new("POST", path, access, Proof::Csrf, routing::post(handler))
}

/// A form without a session.
pub(super) fn first_form<T: 'static>(
    path: &'static str,
    access: Access,
    handler: impl Handler<T, AppState>,
) -> Endpoint {
    Endpoint::new("POST", path, access, Proof::PreSession, routing::post(handler))
}

/// What a gateway posts, and signs.
pub(super) fn signed<T: 'static>(path: &'static str, access: Access, handler: impl Handler<T, AppState>) -> Endpoint {
    let row = Endpoint::new("POST", path, access, Proof::Signature, routing::post(handler));
    Endpoint {
        queue: Queue::Hooks,
        ..row
    }
}
