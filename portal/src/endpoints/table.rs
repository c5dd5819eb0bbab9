//! The table of all endpoints: a new route needs its line here.

use super::Access::{
    Admin, Customer, Finance, Link, Metrics, Network, Operations, Ops, Public, Signature, SignedIn as AnyRole, Staff,
};
use super::{Access, Endpoint, Proof};
use crate::admission::Cost;

impl Endpoint {
    const fn new(method: &'static str, path: &'static str, access: Access, proof: Proof) -> Endpoint {
        Endpoint {
            method,
            path,
            access,
            proof,
            cost: Cost::Light,
        }
    }

    const fn read(self) -> Endpoint {
        Endpoint {
            cost: Cost::Read,
            ..self
        }
    }

    const fn heavy(self) -> Endpoint {
        Endpoint {
            cost: Cost::Heavy,
            ..self
        }
    }
}

/// What is looked at.
const fn get(path: &'static str, access: Access) -> Endpoint {
    Endpoint::new("GET", path, access, Proof::None)
}

/// A form of a page. One that is refused answers with its page, and costs as much: the tests compare the two.
const fn form(path: &'static str, access: Access) -> Endpoint {
    Endpoint::new("POST", path, access, Proof::Csrf)
}

/// A form without a session.
const fn first_form(path: &'static str, access: Access) -> Endpoint {
    Endpoint::new("POST", path, access, Proof::PreSession)
}

