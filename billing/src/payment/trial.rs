//! The test gateway: a payment provider for trying out, which moves no money.
//!
//! Customers choose among test cards on its page in the portal; each card always does the same: it is accepted, declined, or
//! asks the customer to confirm on a page of a test bank. What it knows lies in tables of its own, as a provider would keep
//! it on its side, so that every process of an installation asks the same one and a restart forgets nothing.
//!
//! It stands beside no live gateway, neither in the configuration nor in the books ([`Gateways::check`]): nobody pays a real
//! invoice with a test card. Books in which money was received, by bank transfer say, are real ones, unless they were marked
//! as test books when they were new ([`mark_test_books`]).

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemas::db::Database;
use schemas::ids::CustomerId;
use schemas::money::{Currency, Money};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::gateway::{
    Capabilities, ChargeOutcome, ChargeRequest, ChargeState, FindRequest, GatewayError, GatewayEvent, PaymentGateway,
    RefundOutcome, RefundProgress, RefundRequest, SavedMethod, SetupOutcome, SetupRequest, SetupStarted, WebhookError,
};
use super::{GatewayName, Gateways, PaymentError, random_hex};

/// Where its pages lie in the portal.
pub const PATH: &str = "/test-gateway";
/// Set in books that were made for tests.
const TEST_BOOKS: &str = "test_books";
/// It never forgets a key.
const REMEMBERS_KEYS_MS: i64 = 10 * 365 * 86_400_000;
const EXPIRES: &str = "2099-12";

/// A test card, named for what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Card {
    Accepted,
    Declined,
    NoFunds,
    /// The bank wants every payment confirmed.
    Confirms,
}

impl Card {
    pub const ALL: [Card; 4] = [Card::Accepted, Card::Confirms, Card::Declined, Card::NoFunds];

    pub fn name(self) -> &'static str {
        match self {
            Card::Accepted => "accepted",
            Card::Declined => "declined",
            Card::NoFunds => "nofunds",
            Card::Confirms => "confirms",
        }
    }

    /// As the methods of a customer show it.
    pub fn label(self) -> &'static str {
        match self {
            Card::Accepted => "Test card, accepted •••• 4242",
            Card::Declined => "Test card, declined •••• 0002",
            Card::NoFunds => "Test card, no funds •••• 9995",
            Card::Confirms => "Test card, to confirm •••• 3155",
        }
    }

    /// What it does, in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Card::Accepted => "Every payment goes through.",
            Card::Declined => "The bank declines every payment.",
            Card::NoFunds => "The account has never enough money.",
            Card::Confirms => "The bank asks for a confirmation on its own page (3-D Secure).",
        }
    }

    fn parse(name: &str) -> Option<Card> {
        Card::ALL.into_iter().find(|card| card.name() == name)
    }

    /// Of a method's reference: `test_pm_declined_4f…`.
    fn of_method(reference: &str) -> Option<Card> {
        let rest = reference.strip_prefix("test_pm_")?;
        Card::parse(rest.split('_').next()?)
    }

    fn charged(self) -> &'static str {
        match self {
            Card::Accepted => "succeeded",
            Card::Declined | Card::NoFunds => "declined",
            Card::Confirms => "requires_action",
        }
    }
}

impl std::str::FromStr for Card {
    type Err = PaymentError;

    fn from_str(text: &str) -> Result<Card, PaymentError> {
        Card::parse(text).ok_or_else(|| PaymentError::Corrupt {
            what: "test card",
            text: text.to_owned(),
        })
    }
}

/// The test gateway of an installation.
#[derive(Clone, Debug)]
pub struct TestGateway {
    database: Database,
    portal_url: String,
}

impl TestGateway {
    /// `portal_url`: where people reach the portal, which shows its pages.
    pub fn new(database: &Database, portal_url: &str) -> TestGateway {
        TestGateway {
            database: database.clone(),
            portal_url: portal_url.trim_end_matches('/').to_owned(),
        }
    }

    fn charge_url(&self, reference: &str) -> String {
        format!("{}{PATH}/charges/{reference}", self.portal_url)
    }

