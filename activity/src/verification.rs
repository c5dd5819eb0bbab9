//! Whether mail to a customer's address is read: asked by a link, answered by whoever opens it.
//!
//! ```text
//! request ──▶ event `email.verification_requested` ──outbox──▶ deliver ── issue: a token for this very mail
//!                                                                           │ row in `email_verifications`: its SHA-256
//!                                                                           ▼
//!               customers.email_verified_at_ms ◀── confirm ◀── a button on the page that the mail's link opens
//! ```
//!
//! * A token is made when its mail is sent and is nowhere but in that mail: neither the event nor the database has it. A
//!   mail that is sent twice, after a crash, has two tokens; both are good.
//! * A token is good for [`VALID_MS`], for the address that the mail went to, and once: the first that is used voids all
//!   others of the customer.
//! * Looking at a link changes nothing, so that programs which open the links of mails verify nothing.
//! * Whose an address is, is not for customers to know (S1): a change of address that is refused because it is another's counts as
//!   one that is made, at most [`MAX_PER_HOUR`] and [`MAX_PER_DAY`] of both, and nothing is sent.
//! * At most [`MAX_PER_HOUR`] and [`MAX_PER_DAY`] mails are asked for by one customer, whatever the address: nobody's mailbox
//!   is filled with them.

use schemas::db::Database;
use schemas::ids::CustomerId;
use schemas::inventory::{self, InventoryError};
use serde_json::json;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::event::{EventError, EventType, NewEvent, publish};
use crate::link_token;

const HOUR_MS: i64 = 3_600_000;
/// How long a link can be used, from when it was sent.
pub const VALID_MS: i64 = 24 * HOUR_MS;
/// Mails that one customer can ask for in an hour.
pub const MAX_PER_HOUR: i64 = 3;
/// Mails that one customer can ask for in a day.
pub const MAX_PER_DAY: i64 = 8;

/// Why no mail could be asked for, or no link used.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("look up the customer")]
    Inventory(#[from] InventoryError),
    #[error("ask for the mail")]
    Event(#[from] EventError),
}

schemas::error_codes! {
    VerificationError: "verification";
    of [Database, Inventory, Event]
    source []
}

/// What became of asking for a mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerificationMailOutcome {
    /// It is on its way.
    Mailed,
    /// There is nothing to verify.
    Verified,
    /// So many were asked for that the next one waits until then.
    TooMany { until_ms: i64 },
    /// The address cannot be had; only a customer's own change is answered so.
    Unavailable,
}

