//! The table of all endpoints: adding one is its row here and its handler.
//!
//! A row says the method and path, who may ([`Access`](super::Access)), what answers, and what it costs (`.read()`, `.heavy()`; light without
//! either). A row of the API says besides what the OpenAPI document says of it.

use super::Access::{
    Admin, Customer, Finance, Link, Metrics, Network, Operations, Ops, Public, Signature, SignedIn as AnyRole, Staff,
};
use super::operation::{Area, Operation};
use super::row::{first_form, form, get, signed};
use super::{Endpoint, api_page, description};
use crate::pages::{
    account, admin, budget, credit, finance, invoices, jobs, notifications, paying, payment_methods, plans, search,
    signin, subscriptions, test_gateway, usage, webhooks,
};
use crate::{api, assets, exporters, health, hooks, metrics, overview, pages, range, series};

/// All of them, by who uses them.
#[rustfmt::skip]
pub(super) fn rows() -> Vec<Endpoint> {
    vec![
        // Health, metrics, files, gateways
        get("/healthz", Public, health::healthy).unqueued(),
        get("/readyz", Public, health::ready).unqueued(),
        get("/metrics", Metrics, metrics::show).unqueued(),
        get("/assets/{name}", Public, assets::serve),
        signed("/hooks/{gateway}", Signature, hooks::receive),

        // Signing in and out, links of mails
        get("/", AnyRole, pages::home),
        get("/signin", Public, signin::show),
        first_form("/signin", Public, signin::sign_in),
        get("/signin/code", Public, signin::code::show),
        first_form("/signin/code", Public, signin::code::check),
        form("/signout", AnyRole, signin::sign_out),
        get("/forgot-password", Public, signin::password::forgot),
        first_form("/forgot-password", Public, signin::password::ask),
        get("/reset-password/{token}", Link, signin::password::link),
        first_form("/reset-password/{token}", Link, signin::password::set),
        get("/verify-email", Public, account::address::verified),
        get("/verify-email/{token}", Link, account::address::link),
        first_form("/verify-email/{token}", Link, account::address::confirm),

        // Everybody's account
        get("/account", AnyRole, account::show),
        get("/account/password", AnyRole, account::to_account),
        form("/account/password", AnyRole, account::change),
        get("/account/sessions", AnyRole, account::sessions::show),
        get("/account/sessions/others", AnyRole, account::to_sessions),
        form("/account/sessions/others", AnyRole, account::sessions::end_others),
        get("/account/sessions/{session}/end", AnyRole, account::to_sessions),
        form("/account/sessions/{session}/end", AnyRole, account::sessions::end_one),
        get("/account/tokens", AnyRole, account::tokens::show),
        form("/account/tokens", AnyRole, account::tokens::add),
        get("/account/tokens/{api_token}/revoke", AnyRole, account::to_tokens),
        form("/account/tokens/{api_token}/revoke", AnyRole, account::tokens::revoke),
        get("/account/two-factor", AnyRole, account::two_factor::show),
        get("/account/two-factor/begin", AnyRole, account::to_second_factor),
        form("/account/two-factor/begin", AnyRole, account::two_factor::begin),
        get("/account/two-factor/cancel", AnyRole, account::to_second_factor),
        form("/account/two-factor/cancel", AnyRole, account::two_factor::cancel),
        get("/account/two-factor/confirm", AnyRole, account::to_second_factor),
        form("/account/two-factor/confirm", AnyRole, account::two_factor::confirm),
        get("/account/two-factor/recovery-codes", AnyRole, account::to_second_factor),
        form("/account/two-factor/recovery-codes", AnyRole, account::two_factor::renew),
        get("/account/two-factor/off", AnyRole, account::to_second_factor),
        form("/account/two-factor/off", AnyRole, account::two_factor::turn_off),
        get("/account/address", AnyRole, account::to_account),
        form("/account/address", Customer, account::address::change),
        get("/account/address/verify", AnyRole, account::to_account),
        form("/account/address/verify", Customer, account::address::ask),

        // Customers: usage
        get("/usage", Customer, usage::list).read(),
        get("/usage/{service}", Customer, usage::service::show).read(),
        get("/usage/{service}/usage.csv", Customer, usage::service::download).heavy(),
        get("/api/v1/services", Customer, api::usage::services).read()
            .documented(Operation::new(Area::Usage, "List services").answers::<api::usage::ServicesAnswer>()),
        get("/api/v1/services/{service}/usage", Customer, api::usage::usage).read()
            .documented(Operation::new(Area::Usage, "Read the usage of a service as a series").query::<range::RangeQuery>().answers::<series::UsageAnswer>()),
        get("/api/v1/services/{service}/period", Customer, api::usage::period).read()
            .documented(Operation::new(Area::Usage, "Read what a service used in its current billing period").answers::<api::usage::PeriodAnswer>()),

        // Customers: invoices and payments
        get("/invoices", Customer, invoices::list),
        get("/invoices/invoices.csv", Customer, invoices::download).heavy(),
        get("/invoices/{invoice}", Customer, invoices::one),
        form("/invoices/{invoice}/pay", Customer, invoices::pay::pay),
        form("/invoices/{invoice}/pay-from-credit", Customer, invoices::pay::pay_from_credit),
        get("/invoices/{invoice}/pdf", Customer, invoices::pdf).read(),
        get("/invoices/{invoice}/xml", Customer, invoices::xml).read(),
        get("/invoices/{invoice}/lines/{line}", Customer, invoices::line).heavy(),
        get("/api/v1/invoices", Customer, api::invoices::list)
            .documented(Operation::new(Area::Invoices, "List finalised invoices").query::<api::invoices::InvoicesQuery>().answers::<api::invoices::InvoicesAnswer>()),
        get("/api/v1/invoices/{invoice}", Customer, api::invoices::one)
            .documented(Operation::new(Area::Invoices, "Read an invoice with its lines").answers::<api::invoices::InvoiceWithLinesAnswer>()),
        get("/api/v1/invoices/{invoice}/pdf", Customer, api::invoices::pdf).read()
            .documented(Operation::new(Area::Invoices, "Read an invoice as PDF").answers_file("application/pdf")),
        get("/api/v1/invoices/{invoice}/xml", Customer, api::invoices::xml).read()
            .documented(Operation::new(Area::Invoices, "Read an invoice as XML (UBL by EN 16931)").answers_file("application/xml")),
        get("/api/v1/invoices/{invoice}/lines/{line}/explain", Customer, api::invoices::explain).heavy()
            .documented(Operation::new(Area::Invoices, "Explain a usage line down to days and remote addresses").answers::<api::invoices::ExplainAnswer>()),
        form("/payments/{payment}/give-up", Customer, paying::give_up),
        form("/payments/{payment}/confirm", Customer, paying::confirm),
        get("/payment-methods", Customer, payment_methods::list),
        form("/payment-methods/add", Customer, payment_methods::add),
        form("/payment-methods/finish", Customer, payment_methods::finish),
        get("/payment-methods/return", Customer, payment_methods::gateway_return),
        form("/payment-methods/return", Customer, payment_methods::returned),
        form("/payment-methods/{method}/default", Customer, payment_methods::make_default),
        form("/payment-methods/{method}/remove", Customer, payment_methods::remove),
        get("/test-gateway/setups/{setup}", Customer, test_gateway::show_setup),
        form("/test-gateway/setups/{setup}", Customer, test_gateway::choose),
        get("/test-gateway/charges/{charge}", Customer, test_gateway::show_charge),
        form("/test-gateway/charges/{charge}", Customer, test_gateway::answer),
        get("/credit", Customer, credit::show).read(),
        form("/credit/buy", Customer, credit::buy).read(),
        form("/credit/top-up", Customer, credit::set).read(),
        form("/credit/top-up/off", Customer, credit::switch_off).read(),
        get("/api/v1/credit", Customer, api::credit::credit)
            .documented(Operation::new(Area::Credit, "Read the credit balance and the automatic top-up").answers::<api::credit::CreditAnswer>()),
        get("/api/v1/credit/movements", Customer, api::credit::movements)
            .documented(Operation::new(Area::Credit, "List movements of credit").query::<api::credit::MovementsQuery>().answers::<api::credit::MovementsAnswer>()),
        get("/budget", Customer, budget::show).read(),
        form("/budget", Customer, budget::set).read(),
        form("/budget/clear", Customer, budget::clear).read(),
        form("/budget/services", Customer, budget::exclude).read(),
        form("/budget/unlock", Customer, budget::unlock).read(),
        get("/api/v1/budget", Customer, api::credit::budget).read()
            .documented(Operation::new(Area::Credit, "Read the budget of the current cycle and its alerts").answers::<api::credit::BudgetAnswer>()),

        // Customers: plans and subscriptions
        get("/plans", Customer, plans::list),
        get("/plans/{plan}/checkout", Customer, plans::checkout::show).heavy(),
        form("/plans/{plan}/checkout", Customer, plans::checkout::order).heavy(),
        get("/subscriptions", Customer, subscriptions::list).read(),
        get("/subscriptions/{subscription}", Customer, subscriptions::one).read(),
        get("/subscriptions/{subscription}/change", Customer, subscriptions::terms::show_change).heavy(),
        form("/subscriptions/{subscription}/change", Customer, subscriptions::terms::make_change).heavy(),
        get("/subscriptions/{subscription}/addon", Customer, subscriptions::terms::show_addon).heavy(),
        form("/subscriptions/{subscription}/addon", Customer, subscriptions::terms::make_addon).heavy(),
        get("/subscriptions/{subscription}/cancel", Customer, subscriptions::cancel::show).heavy(),
        form("/subscriptions/{subscription}/cancel", Customer, subscriptions::cancel::make).heavy(),
        form("/subscriptions/{subscription}/resume", Customer, subscriptions::resume).read(),
        form("/subscriptions/{subscription}/changes/{change}/cancel", Customer, subscriptions::withdraw_change).read(),
        get("/api/v1/subscriptions", Customer, api::subscriptions::list).read()
            .documented(Operation::new(Area::Subscriptions, "List subscriptions").answers::<api::subscriptions::SubscriptionsAnswer>()),
        get("/api/v1/subscriptions/{subscription}", Customer, api::subscriptions::one).read()
            .documented(Operation::new(Area::Subscriptions, "Read a subscription and its next invoice").answers::<api::subscriptions::SubscriptionWithNextAnswer>()),
        get("/api/v1/plans", Customer, api::subscriptions::plans)
            .documented(Operation::new(Area::Subscriptions, "List plans on sale in the currency of the customer").answers::<api::subscriptions::PlansAnswer>()),

        // Customers: events
        get("/notifications", Customer, notifications::list),
        form("/notifications/read", Customer, notifications::mark_read),
        get("/api/v1/notifications", Customer, api::subscriptions::notifications)
            .documented(Operation::new(Area::Notifications, "List notifications").query::<api::subscriptions::NotificationsQuery>().answers::<api::subscriptions::NotificationsAnswer>()),
        get("/webhooks", Customer, webhooks::list),
        form("/webhooks", Customer, webhooks::add),
        get("/webhooks/{endpoint}", Customer, webhooks::one),
        form("/webhooks/{endpoint}/rotate", Customer, webhooks::rotate),
        form("/webhooks/{endpoint}/enable", Customer, webhooks::enable),
        form("/webhooks/{endpoint}/remove", Customer, webhooks::remove),
        form("/webhooks/{endpoint}/replay", Customer, webhooks::replay),

        // The description of the API
        get("/api", AnyRole, api_page::show),
        get("/api/v1/openapi.json", Public, description::show)
            .documented(Operation::new(Area::Description, "Read this description").answers::<description::Description>()),

        // Staff
        get("/search", Staff, search::show).read(),

        // Operations and network
        get("/ops", Ops, pages::overview::show).read(),
        get("/ops/services/{service}", Ops, pages::overview::service::show).read(),
        get("/ops/services/{service}/usage.csv", Ops, pages::overview::service::download).heavy(),
        form("/ops/services/{service}/attacks", Operations, pages::overview::attacks::flag).read(),
        form("/ops/services/{service}/attacks/{exclusion}/revoke", Operations, pages::overview::attacks::revoke).read(),
        get("/api/v1/ops/overview", Ops, api::network::overview).read()
            .documented(Operation::new(Area::Operations, "Read traffic of the whole network over time").query::<overview::query::OverviewQuery>().answers::<overview::Answer>()),
        get("/api/v1/ops/services/{service}/usage", Ops, api::usage::usage_for_staff).read()
            .documented(Operation::new(Area::Operations, "Read the usage of any service as a series").query::<range::RangeQuery>().answers::<series::UsageAnswer>()),
        get("/ops/jobs", Operations, jobs::show),
        get("/ops/jobs/{job}", Operations, jobs::show_one),
        form("/ops/jobs/{job}/run", Operations, jobs::run),
        get("/exporters", Network, pages::exporters::show).read(),
        get("/exporters/list", Network, pages::exporters::list).read(),
        get("/api/v1/exporters", Network, api::network::exporters).read()
            .documented(Operation::new(Area::Operations, "List exporters, their status and what is missing in their configuration").answers::<exporters::Exporters>()),

        // Finance
        get("/finance", Finance, finance::show),
        get("/finance/invoices.csv", Finance, finance::csv).heavy(),
        get("/finance/invoices/{invoice}", Finance, finance::invoice::show),
        get("/finance/invoices/{invoice}/pdf", Finance, finance::document::pdf).read(),
        get("/finance/invoices/{invoice}/xml", Finance, finance::document::xml).read(),
        get("/finance/invoices/{invoice}/lines/{line}", Finance, finance::invoice::line).heavy(),
        form("/finance/invoices/{invoice}/credit", Finance, finance::invoice_actions::credit),
        form("/finance/invoices/{invoice}/void", Finance, finance::invoice_actions::void),
        form("/finance/invoices/{invoice}/write-off", Finance, finance::invoice_actions::write_off),
        form("/finance/invoices/{invoice}/transfer", Finance, finance::invoice_actions::transfer),
        get("/finance/customers", Finance, finance::customers::show).read(),
        get("/finance/customers/{customer}", Finance, finance::customer::show).read(),
        form("/finance/customers/{customer}/profile", Finance, finance::customer::profile).read(),
        form("/finance/customers/{customer}/vat", Finance, finance::customer::vat_accept).read(),
        form("/finance/customers/{customer}/charge", Finance, finance::customer::charge).read(),
        form("/finance/customers/{customer}/grant", Finance, finance::customer::grant).read(),
        form("/finance/customers/{customer}/transfer", Finance, finance::customer_transfer::transfer).read(),
        form("/finance/customers/{customer}/close", Finance, finance::customer::close).read(),
        form("/finance/customers/{customer}/terminate", Admin, finance::customer_end::terminate).read(),
        form("/finance/customers/{customer}/delete", Admin, finance::customer_end::delete).read(),
        get("/finance/payments", Finance, finance::payments::list),
        get("/finance/payments/{payment}", Finance, finance::payments::show),
        get("/finance/payments/{payment}/refund", Finance, finance::refund::show),
        form("/finance/payments/{payment}/refund", Finance, finance::refund::refund),
        form("/finance/payments/{payment}/reverse", Finance, finance::payments::reverse),
        get("/finance/held", Finance, finance::held::show).read(),
        get("/finance/ledger", Finance, finance::ledger::show).read(),
        get("/finance/transactions", Finance, finance::transactions::show).read(),
        get("/finance/aging", Finance, finance::aging::show).read(),
        get("/finance/unmeasured", Finance, finance::unmeasured::show).read(),
        form("/finance/unmeasured/{customer}", Finance, finance::unmeasured::confirm).read(),
        get("/finance/export", Finance, finance::export::show).read(),
        get("/finance/export/month.xlsx", Finance, finance::export::workbook).heavy(),
        get("/finance/export/{sheet}", Finance, finance::export::sheet).heavy(),
        get("/api/v1/finance/aging", Finance, api::finance::open_invoices).read()
            .documented(Operation::new(Area::Finance, "Read open invoices by how long they have been due").query::<api::finance::AgingQuery>().answers::<api::finance::AgingAnswer>()),
        get("/api/v1/finance/balances", Finance, api::finance::balances).read()
            .documented(Operation::new(Area::Finance, "List what customers owe and have as credit").answers::<api::finance::BalancesAnswer>()),
        get("/api/v1/finance/collection", Finance, api::finance::collection).read()
            .documented(Operation::new(Area::Finance, "List invoices in collection and its terms").answers::<api::finance::CollectionAnswer>()),
        get("/api/v1/finance/held", Finance, api::finance::held).read()
            .documented(Operation::new(Area::Finance, "List invoices that are held for a person").answers::<api::finance::HeldAnswer>()),
        get("/api/v1/finance/transactions", Finance, api::finance::transactions).read()
            .documented(Operation::new(Area::Finance, "List ledger transactions").query::<api::finance::TransactionsQuery>().answers::<api::finance::TransactionsAnswer>()),
        get("/api/v1/finance/customers/{customer}/statement", Finance, api::finance::statement).read()
            .documented(Operation::new(Area::Finance, "Read the account statement of a customer").query::<api::finance::StatementQuery>().answers::<api::finance::StatementAnswer>()),

        // Administration
        get("/admin", Admin, admin::to_plans),
        get("/admin/plans", Admin, admin::plans::show),
        form("/admin/plans", Admin, admin::plans::add),
        form("/admin/plans/free", Admin, admin::plans::add_free),
        get("/admin/plans/{plan}", Admin, admin::plan::show),
        form("/admin/plans/{plan}/edit", Admin, admin::plan::edit),
        form("/admin/plans/{plan}/price", Admin, admin::plan::price),
        form("/admin/plans/{plan}/stock", Admin, admin::plan::stock),
        form("/admin/plans/{plan}/archive", Admin, admin::plan::archive),
        get("/admin/coupons", Admin, admin::coupons::show),
        form("/admin/coupons", Admin, admin::coupons::add),
        form("/admin/coupons/{coupon}/archive", Admin, admin::coupons::archive),
        get("/admin/approvals", Admin, admin::approvals::show),
        form("/admin/approvals/{approval}/approve", Admin, admin::approvals::approve),
        form("/admin/approvals/{approval}/reject", Admin, admin::approvals::reject),
        get("/admin/transfers", Admin, admin::transfers::show),
        form("/admin/transfers", Admin, admin::transfers::add),
        form("/admin/transfers/{transfer}/{step}", Admin, admin::transfers::step),
        get("/admin/deals", Admin, admin::deals::show),
        form("/admin/deals", Admin, admin::deals::add),
        get("/admin/taxes", Admin, admin::taxes::show),
        form("/admin/taxes", Admin, admin::taxes::add),
        form("/admin/taxes/{rate}/end", Admin, admin::taxes::end),
        get("/admin/entities", Admin, admin::entities::show),
        form("/admin/entities", Admin, admin::entities::add),
        form("/admin/entities/{entity}", Admin, admin::entities::change),
        get("/admin/clock", Admin, admin::clock::show),
        form("/admin/clock/confirm", Admin, admin::clock::confirm),
        get("/admin/users", Admin, admin::users::list),
        get("/admin/users/{user}", Admin, admin::users::show),
        form("/admin/users/{user}/{act}", Admin, admin::users::act),
        get("/admin/audit", Admin, admin::audit::show),
    ]
}