    fn outcome(&self, charge: &TestCharge) -> ChargeOutcome {
        let declined = |code: &str, message: &str| ChargeState::Declined {
            code: code.to_owned(),
            message: message.to_owned(),
        };
        ChargeOutcome {
            reference: Some(charge.reference.clone()),
            amount: Some(charge.amount),
            state: match charge.state.as_str() {
                "succeeded" => ChargeState::Succeeded,
                "cancelled" => ChargeState::Cancelled,
                "requires_action" => ChargeState::RequiresAction {
                    // While the customer is away nobody is there to confirm, as with a live provider.
                    url: match charge.return_url.is_empty() {
                        true => String::new(),
                        false => self.charge_url(&charge.reference),
                    },
                },
                _ if charge.card == Card::NoFunds => {
                    declined("insufficient_funds", "The test card has insufficient funds.")
                }
                _ if charge.card == Card::Confirms => {
                    declined("authentication_failed", "The payment was refused at the test bank.")
                }
                _ => declined("card_declined", "The test card was declined."),
            },
        }
    }
}

fn unanswered(error: &sqlx::Error) -> GatewayError {
    GatewayError::unknown(format!("the test gateway’s tables: {error}"))
}

/// A card that is being chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestSetup {
    pub reference: String,
    /// Who may choose (S1).
    pub customer: CustomerId,
    pub return_url: String,
    pub cancel_url: String,
    pub card: Option<Card>,
}

/// A charge as the test gateway has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestCharge {
    pub reference: String,
    pub idempotency_key: String,
    pub amount: Money,
    pub card: Card,
    pub state: String,
    pub return_url: String,
}

/// A setup by its reference.
///
/// # Errors
/// As the database answers.
pub async fn setup(db: impl AnyExecutor<'_>, reference: &str) -> Result<Option<TestSetup>, PaymentError> {
    let row =
        sqlx::query("SELECT customer_id, return_url, cancel_url, card FROM test_gateway_setups WHERE reference = $1")
            .bind(reference)
            .fetch_optional(db)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let card: Option<String> = row.try_get(3)?;
    Ok(Some(TestSetup {
        reference: reference.to_owned(),
        customer: CustomerId(row.try_get(0)?),
        return_url: row.try_get(1)?,
        cancel_url: row.try_get(2)?,
        card: card.map(|card| card.parse()).transpose()?,
    }))
}

/// The customer chooses a card, once.
///
/// # Errors
/// As the database answers.
pub async fn choose(db: impl AnyExecutor<'_>, reference: &str, card: Card) -> Result<(), PaymentError> {
    sqlx::query("UPDATE test_gateway_setups SET card = $2 WHERE reference = $1 AND card IS NULL")
        .bind(reference)
        .bind(card.name())
        .execute(db)
        .await?;
    Ok(())
}

/// A charge by its reference, with who pays it (S1); `None` where there is none.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn charge(
    db: impl AnyExecutor<'_>,
    reference: &str,
) -> Result<Option<(CustomerId, TestCharge)>, PaymentError> {
    let row = sqlx::query(
        "SELECT c.reference, c.idempotency_key, c.currency, c.amount_minor, c.card, c.state, c.return_url, p.customer_id \
         FROM test_gateway_charges c JOIN payments p ON p.idempotency_key = c.idempotency_key WHERE c.reference = $1",
    )
    .bind(reference)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((CustomerId(row.try_get(7)?), read(&row)?)))
}