/// Asks for a mail with a link to the customer's present address.
///
/// # Errors
/// When there is no such customer, or as the database answers.
pub async fn request(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<VerificationMailOutcome, VerificationError> {
    // Two who ask at once take turns, so that the second one is counted.
    sqlx::query("UPDATE customers SET email = email WHERE id = $1")
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    let asking = inventory::customer(&mut *connection, customer).await?;
    if asking.email_verified_at_ms.is_some() {
        return Ok(VerificationMailOutcome::Verified);
    }
    if let Some(until_ms) = mails_full(connection, customer, now_ms).await? {
        return Ok(VerificationMailOutcome::TooMany { until_ms });
    }
    let new = NewEvent {
        event_type: EventType::EmailVerificationRequested,
        customer: Some(customer),
        subject: customer.to_string(),
        payload: json!({ "customer": customer, "email": asking.email }),
    };
    publish(connection, new, now_ms).await?;
    Ok(VerificationMailOutcome::Mailed)
}

/// Until when no mail is sent to a customer, where so many were asked for.
async fn mails_full(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<i64>, VerificationError> {
    let mails = format!(
        "SELECT created_at_ms AS at_ms FROM events WHERE customer_id = $1 AND created_at_ms > $2 AND event_type = '{}'",
        EventType::EmailVerificationRequested.name()
    );
    full(connection, &mails, customer, now_ms).await
}

/// As [`mails_full`], of changes of address, refused ones too.
async fn changes_full(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<i64>, VerificationError> {
    let changes =
        "SELECT requested_at_ms AS at_ms FROM address_changes WHERE customer_id = $1 AND requested_at_ms > $2";
    full(connection, changes, customer, now_ms).await
}

/// From when on one more fits in, where now none does. `instants` selects those of a customer ($1) after an instant ($2).
async fn full(
    connection: &mut AnyConnection,
    instants: &str,
    customer: CustomerId,
    now_ms: i64,
) -> Result<Option<i64>, VerificationError> {
    let sql = format!("{instants} ORDER BY at_ms DESC LIMIT 1 OFFSET $3");
    for (limit, span_ms) in [(MAX_PER_HOUR, HOUR_MS), (MAX_PER_DAY, 24 * HOUR_MS)] {
        // The one that must have left the span before another fits in.
        let row = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .bind(customer.0)
            .bind(now_ms - span_ms)
            .bind(limit - 1)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            let at_ms: i64 = row.try_get(0)?;
            return Ok(Some(at_ms + span_ms));
        }
    }
    Ok(None)
}

/// As [`change_address`], where the customer asks for it: the limits come first, and a refusal counts. Commit whatever is
/// answered, [`VerificationMailOutcome::Unavailable`] most of all.
///
/// # Errors
/// When it is no address, or there is no such customer.
pub async fn change_own_address(
    connection: &mut AnyConnection,
    customer: CustomerId,
    email: &str,
    now_ms: i64,
) -> Result<VerificationMailOutcome, VerificationError> {
    // Two who ask at once take turns, so that the second one is counted.
    sqlx::query("UPDATE customers SET email = email WHERE id = $1")
        .bind(customer.0)
        .execute(&mut *connection)
        .await?;
    let full = match changes_full(connection, customer, now_ms).await? {
        Some(until_ms) => Some(until_ms),
        None => mails_full(connection, customer, now_ms).await?,
    };
    // Before the address is looked at: what is said beyond the limit is the same of any.
    if let Some(until_ms) = full {
        return Ok(VerificationMailOutcome::TooMany { until_ms });
    }
    sqlx::query("DELETE FROM address_changes WHERE customer_id = $1 AND requested_at_ms <= $2")
        .bind(customer.0)
        .bind(now_ms - 24 * HOUR_MS)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO address_changes (customer_id, requested_at_ms) VALUES ($1, $2)")
        .bind(customer.0)
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    match change_address(connection, customer, email, now_ms).await {
        Err(VerificationError::Inventory(InventoryError::EmailTaken { .. })) => {
            Ok(VerificationMailOutcome::Unavailable)
        }
        answered => answered,
    }
}

/// Writes to another address from now on, which is not verified, and asks for a mail with a link to it. The address before is
/// told. Where so many were
/// asked for that none can be sent, it is for the caller to keep or to take back the change.
///
/// # Errors
/// When it is no address or another customer's, or there is no such customer.
pub async fn change_address(
    connection: &mut AnyConnection,
    customer: CustomerId,
    email: &str,
    now_ms: i64,
) -> Result<VerificationMailOutcome, VerificationError> {
    let before = inventory::customer(&mut *connection, customer).await?.email;
    inventory::change_email(connection, customer, email).await?;
    let after = inventory::customer(&mut *connection, customer).await?.email;
    if after != before {
        let notice = NewEvent {
            event_type: EventType::EmailChanged,
            customer: Some(customer),
            subject: customer.to_string(),
            payload: json!({ "customer": customer, "to": before, "email": after, "at_ms": now_ms }),
        };
        publish(connection, notice, now_ms).await?;
    }
    request(connection, customer, now_ms).await
}

/// A token for a mail to an address, which is all that knows it; `None` where that is not the customer's any more, or verified meanwhile.
pub async fn issue(
    database: &Database,
    customer: CustomerId,
    address: &str,
    now_ms: i64,
) -> Result<Option<String>, EventError> {
    let token = link_token::new();
    let mut transaction = database.begin_write().await?;
    sqlx::query("DELETE FROM email_verifications WHERE expires_at_ms <= $1")
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?;
    let issued = sqlx::query(
        "INSERT INTO email_verifications (token_hash, customer_id, email, created_at_ms, expires_at_ms) \
         SELECT $1, id, email, $2, $3 FROM customers WHERE id = $4 AND email = $5 AND email_verified_at_ms IS NULL",
    )
    .bind(link_token::hash(&token))
    .bind(now_ms)
    .bind(now_ms + VALID_MS)
    .bind(customer.0)
    .bind(address)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok((issued.rows_affected() == 1).then_some(token))
}

/// What a link is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkPurpose {
    pub customer: CustomerId,
    pub name: String,
    pub email: String,
}

/// What the link with this token is for; `None` where it is too old, was used, or the address has changed. Nothing is
/// changed by looking.
///
/// # Errors
/// As the database answers.
pub async fn pending(
    db: impl AnyExecutor<'_>,
    token: &str,
    now_ms: i64,
) -> Result<Option<LinkPurpose>, VerificationError> {
    let row = sqlx::query(
        "SELECT c.id, c.name, c.email FROM email_verifications v \
         JOIN customers c ON c.id = v.customer_id AND c.email = v.email \
         WHERE v.token_hash = $1 AND v.expires_at_ms > $2",
    )
    .bind(link_token::hash(token))
    .bind(now_ms)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(LinkPurpose {
        customer: CustomerId(row.try_get("id")?),
        name: row.try_get("name")?,
        email: row.try_get("email")?,
    }))
}