/// All of them, by who uses them.
#[rustfmt::skip]
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    // Health, metrics, files, gateways
    get("/healthz", Public),
    get("/readyz", Public),
    get("/metrics", Metrics),
    get("/assets/{name}", Public),
    Endpoint::new("POST", "/hooks/{gateway}", Signature, Proof::Signature),

    // Signing in and out, links of mails
    get("/", AnyRole),
    get("/signin", Public),
    first_form("/signin", Public),
    get("/signin/code", Public),
    first_form("/signin/code", Public),
    form("/signout", AnyRole),
    get("/forgot-password", Public),
    first_form("/forgot-password", Public),
    get("/reset-password/{token}", Link),
    first_form("/reset-password/{token}", Link),
    get("/verify-email", Public),
    get("/verify-email/{token}", Link),
    first_form("/verify-email/{token}", Link),

    // Everybody's account
    get("/account", AnyRole),
    get("/account/password", AnyRole),
    form("/account/password", AnyRole),
    get("/account/sessions", AnyRole),
    get("/account/sessions/others", AnyRole),
    form("/account/sessions/others", AnyRole),
    get("/account/sessions/{session}/end", AnyRole),
    form("/account/sessions/{session}/end", AnyRole),
    get("/account/two-factor", AnyRole),
    get("/account/two-factor/begin", AnyRole),
    form("/account/two-factor/begin", AnyRole),
    get("/account/two-factor/cancel", AnyRole),
    form("/account/two-factor/cancel", AnyRole),
    get("/account/two-factor/confirm", AnyRole),
    form("/account/two-factor/confirm", AnyRole),
    get("/account/two-factor/recovery-codes", AnyRole),
    form("/account/two-factor/recovery-codes", AnyRole),
    get("/account/two-factor/off", AnyRole),
    form("/account/two-factor/off", AnyRole),
    get("/account/address", AnyRole),
    form("/account/address", Customer),
    get("/account/address/verify", AnyRole),
    form("/account/address/verify", Customer),

    // Customers: usage
    get("/usage", Customer).read(),
    get("/usage/{service}", Customer).read(),
    get("/usage/{service}/usage.csv", Customer).heavy(),
    get("/api/v1/services", Customer).read(),
    get("/api/v1/services/{service}/usage", Customer).read(),
    get("/api/v1/services/{service}/period", Customer).read(),

    // Customers: invoices and payments
    get("/invoices", Customer),
    get("/invoices/invoices.csv", Customer).heavy(),
    get("/invoices/{invoice}", Customer),
    form("/invoices/{invoice}/pay", Customer),
    form("/invoices/{invoice}/pay-from-credit", Customer),
    get("/invoices/{invoice}/pdf", Customer).read(),
    get("/invoices/{invoice}/xml", Customer).read(),
    get("/invoices/{invoice}/lines/{line}", Customer).heavy(),
    get("/api/v1/invoices", Customer),
    get("/api/v1/invoices/{invoice}", Customer),
    get("/api/v1/invoices/{invoice}/lines/{line}/explain", Customer).heavy(),
    form("/payments/{payment}/give-up", Customer),
    form("/payments/{payment}/confirm", Customer),
    get("/payment-methods", Customer),
    form("/payment-methods/add", Customer),
    form("/payment-methods/finish", Customer),
    get("/payment-methods/return", Customer),
    form("/payment-methods/return", Customer),
    form("/payment-methods/{method}/default", Customer),
    form("/payment-methods/{method}/remove", Customer),
    get("/test-gateway/setups/{setup}", Customer),
    form("/test-gateway/setups/{setup}", Customer),
    get("/test-gateway/charges/{charge}", Customer),
    form("/test-gateway/charges/{charge}", Customer),
    get("/credit", Customer).read(),
    form("/credit/buy", Customer).read(),
    form("/credit/top-up", Customer).read(),
    form("/credit/top-up/off", Customer).read(),
    get("/api/v1/credit", Customer),
    get("/api/v1/credit/movements", Customer),
    get("/budget", Customer).read(),
    form("/budget", Customer).read(),
    form("/budget/clear", Customer).read(),
    form("/budget/services", Customer).read(),
    form("/budget/unlock", Customer).read(),
    get("/api/v1/budget", Customer).read(),

    // Customers: plans and subscriptions
    get("/plans", Customer),
    get("/plans/{plan}/checkout", Customer).heavy(),
    form("/plans/{plan}/checkout", Customer).heavy(),
    get("/subscriptions", Customer).read(),
    get("/subscriptions/{subscription}", Customer).read(),
    get("/subscriptions/{subscription}/change", Customer).heavy(),
    form("/subscriptions/{subscription}/change", Customer).heavy(),
    get("/subscriptions/{subscription}/addon", Customer).heavy(),
    form("/subscriptions/{subscription}/addon", Customer).heavy(),
    get("/subscriptions/{subscription}/cancel", Customer).heavy(),
    form("/subscriptions/{subscription}/cancel", Customer).heavy(),
    form("/subscriptions/{subscription}/resume", Customer).read(),
    form("/subscriptions/{subscription}/changes/{change}/cancel", Customer).read(),
    get("/api/v1/subscriptions", Customer).read(),
    get("/api/v1/subscriptions/{subscription}", Customer).read(),
    get("/api/v1/plans", Customer),

    // Customers: events
    get("/notifications", Customer),
    form("/notifications/read", Customer),
    get("/api/v1/notifications", Customer),
    get("/webhooks", Customer),
    form("/webhooks", Customer),
    get("/webhooks/{endpoint}", Customer),
    form("/webhooks/{endpoint}/rotate", Customer),
    form("/webhooks/{endpoint}/enable", Customer),
    form("/webhooks/{endpoint}/remove", Customer),
    form("/webhooks/{endpoint}/replay", Customer),

    // Staff
    get("/search", Staff).read(),

    // Operations and network
    get("/ops", Ops).read(),
    get("/ops/services/{service}", Ops).read(),
    get("/ops/services/{service}/usage.csv", Ops).heavy(),
    form("/ops/services/{service}/attacks", Ops).read(),
    form("/ops/services/{service}/attacks/{exclusion}/revoke", Ops).read(),
    get("/api/v1/ops/overview", Ops).read(),
    get("/api/v1/ops/services/{service}/usage", Ops).read(),
    get("/ops/jobs", Operations),
    get("/ops/jobs/{job}", Operations),
    form("/ops/jobs/{job}/run", Operations),
    get("/exporters", Network).read(),
    get("/exporters/list", Network).read(),
    get("/api/v1/exporters", Network).read(),

    // Finance
    get("/finance", Finance),
    get("/finance/invoices.csv", Finance).heavy(),
    get("/finance/invoices/{invoice}", Finance),
    get("/finance/invoices/{invoice}/pdf", Finance).read(),
    get("/finance/invoices/{invoice}/xml", Finance).read(),
    get("/finance/invoices/{invoice}/lines/{line}", Finance).heavy(),
    form("/finance/invoices/{invoice}/credit", Finance),
    form("/finance/invoices/{invoice}/void", Finance),
    form("/finance/invoices/{invoice}/write-off", Finance),
    form("/finance/invoices/{invoice}/transfer", Finance),
    get("/finance/customers", Finance).read(),
    get("/finance/customers/{customer}", Finance).read(),
    form("/finance/customers/{customer}/profile", Finance).read(),
    form("/finance/customers/{customer}/vat", Finance).read(),
    form("/finance/customers/{customer}/charge", Finance).read(),
    form("/finance/customers/{customer}/grant", Finance).read(),
    form("/finance/customers/{customer}/transfer", Finance).read(),
    form("/finance/customers/{customer}/close", Finance).read(),
    form("/finance/customers/{customer}/terminate", Admin).read(),
    form("/finance/customers/{customer}/delete", Admin).read(),
    get("/finance/payments", Finance),
    get("/finance/payments/{payment}", Finance),
    get("/finance/payments/{payment}/refund", Finance),
    form("/finance/payments/{payment}/refund", Finance),
    form("/finance/payments/{payment}/reverse", Finance),
    get("/finance/held", Finance).read(),
    get("/finance/ledger", Finance).read(),
    get("/finance/transactions", Finance).read(),
    get("/finance/aging", Finance).read(),
    get("/finance/unmeasured", Finance).read(),
    form("/finance/unmeasured/{customer}", Finance).read(),
    get("/finance/export", Finance).read(),
    get("/finance/export/month.xlsx", Finance).heavy(),
    get("/finance/export/{sheet}", Finance).heavy(),
    get("/api/v1/finance/aging", Finance).read(),
    get("/api/v1/finance/balances", Finance).read(),
    get("/api/v1/finance/collection", Finance).read(),
    get("/api/v1/finance/held", Finance).read(),
    get("/api/v1/finance/transactions", Finance).read(),
    get("/api/v1/finance/customers/{customer}/statement", Finance).read(),

    // Administration
    get("/admin", Admin),
    get("/admin/plans", Admin),
    form("/admin/plans", Admin),
    form("/admin/plans/free", Admin),
    get("/admin/plans/{plan}", Admin),
    form("/admin/plans/{plan}/edit", Admin),
    form("/admin/plans/{plan}/price", Admin),
    form("/admin/plans/{plan}/stock", Admin),
    form("/admin/plans/{plan}/archive", Admin),
    get("/admin/coupons", Admin),
    form("/admin/coupons", Admin),
    form("/admin/coupons/{coupon}/archive", Admin),
    get("/admin/approvals", Admin),
    form("/admin/approvals/{approval}/approve", Admin),
    form("/admin/approvals/{approval}/reject", Admin),
    get("/admin/transfers", Admin),
    form("/admin/transfers", Admin),
    form("/admin/transfers/{transfer}/{step}", Admin),
    get("/admin/deals", Admin),
    form("/admin/deals", Admin),
    get("/admin/taxes", Admin),
    form("/admin/taxes", Admin),
    form("/admin/taxes/{rate}/end", Admin),
    get("/admin/entities", Admin),
    form("/admin/entities", Admin),
    form("/admin/entities/{entity}", Admin),
    get("/admin/clock", Admin),
    form("/admin/clock/confirm", Admin),
    get("/admin/users", Admin),
    get("/admin/users/{user}", Admin),
    form("/admin/users/{user}/{act}", Admin),
    get("/admin/audit", Admin),
];