/// The customer's answer to the test bank, once: a charge that does not wait any more stays as it is.
///
/// # Errors
/// As the database answers.
pub async fn confirm(db: impl AnyExecutor<'_>, reference: &str, confirmed: bool) -> Result<(), PaymentError> {
    sqlx::query("UPDATE test_gateway_charges SET state = $2 WHERE reference = $1 AND state = 'requires_action'")
        .bind(reference)
        .bind(if confirmed { "succeeded" } else { "declined" })
        .execute(db)
        .await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<TestCharge, PaymentError> {
    let corrupt = |text: &str| PaymentError::Corrupt {
        what: "test charge",
        text: text.to_owned(),
    };
    let currency: String = row.try_get(2)?;
    let currency: Currency = currency.parse().map_err(|_| corrupt(&currency))?;
    let card: String = row.try_get(4)?;
    Ok(TestCharge {
        reference: row.try_get(0)?,
        idempotency_key: row.try_get(1)?,
        amount: Money::new(row.try_get(3)?, currency),
        card: card.parse()?,
        state: row.try_get(5)?,
        return_url: row.try_get(6)?,
    })
}

/// `column` is one of our own names, never what somebody sent.
async fn found(database: &Database, column: &'static str, value: &str) -> Result<Option<TestCharge>, GatewayError> {
    let sql = format!(
        "SELECT reference, idempotency_key, currency, amount_minor, card, state, return_url FROM test_gateway_charges \
         WHERE {column} = $1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(value)
        .fetch_optional(database.pool())
        .await
        .map_err(|error| unanswered(&error))?;
    let read = |row: &AnyRow| read(row).map_err(|error| GatewayError::unknown(error.to_string()));
    row.as_ref().map(read).transpose()
}

fn refused(code: &str, message: &str) -> GatewayError {
    GatewayError::Refused {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

#[async_trait]
impl PaymentGateway for TestGateway {
    fn name(&self) -> GatewayName {
        GatewayName::Test
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            charges: true,
            saves_methods: true,
            refunds: true,
            finds_by_key: true,
            remembers_keys_ms: REMEMBERS_KEYS_MS,
        }
    }

    fn page_origins(&self) -> Vec<String> {
        vec![self.portal_url.clone()]
    }

    async fn charge(&self, request: &ChargeRequest<'_>) -> Result<ChargeOutcome, GatewayError> {
        let Some(card) = Card::of_method(request.method) else {
            return Err(refused("resource_missing", "no such test card"));
        };
        sqlx::query(
            "INSERT INTO test_gateway_charges (reference, idempotency_key, currency, amount_minor, card, state, return_url) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (idempotency_key) DO NOTHING",
        )
        .bind(format!("test_ch_{}", random_hex()))
        .bind(request.idempotency_key)
        .bind(request.amount.currency.code())
        .bind(request.amount.minor)
        .bind(card.name())
        .bind(card.charged())
        .bind(request.return_url.unwrap_or_default())
        .execute(self.database.pool())
        .await
        .map_err(|error| unanswered(&error))?;
        // The first call with a key is the one that counts.
        let charge = found(&self.database, "idempotency_key", request.idempotency_key).await?;
        let charge = charge.ok_or_else(|| GatewayError::unknown("a charge that is not there"))?;
        Ok(self.outcome(&charge))
    }

    async fn find(&self, request: &FindRequest<'_>) -> Result<Option<ChargeOutcome>, GatewayError> {
        let charge = match request.reference {
            Some(reference) => found(&self.database, "reference", reference).await?,
            None => found(&self.database, "idempotency_key", request.idempotency_key).await?,
        };
        Ok(charge.map(|charge| self.outcome(&charge)))
    }

    async fn cancel(&self, reference: &str) -> Result<ChargeOutcome, GatewayError> {
        sqlx::query(
            "UPDATE test_gateway_charges SET state = 'cancelled' WHERE reference = $1 AND state = 'requires_action'",
        )
        .bind(reference)
        .execute(self.database.pool())
        .await
        .map_err(|error| unanswered(&error))?;
        let charge = found(&self.database, "reference", reference).await?;
        let charge = charge.ok_or_else(|| refused("resource_missing", "no such charge"))?;
        Ok(self.outcome(&charge))
    }

    async fn refund(&self, request: &RefundRequest<'_>) -> Result<RefundOutcome, GatewayError> {
        let charge = found(&self.database, "reference", request.payment_reference).await?;
        let Some(charge) = charge.filter(|charge| charge.state == "succeeded") else {
            return Err(refused("charge_not_refundable", "no such charge that succeeded"));
        };
        if request.amount.currency != charge.amount.currency {
            return Err(refused("currency_mismatch", "the charge is in another currency"));
        }
        sqlx::query(
            "INSERT INTO test_gateway_refunds (reference, idempotency_key, charge_reference, currency, amount_minor) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (idempotency_key) DO NOTHING",
        )
        .bind(format!("test_re_{}", random_hex()))
        .bind(request.idempotency_key)
        .bind(&charge.reference)
        .bind(request.amount.currency.code())
        .bind(request.amount.minor)
        .execute(self.database.pool())
        .await
        .map_err(|error| unanswered(&error))?;
        let made = self.find_refund(request).await?;
        made.ok_or_else(|| GatewayError::unknown("a refund that is not there"))
    }

    async fn find_refund(&self, request: &RefundRequest<'_>) -> Result<Option<RefundOutcome>, GatewayError> {
        let row = sqlx::query("SELECT reference FROM test_gateway_refunds WHERE idempotency_key = $1")
            .bind(request.idempotency_key)
            .fetch_optional(self.database.pool())
            .await
            .map_err(|error| unanswered(&error))?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(RefundOutcome {
            reference: Some(row.try_get(0).map_err(|error| unanswered(&error))?),
            state: RefundProgress::Succeeded,
        }))
    }

    async fn start_setup(&self, request: &SetupRequest<'_>) -> Result<SetupStarted, GatewayError> {
        let reference = format!("test_setup_{}", random_hex());
        sqlx::query(
            "INSERT INTO test_gateway_setups (reference, customer_id, return_url, cancel_url) VALUES ($1, $2, $3, $4)",
        )
        .bind(&reference)
        .bind(request.customer.0)
        .bind(request.return_url)
        .bind(request.cancel_url)
        .execute(self.database.pool())
        .await
        .map_err(|error| unanswered(&error))?;
        Ok(SetupStarted {
            url: format!("{}{PATH}/setups/{reference}", self.portal_url),
            gateway_customer: format!("test_{}", request.customer),
            reference,
        })
    }

    async fn finish_setup(&self, customer: CustomerId, reference: &str) -> Result<SetupOutcome, GatewayError> {
        let unfinished = |why: &str| Ok(SetupOutcome::Unfinished { why: why.to_owned() });
        let known = setup(self.database.pool(), reference).await;
        let known = known.map_err(|error| GatewayError::unknown(error.to_string()))?;
        // S1: another customer's is not theirs.
        let Some(known) = known.filter(|known| known.customer == customer) else {
            return unfinished("the test gateway does not know it");
        };
        let Some(card) = known.card else {
            return unfinished("no test card was chosen");
        };
        let number = reference.strip_prefix("test_setup_").unwrap_or(reference);
        Ok(SetupOutcome::Saved(SavedMethod {
            gateway_customer: format!("test_{customer}"),
            // The same setup saves the same method.
            reference: format!("test_pm_{}_{number}", card.name()),
            kind: "card".to_owned(),
            label: card.label().to_owned(),
            expires: EXPIRES.to_owned(),
        }))
    }

    async fn detach(&self, _: &str) -> Result<(), GatewayError> {
        Ok(())
    }

    async fn verify_webhook(&self, _: &HeaderMap, _: &[u8], _: i64) -> Result<GatewayEvent, WebhookError> {
        Err(WebhookError::NotSupported)
    }

    fn parse_event(&self, _: &[u8]) -> Result<GatewayEvent, WebhookError> {
        Err(WebhookError::NotSupported)
    }
}

impl Gateways {
    /// The test gateway stands alone: beside no live one, and on no books that a live one was used for; nor is a live one
    /// used for books of tests.
    ///
    /// # Errors
    /// [`PaymentError::TestBesideLive`] where it does not, or as the database answers.
    pub async fn check(&self, database: &Database) -> Result<(), PaymentError> {
        let live = self
            .iter()
            .map(|gateway| gateway.name())
            .find(|name| *name != GatewayName::Test);
        let has_test = self.iter().any(|gateway| gateway.name() == GatewayName::Test);
        match (has_test, live) {
            (true, Some(live)) => Err(PaymentError::TestBesideLive {
                why: format!("{live} is configured too: remove one of the two sections"),
            }),
            (true, None) => {
                let mut connection = database.pool().acquire().await?;
                match real_books(&mut connection).await? {
                    Some(why) => Err(PaymentError::TestBesideLive { why }),
                    None => Ok(()),
                }
            }
            (false, Some(live)) => {
                let mut connection = database.pool().acquire().await?;
                if is_known(&mut connection, GatewayName::Test).await? || are_test_books(&mut *connection).await? {
                    let why = format!("this database holds books of tests: use {live} on another one");
                    return Err(PaymentError::TestBesideLive { why });
                }
                Ok(())
            }
            (false, None) => Ok(()),
        }
    }
}

/// Why the test gateway must not be used on these books; `None` where it may. Nothing is written.
///
/// # Errors
/// As the database answers.
pub async fn real_books(connection: &mut AnyConnection) -> Result<Option<String>, PaymentError> {
    for live in [GatewayName::Stripe, GatewayName::Paypal] {
        if is_known(connection, live).await? {
            return Ok(Some(format!(
                "{live} was used on this database: try things out on another one"
            )));
        }
    }
    if is_known(connection, GatewayName::Manual).await? && !are_test_books(&mut *connection).await? {
        let why = "this database holds payments by bank transfer: try things out on another one, made with `ezscale init \
                   --test-books`";
        return Ok(Some(why.to_owned()));
    }
    Ok(None)
}

/// Whether these are books for tests.
///
/// # Errors
/// As the database answers.
pub async fn are_test_books(db: impl AnyExecutor<'_>) -> Result<bool, PaymentError> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(TEST_BOOKS)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// Marks new books as books for tests, for ever: the test gateway may be used on them, and no live one. Answers to whether they
/// were not before.
///
/// # Errors
/// [`PaymentError::BooksInUse`] where they hold an invoice or a payment, unless they are marked already; as the database answers.
pub async fn mark_test_books(connection: &mut AnyConnection) -> Result<bool, PaymentError> {
    if are_test_books(&mut *connection).await? {
        return Ok(false);
    }
    for sql in [
        "SELECT id FROM invoices LIMIT 1",
        "SELECT id FROM payments LIMIT 1",
        "SELECT id FROM payment_methods LIMIT 1",
    ] {
        if sqlx::query(sql).fetch_optional(&mut *connection).await?.is_some() {
            return Err(PaymentError::BooksInUse);
        }
    }
    mark_demo_books(connection).await
}

/// As [`mark_test_books`], whatever they hold: for a folder that is known to be a demo's.
///
/// # Errors
/// As the database answers.
pub async fn mark_demo_books(connection: &mut AnyConnection) -> Result<bool, PaymentError> {
    let marked = sqlx::query("INSERT INTO settings (name, value) VALUES ($1, '1') ON CONFLICT (name) DO NOTHING")
        .bind(TEST_BOOKS)
        .execute(connection)
        .await?;
    Ok(marked.rows_affected() > 0)
}

/// Whether the books know a gateway, by its payments or the methods saved with it; both are looked up in indexes.
async fn is_known(connection: &mut AnyConnection, gateway: GatewayName) -> Result<bool, PaymentError> {
    for sql in [
        "SELECT id FROM payments WHERE gateway = $1 LIMIT 1",
        "SELECT id FROM payment_methods WHERE gateway = $1 LIMIT 1",
    ] {
        let row = sqlx::query(sql)
            .bind(gateway.name())
            .fetch_optional(&mut *connection)
            .await?;
        if row.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::ScriptedGateway;
    use super::super::{NewPayment, NewRefund, PaymentState, RefundState, method, query_gateway, refund, start};
    use super::*;
    use crate::testing::World;

    async fn save(books: &World, gateway: &TestGateway, customer: CustomerId, card: Card) -> method::PaymentMethod {
        let back = "http://portal.example/payment-methods/return?gateway=test";
        let started = method::start_setup(&books.database, gateway, customer, back, "http://portal.example/x")
            .await
            .unwrap();
        assert!(
            started
                .url
                .starts_with("http://portal.example/test-gateway/setups/test_setup_")
        );
        let early = method::finish_setup(&books.database, gateway, customer, &started.reference, 0).await;
        assert!(matches!(early, Err(PaymentError::SetupUnfinished { .. })), "{early:?}");
        choose(books.database.pool(), &started.reference, card).await.unwrap();
        // S1: who did not start it has no card of it.
        let other = CustomerId(customer.0 + 1);
        let theirs = method::finish_setup(&books.database, gateway, other, &started.reference, 0).await;
        assert!(
            matches!(theirs, Err(PaymentError::SetupUnfinished { .. })),
            "{theirs:?}"
        );
        method::finish_setup(&books.database, gateway, customer, &started.reference, 0)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn each_card_does_what_it_is_named_for() {
        let books = World::new().await;
        let customer = books.customer("USD", "UTC", "0").await;
        let gateway = TestGateway::new(&books.database, "http://portal.example/");
        let amount = Money::new(2_500, Currency::USD);
        for (card, away, present) in [
            (Card::Accepted, PaymentState::Succeeded, PaymentState::Succeeded),
            (Card::Declined, PaymentState::Failed, PaymentState::Failed),
            (Card::NoFunds, PaymentState::Failed, PaymentState::Failed),
            (
                Card::Confirms,
                PaymentState::RequiresAction,
                PaymentState::RequiresAction,
            ),
        ] {
            let method = save(&books, &gateway, customer, card).await;
            assert_eq!(method.label, card.label());
            for (return_url, expected) in [(None, away), (Some("http://portal.example/credit"), present)] {
                let new = NewPayment {
                    customer,
                    invoice: None,
                    amount: Some(amount),
                    method: method.id,
                    note: "top-up",
                    return_url,
                };
                let payment = start(&books.database, &gateway, &new, 1_000).await.unwrap();
                assert_eq!(payment.state, expected, "{card:?}");
                assert_eq!(
                    payment.action_url.is_empty(),
                    card != Card::Confirms || return_url.is_none(),
                    "nobody confirms while the customer is away: {card:?}"
                );
                if expected != PaymentState::RequiresAction {
                    continue;
                }
                let reference = payment.reference.clone().unwrap();
                let (payer, _) = charge(books.database.pool(), &reference).await.unwrap().unwrap();
                assert_eq!(payer, customer);
                confirm(books.database.pool(), &reference, return_url.is_some())
                    .await
                    .unwrap();
                // A second answer changes nothing.
                confirm(books.database.pool(), &reference, false).await.unwrap();
                let after = query_gateway(&books.database, &gateway, payment.id, 2_000)
                    .await
                    .unwrap();
                let confirmed = if return_url.is_some() {
                    PaymentState::Succeeded
                } else {
                    PaymentState::Failed
                };
                assert_eq!(after.state, confirmed);
            }
        }
    }

    #[tokio::test]
    async fn a_key_charges_once_and_a_refund_is_found() {
        let books = World::new().await;
        let customer = books.customer("USD", "UTC", "0").await;
        let gateway = TestGateway::new(&books.database, "http://portal.example");
        let method = save(&books, &gateway, customer, Card::Accepted).await;
        let new = NewPayment {
            customer,
            invoice: None,
            amount: Some(Money::new(5_000, Currency::USD)),
            method: method.id,
            note: "",
            return_url: None,
        };
        let payment = start(&books.database, &gateway, &new, 0).await.unwrap();
        let request = ChargeRequest {
            payment: payment.id,
            idempotency_key: &payment.idempotency_key,
            amount: payment.amount,
            gateway_customer: "",
            method: &method.reference,
            description: "",
            return_url: None,
        };
        let again = gateway.charge(&request).await.unwrap();
        assert_eq!(again.reference, payment.reference, "the same charge");
        let new = NewRefund {
            payment: payment.id,
            amount: Money::new(2_000, Currency::USD),
            reason: "asked for less",
            created_by: "test",
        };
        let made = refund(&books.database, &gateway, &new, 10).await.unwrap();
        assert_eq!(made.state, RefundState::Succeeded);
        let report = crate::ledger::check(&books.database).await.unwrap();
        assert!(report.violations.is_empty(), "{report:?}");
    }

    #[tokio::test]
    async fn it_stands_beside_no_live_gateway_and_on_no_live_books() {
        let books = World::new().await;
        let customer = books.customer("USD", "UTC", "0").await;
        let test: Arc<dyn PaymentGateway> = Arc::new(TestGateway::new(&books.database, "http://portal.example"));
        let live: Arc<dyn PaymentGateway> = Arc::new(ScriptedGateway::default());
        let alone = |gateway: &Arc<dyn PaymentGateway>| Gateways::new(vec![Arc::clone(gateway)]);
        let both = Gateways::new(vec![Arc::clone(&test), Arc::clone(&live)]);
        let refused = async |gateways: &Gateways| {
            let checked = gateways.check(&books.database).await;
            matches!(checked, Err(PaymentError::TestBesideLive { .. }))
        };
        assert!(refused(&both).await);
        assert!(!refused(&alone(&test)).await && !refused(&alone(&live)).await);
        assert!(!refused(&Gateways::default()).await);
        super::super::testing::save_card(&books.database, customer, "pm_live").await;
        assert!(refused(&alone(&test)).await, "a live card is known here");

        let books = World::new().await;
        let customer = books.customer("USD", "UTC", "0").await;
        let gateway = TestGateway::new(&books.database, "http://portal.example");
        save(&books, &gateway, customer, Card::Accepted).await;
        let checked = alone(&live).check(&books.database).await;
        assert!(
            matches!(checked, Err(PaymentError::TestBesideLive { .. })),
            "{checked:?}"
        );
    }

    /// Books of a company that is paid by bank transfer alone, before a test gateway is switched on.
    #[tokio::test]
    async fn real_books_without_a_live_gateway_refuse_it_and_test_books_do_not() {
        let transfer = async |books: &World| {
            let customer = books.customer("USD", "UTC", "0").await;
            sqlx::query(
                "INSERT INTO payments (id, customer_id, purpose, gateway, currency, amount_minor, idempotency_key, state, \
                 action_url, error, calls, note, created_at_ms, updated_at_ms) \
                 VALUES (1, $1, 'top_up', 'manual', 'USD', 100, 'k', 'succeeded', '', '', 0, '', 0, 0)",
            )
            .bind(customer.0)
            .execute(books.database.pool())
            .await
            .unwrap();
        };
        let check = async |books: &World| {
            let test: Arc<dyn PaymentGateway> = Arc::new(TestGateway::new(&books.database, "http://portal.example"));
            Gateways::new(vec![test]).check(&books.database).await
        };
        let mark = async |books: &World| {
            let mut transaction = books.database.begin_write().await.unwrap();
            let marked = mark_test_books(&mut transaction).await;
            transaction.commit().await.unwrap();
            marked
        };
        let real = World::new().await;
        assert!(check(&real).await.is_ok(), "nothing was paid yet");
        transfer(&real).await;
        let refused = check(&real).await.unwrap_err().to_string();
        assert!(
            refused.contains("bank transfer") && refused.contains("--test-books"),
            "{refused}"
        );
        assert!(matches!(mark(&real).await, Err(PaymentError::BooksInUse)));
        assert!(check(&real).await.is_err());

        let test = World::new().await;
        mark(&test).await.unwrap();
        transfer(&test).await;
        assert!(check(&test).await.is_ok());
        mark(&test).await.unwrap();
        let live: Arc<dyn PaymentGateway> = Arc::new(ScriptedGateway::default());
        let refused = Gateways::new(vec![live]).check(&test.database).await;
        assert!(
            matches!(refused, Err(PaymentError::TestBesideLive { .. })),
            "{refused:?}"
        );
    }
}