/// Uses a link: its address is verified. `None` as for [`pending`].
///
/// # Errors
/// As the database answers.
pub async fn confirm(
    connection: &mut AnyConnection,
    token: &str,
    now_ms: i64,
) -> Result<Option<LinkPurpose>, VerificationError> {
    let Some(pending) = pending(&mut *connection, token, now_ms).await? else {
        return Ok(None);
    };
    let verified = sqlx::query(
        "UPDATE customers SET email_verified_at_ms = $1 WHERE id = $2 AND email = $3 AND email_verified_at_ms IS NULL",
    )
    .bind(now_ms)
    .bind(pending.customer.0)
    .bind(&pending.email)
    .execute(&mut *connection)
    .await?;
    if verified.rows_affected() == 0 {
        return Ok(None);
    }
    sqlx::query("DELETE FROM email_verifications WHERE customer_id = $1")
        .bind(pending.customer.0)
        .execute(connection)
        .await?;
    Ok(Some(pending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    const NOW_MS: i64 = 1_700_000_000_000;

    async fn asked(world: &World, customer: CustomerId, now_ms: i64) -> VerificationMailOutcome {
        let mut transaction = world.database.begin_write().await.unwrap();
        let asked = request(&mut transaction, customer, now_ms).await.unwrap();
        transaction.commit().await.unwrap();
        asked
    }

    async fn confirmed(world: &World, token: &str, now_ms: i64) -> Option<LinkPurpose> {
        let mut transaction = world.database.begin_write().await.unwrap();
        let confirmed = confirm(&mut transaction, token, now_ms).await.unwrap();
        transaction.commit().await.unwrap();
        confirmed
    }

    async fn verified_at_ms(world: &World, customer: CustomerId) -> Option<i64> {
        let found = inventory::customer(world.database.pool(), customer).await.unwrap();
        found.email_verified_at_ms
    }

    async fn a_link_verifies_its_address_once(world: World) {
        let ada = world.customer().await;
        let ben = world.customer().await;
        let to_ada = "customer-0@example.net";
        let first = issue(&world.database, ada, to_ada, NOW_MS).await.unwrap().unwrap();
        let second = issue(&world.database, ada, to_ada, NOW_MS).await.unwrap().unwrap();
        let to_ben = issue(&world.database, ben, "customer-1@example.net", NOW_MS)
            .await
            .unwrap()
            .unwrap();
        let nobody = issue(&world.database, ada, "customer-1@example.net", NOW_MS)
            .await
            .unwrap();
        assert_eq!(nobody, None, "the address is another customer's");
        let stored: Vec<String> = sqlx::query_scalar("SELECT token_hash FROM email_verifications")
            .fetch_all(world.database.pool())
            .await
            .unwrap();
        assert_eq!(stored.len(), 3);
        assert!(!stored.contains(&first) && stored.contains(&link_token::hash(&first)));

        let shown = pending(world.database.pool(), &first, NOW_MS).await.unwrap().unwrap();
        assert_eq!((shown.customer, shown.email.as_str()), (ada, to_ada));
        assert_eq!(verified_at_ms(&world, ada).await, None, "looking verifies nothing");
        assert_eq!(confirmed(&world, "0000", NOW_MS).await, None);
        assert_eq!(
            confirmed(&world, &first, NOW_MS + VALID_MS).await,
            None,
            "a day is over"
        );
        assert_eq!(confirmed(&world, &first, NOW_MS + VALID_MS - 1).await.unwrap(), shown);
        assert_eq!(verified_at_ms(&world, ada).await, Some(NOW_MS + VALID_MS - 1));
        assert_eq!(verified_at_ms(&world, ben).await, None);
        for used in [&first, &second] {
            assert_eq!(confirmed(&world, used, NOW_MS).await, None);
        }
        assert!(pending(world.database.pool(), &to_ben, NOW_MS).await.unwrap().is_some());
        assert_eq!(asked(&world, ada, NOW_MS).await, VerificationMailOutcome::Verified);
        for _ in 0..MAX_PER_HOUR {
            assert_eq!(asked(&world, ben, NOW_MS).await, VerificationMailOutcome::Mailed);
        }
        let until_ms = NOW_MS + HOUR_MS;
        assert_eq!(
            asked(&world, ben, NOW_MS).await,
            VerificationMailOutcome::TooMany { until_ms }
        );
        assert_eq!(issue(&world.database, ada, to_ada, NOW_MS).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_link_verifies_its_address_once_on_sqlite() {
        a_link_verifies_its_address_once(World::new().await).await;
    }

    #[tokio::test]
    async fn a_link_verifies_its_address_once_on_postgres() {
        a_link_verifies_its_address_once(World::on_postgres().await).await;
    }

    #[tokio::test]
    async fn a_new_address_is_verified_anew_and_a_link_to_the_old_one_is_void() {
        let world = World::new().await;
        let ada = world.customer().await;
        let old = issue(&world.database, ada, "customer-0@example.net", NOW_MS)
            .await
            .unwrap()
            .unwrap();
        let mut transaction = world.database.begin_write().await.unwrap();
        let asked = change_address(&mut transaction, ada, "Billing@ada.example", NOW_MS)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(asked, VerificationMailOutcome::Mailed);
        assert_eq!(confirmed(&world, &old, NOW_MS).await, None);
        let new = issue(&world.database, ada, "billing@ada.example", NOW_MS)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            confirmed(&world, &new, NOW_MS).await.unwrap().email,
            "billing@ada.example"
        );
    }

    async fn changed(world: &World, customer: CustomerId, email: &str, now_ms: i64) -> VerificationMailOutcome {
        let mut transaction = world.database.begin_write().await.unwrap();
        let changed = change_own_address(&mut transaction, customer, email, now_ms)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        changed
    }

    async fn addresses_are_not_found_out(world: World) {
        let ada = world.customer().await;
        world.customer().await;
        let taken = "customer-1@example.net";
        for _ in 0..MAX_PER_HOUR {
            assert_eq!(
                changed(&world, ada, taken, NOW_MS).await,
                VerificationMailOutcome::Unavailable
            );
        }
        // From here on it is the same of any address.
        let until_ms = NOW_MS + HOUR_MS;
        for email in [taken, "free@example.net", "Customer-1@Example.net"] {
            assert_eq!(
                changed(&world, ada, email, until_ms - 1).await,
                VerificationMailOutcome::TooMany { until_ms },
                "{email}"
            );
        }
        let mut refused = MAX_PER_HOUR;
        for hour in 1..24 {
            let at_ms = NOW_MS + hour * HOUR_MS;
            while changed(&world, ada, taken, at_ms).await == VerificationMailOutcome::Unavailable {
                refused += 1;
            }
        }
        assert_eq!(refused, MAX_PER_DAY);
        let sent: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type LIKE 'email.%'")
            .fetch_one(world.database.pool())
            .await
            .unwrap();
        assert_eq!(sent, 0, "nobody is written to about a refusal");
        // Mails that were asked for count as well: what they leave no room for is not looked up.
        let ben = CustomerId(ada.0 + 1);
        for _ in 0..MAX_PER_HOUR {
            assert_eq!(asked(&world, ben, NOW_MS).await, VerificationMailOutcome::Mailed);
        }
        for email in ["customer-0@example.net", "free@example.net"] {
            assert_eq!(
                changed(&world, ben, email, NOW_MS).await,
                VerificationMailOutcome::TooMany { until_ms }
            );
        }
        let day_ms = NOW_MS + 48 * HOUR_MS;
        assert_eq!(
            changed(&world, ada, "free@example.net", day_ms).await,
            VerificationMailOutcome::Mailed
        );
    }

    #[tokio::test]
    async fn s1_addresses_are_not_found_out_on_sqlite() {
        addresses_are_not_found_out(World::new().await).await;
    }

    #[tokio::test]
    async fn s1_addresses_are_not_found_out_on_postgres() {
        addresses_are_not_found_out(World::on_postgres().await).await;
    }

    #[tokio::test]
    async fn only_so_many_mails_are_asked_for() {
        let world = World::new().await;
        let ada = world.customer().await;
        let ben = world.customer().await;
        let mut mailed = 0;
        for hour in 0..24 {
            let at_ms = NOW_MS + hour * HOUR_MS;
            while asked(&world, ada, at_ms).await == VerificationMailOutcome::Mailed {
                mailed += 1;
                assert!(mailed <= MAX_PER_HOUR * (hour + 1));
            }
        }
        assert_eq!(mailed, MAX_PER_DAY);
        let until_ms = NOW_MS + 24 * HOUR_MS;
        assert_eq!(
            asked(&world, ada, until_ms - 1).await,
            VerificationMailOutcome::TooMany { until_ms }
        );
        assert_eq!(asked(&world, ada, until_ms).await, VerificationMailOutcome::Mailed);
        assert_eq!(
            asked(&world, ben, NOW_MS).await,
            VerificationMailOutcome::Mailed,
            "each has their own"
        );
    }
}
