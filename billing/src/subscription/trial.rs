//! What is done to a customer's subscriptions, carried out on trial: for what it would cost.

use schemas::db::Database;
use schemas::ids::CustomerId;
use schemas::trial::{Trial, TrialTable};

/// Services move between customers, and each customer's subscriptions of them stay: whatever was ever the customer's, and
/// whatever belongs to its services.
const SERVICES: &str = "customer_id = $1 OR id IN (SELECT service_id FROM main.subscriptions WHERE customer_id = $1)";
const SUBSCRIPTIONS: &str = "customer_id = $1 OR service_id IN (SELECT id FROM main.services WHERE customer_id = $1)";
const OF_SUBSCRIPTIONS: &str = "subscription_id IN (SELECT id FROM main.subscriptions WHERE customer_id = $1 OR service_id IN \
     (SELECT id FROM main.services WHERE customer_id = $1))";
const CUSTOMERS: &str = "id = $1 OR id IN (SELECT customer_id FROM main.subscriptions WHERE service_id IN \
     (SELECT id FROM main.services WHERE customer_id = $1))";

/// What ordering, changing and cancelling write to, and which of its rows they read.
const TABLES: &[TrialTable] = &[
    table("sequences", ""),
    table("customers", CUSTOMERS),
    table("services", SERVICES),
    // Stock is taken, redemptions are counted.
    table("plans", ""),
    table("coupons", ""),
    table("coupon_redemptions", "customer_id = $1"),
    table("subscriptions", SUBSCRIPTIONS),
    table("phases", OF_SUBSCRIPTIONS),
    table("holds", OF_SUBSCRIPTIONS),
    table("scheduled_changes", OF_SUBSCRIPTIONS),
    table("subscription_events", OF_SUBSCRIPTIONS),
    // Written only.
    table("events", "$1 IS NULL"),
    table("search_keys", "$1 IS NULL"),
];

const fn table(name: &'static str, rows: &'static str) -> TrialTable {
    TrialTable { name, rows }
}

/// Begins a trial of something that is done for a customer.
///
/// # Errors
/// As the database answers.
pub async fn begin_trial(database: &Database, customer: CustomerId) -> Result<Trial, sqlx::Error> {
    Trial::begin(database, TABLES, customer.0).await
}
