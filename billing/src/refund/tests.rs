use std::sync::Arc;

use schemas::money::Currency;

use super::*;
use crate::invoice::{InvoiceStatus, Rebill};
use crate::ledger;
use crate::payment::gateway::RefundProgress;
use crate::payment::testing::{ScriptedGateway, save_card};
use crate::payment::{NewPayment, Transfer, record_transfer_in};
use crate::settlement::Dispute;
use crate::testing::{DEAL, Deal, World, ms};

/// Before, it was 0.01 of every currency.
#[test]
fn a_note_larger_by_one_minor_unit_says_so_in_its_currency() {
    for (code, least) in [("EUR", "EUR 0.01"), ("JPY", "JPY 1"), ("KWD", "KWD 0.001")] {
        let currency: Currency = code.parse().unwrap();
        let money = |minor| Money::new(minor, currency);
        let note = NotePreview {
            what: Credited::Whole,
            net: money(845),
            tax: money(161),
            gross: money(1006),
            split: NoteSplit {
                to_open: money(0),
                to_written_off: money(0),
                to_credit: money(1006),
            },
        };
        let preview = Preview {
            payment: PaymentId(1),
            customer: CustomerId(1),
            gateway: "manual".to_owned(),
            invoice: None,
            amount: money(1005),
            from_credit: money(0),
            note: Some(note),
            left_after: money(0),
            credit_before: money(0),
            credit_after: money(1),
            counted: money(1005),
            threshold: money(100_000),
            needs_second_admin: false,
            switches_top_up_off: false,
        };
        let why = preview.why_larger_note().unwrap();
        assert!(
            why.starts_with(&format!("The credit note is {least} larger than the refund:")),
            "{why}"
        );
    }
}

/// February is over.
const MARCH: &str = "2026-03-01T00:10:00Z";

fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::EUR)
}

/// A customer with invoices of 100.00 net, 19 % of tax: 119.00, or 100.00 with the tax in it.
struct Shop {
    world: World,
    customer: CustomerId,
    references: std::cell::Cell<u32>,
}

impl Shop {
    async fn new(prices_include_tax: bool) -> Shop {
        let world = World::new().await;
        let customer = world.customer("EUR", "UTC", "19").await;
        if prices_include_tax {
            sqlx::query("UPDATE customers SET prices_include_tax = 1")
                .execute(world.database.pool())
                .await
                .unwrap();
        }
        Shop {
            world,
            customer,
            references: std::cell::Cell::new(0),
        }
    }

    /// An invoice over February of one more subscription.
    async fn invoice(&self) -> InvoiceId {
        let deal = Deal {
            base_minor: 10_000,
            started_at: "2026-02-01T00:00:00Z",
            ..DEAL
        };
        self.world.subscribe(self.customer, deal).await;
        let (database, usage) = (&self.world.database, &self.world.usage);
        let closing = invoice::close(database, usage, self.customer, ms(MARCH)).await.unwrap();
        closing.read(database).await.unwrap().remove(0).invoice.id
    }

    fn reference(&self) -> String {
        self.references.set(self.references.get() + 1);
        format!("MT-{}", self.references.get())
    }

    async fn pay(&self, invoice: Option<InvoiceId>, minor: i64) -> PaymentId {
        let reference = self.reference();
        let transfer = Transfer {
            customer: self.customer,
            invoice,
            amount: eur(minor),
            reference: &reference,
            note: "",
            value_date: None,
        };
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let payment = record_transfer_in(&mut transaction, &transfer, ms(MARCH))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        payment.id
    }

    async fn preview(&self, payment: PaymentId, minor: Option<i64>) -> Result<Preview, RefundError> {
        let request = RefundRequest {
            payment,
            amount: minor.map(eur),
            reason: "sorry",
        };
        let mut connection = self.world.database.pool().acquire().await.unwrap();
        preview(&mut connection, &request, ms(MARCH)).await
    }

    /// Previews, confirms what was shown, and finds that exactly that was done.
    async fn refund(&self, payment: PaymentId, minor: Option<i64>) -> Result<IssuedRefund, RefundError> {
        let previewed = self.preview(payment, minor).await?;
        let (shown, reference) = (previewed.shown(), self.reference());
        let request = RefundRequest {
            payment,
            amount: Some(previewed.amount),
            reason: "sorry",
        };
        let confirmed = RefundConfirmation {
            shown: Some(&shown),
            is_approved: false,
            reference: Some(&reference),
            actor: "test",
        };
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let made = make(&mut transaction, &request, &confirmed, ms(MARCH)).await?;
        transaction.commit().await.unwrap();
        assert_eq!(made.preview, previewed);
        assert_eq!(self.credit().await, previewed.credit_after.minor);
        assert_eq!(self.standing(payment).await.left, previewed.left_after);
        if let (Some(note), Some(planned)) = (made.note, &previewed.note) {
            let issued = invoice::get(&self.world.database, note).await.unwrap().invoice;
            assert_eq!(
                (-issued.subtotal.minor, -issued.tax.minor, -issued.total.minor),
                (planned.net.minor, planned.tax.minor, planned.gross.minor)
            );
            assert_eq!(issued.reason, "sorry");
        }
        assert_eq!(made.note.is_some(), previewed.note.is_some());
        self.assert_books_are_right().await;
        Ok(made)
    }

    async fn standing(&self, payment: PaymentId) -> RefundBalance {
        let mut connection = self.world.database.pool().acquire().await.unwrap();
        refund_balance(&mut connection, payment).await.unwrap()
    }

    async fn credit(&self) -> i64 {
        let pool = self.world.database.pool();
        settlement::credit_balance(pool, self.customer, Currency::EUR)
            .await
            .unwrap()
            .minor
    }

    async fn credit_note(&self, invoice: InvoiceId, what: Credited) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        invoice::credit(&mut transaction, invoice, what, "goodwill", ms(MARCH))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn assert_books_are_right(&self) {
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

fn of_note(preview: &Preview) -> (i64, i64, i64, i64) {
    let note = preview.note.as_ref().unwrap();
    (
        note.net.minor,
        note.tax.minor,
        note.gross.minor,
        note.split.to_credit.minor,
    )
}

#[tokio::test]
async fn a_refund_after_a_refund_ends_where_nothing_is_left() {
    for (includes_tax, total, first) in [
        (false, 11_900, (5000, 950, 5950, 5950)),
        (true, 10_000, (5000, 950, 5950, 5950)),
    ] {
        let shop = Shop::new(includes_tax).await;
        let invoice = shop.invoice().await;
        let payment = shop.pay(Some(invoice), total).await;
        let preview = shop.preview(payment, Some(5950)).await.unwrap();
        assert_eq!(of_note(&preview), first, "tax included: {includes_tax}");
        assert_eq!(preview.left_after.minor, total - 5950);
        assert_eq!((preview.credit_before.minor, preview.credit_after.minor), (0, 0));
        shop.refund(payment, Some(5950)).await.unwrap();
        let standing = shop.standing(payment).await;
        assert_eq!((standing.refunded.minor, standing.left.minor), (5950, total - 5950));
        let too_much = shop.preview(payment, Some(total - 5950 + 1)).await;
        assert!(matches!(too_much, Err(RefundError::MoreThanLeft { left, .. }) if left.minor == total - 5950));
        // The rest, without saying how much: no cent of net or tax remains.
        let rest = shop.refund(payment, None).await.unwrap();
        assert_eq!(rest.preview.amount.minor, total - 5950);
        let nothing = shop.preview(payment, None).await;
        assert!(matches!(nothing, Err(RefundError::NothingLeft { .. })), "{nothing:?}");
        let notes = invoice::get(&shop.world.database, invoice).await.unwrap();
        assert_eq!(
            notes.invoice.status,
            InvoiceStatus::Paid,
            "it was paid; its credit notes say what went back"
        );
    }
}

#[tokio::test]
async fn a_cent_that_no_credit_note_can_give_stays_credit() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 11_900).await;
    // 0.02 net has no tax and 0.03 net has a cent: a gross of 0.03 is none of theirs.
    let made = shop.refund(payment, Some(3)).await.unwrap();
    assert_eq!(of_note(&made.preview), (3, 1, 4, 4));
    assert_eq!(made.preview.credit_after.minor, 1);
    // That cent is the first to leave next time.
    let next = shop.preview(payment, Some(2)).await.unwrap();
    assert_eq!(next.from_credit.minor, 1);
}

#[tokio::test]
async fn what_a_credit_note_left_is_refunded_without_another_one() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 11_900).await;
    shop.credit_note(invoice, Credited::Amount(eur(1000))).await;
    let made = shop.refund(payment, Some(1190)).await.unwrap();
    assert_eq!((made.note, made.preview.from_credit.minor), (None, 1190));
    // A refund after it takes a note for all of it.
    let more = shop.refund(payment, Some(2380)).await.unwrap();
    assert_eq!(of_note(&more.preview), (2000, 380, 2380, 2380));
    assert_eq!(shop.standing(payment).await.left.minor, 11_900 - 1190 - 2380);
}

#[tokio::test]
async fn other_credit_of_the_customer_stays() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 11_900).await;
    let top_up = shop.pay(None, 5000).await;
    let made = shop.refund(payment, Some(1190)).await.unwrap();
    assert_eq!(
        (made.preview.from_credit.minor, made.preview.credit_after.minor),
        (0, 5000)
    );
    // Nothing was invoiced for it: it leaves as it came, without a credit note.
    let made = shop.refund(top_up, None).await.unwrap();
    assert_eq!((made.note, made.preview.amount.minor), (None, 5000));
}

#[tokio::test]
async fn who_still_owes_gets_money_back_by_a_note_over_both() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 5000).await;
    let preview = shop.preview(payment, None).await.unwrap();
    assert_eq!(preview.amount.minor, 5000);
    let note = preview.note.as_ref().unwrap();
    assert_eq!(
        (note.gross.minor, note.split.to_open.minor, note.split.to_credit.minor),
        (11_900, 6900, 5000)
    );
    shop.refund(payment, Some(2500)).await.unwrap();
    assert_eq!(shop.standing(payment).await.left.minor, 2500);
}

#[tokio::test]
async fn a_refund_after_a_write_off_takes_that_back_first() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 5000).await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let written_off = settlement::write_off(&mut transaction, invoice, "gone", ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(written_off.minor, 6900);
    let made = shop.refund(payment, Some(5000)).await.unwrap();
    let note = made.preview.note.as_ref().unwrap();
    assert_eq!((note.gross.minor, note.split.to_written_off.minor), (11_900, 6900));
}

#[tokio::test]
async fn a_refund_after_a_void_is_of_what_came_in_since() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    invoice::void(&mut transaction, invoice, Rebill::No, "wrong", ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    // The transfer was under way already: all of it is credit.
    let payment = shop.pay(Some(invoice), 11_900).await;
    assert_eq!(shop.credit().await, 11_900);
    let made = shop.refund(payment, None).await.unwrap();
    assert_eq!((made.note, made.preview.amount.minor), (None, 11_900));
    assert_eq!(shop.credit().await, 0);
}

#[tokio::test]
async fn a_refund_after_a_chargeback_finds_what_is_held() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 11_900).await;
    let dispute = Dispute {
        payment,
        reference: "dp_1",
        amount: eur(11_900),
    };
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    settlement::open_dispute(&mut transaction, dispute, ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let standing = shop.standing(payment).await;
    assert_eq!((standing.taken.minor, standing.left.minor), (11_900, 0));
    let disputed = shop.preview(payment, None).await;
    assert!(matches!(disputed, Err(RefundError::NothingLeft { .. })), "{disputed:?}");
    // Won: ours again, and refundable.
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    settlement::close_dispute(&mut transaction, dispute, true, ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    shop.refund(payment, Some(1190)).await.unwrap();
    // A second one is lost: the invoice is open again, and nothing of the payment is left.
    let lost = Dispute {
        payment,
        reference: "dp_2",
        amount: eur(10_710),
    };
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    settlement::open_dispute(&mut transaction, lost, ms(MARCH))
        .await
        .unwrap();
    settlement::close_dispute(&mut transaction, lost, false, ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let standing = shop.standing(payment).await;
    assert_eq!(
        (standing.refunded.minor, standing.taken.minor, standing.left.minor),
        (1190, 10_710, 0)
    );
    shop.assert_books_are_right().await;
}

#[tokio::test]
async fn granted_credit_that_paid_stays_credit() {
    let shop = Shop::new(false).await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    settlement::grant_credit(
        &mut transaction,
        shop.customer,
        eur(6900),
        "test",
        "goodwill",
        ms(MARCH),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    let invoice = shop.invoice().await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    settlement::apply_credit(&mut transaction, invoice, ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let payment = shop.pay(Some(invoice), 5000).await;
    let made = shop.refund(payment, None).await.unwrap();
    assert_eq!(made.preview.amount.minor, 5000);
    assert_eq!((of_note(&made.preview).2, shop.credit().await), (11_900, 6900));
    assert!(shop.preview(payment, None).await.is_err());
}

#[tokio::test]
async fn what_was_spent_since_is_not_refunded() {
    let shop = Shop::new(false).await;
    let (first, payment);
    first = shop.invoice().await;
    payment = shop.pay(Some(first), 11_900).await;
    shop.credit_note(first, Credited::Whole).await;
    let second = shop.invoice().await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    settlement::apply_credit(&mut transaction, second, ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let nothing = shop.preview(payment, None).await;
    assert!(matches!(nothing, Err(RefundError::NothingLeft { .. })), "{nothing:?}");
}

#[tokio::test]
async fn what_changed_since_it_was_shown_is_not_done_and_much_waits_for_a_second_admin() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 200_000).await;
    // All of the credit, and no credit note: a cent less, and one is needed.
    let shown = shop.preview(payment, Some(188_100)).await.unwrap().shown();
    shop.refund(payment, Some(1)).await.unwrap();
    let request = |minor| RefundRequest {
        payment,
        amount: Some(eur(minor)),
        reason: "sorry",
    };
    let confirmed = RefundConfirmation {
        shown: Some(&shown),
        is_approved: true,
        reference: Some("MT-99"),
        actor: "test",
    };
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let changed = make(&mut transaction, &request(188_100), &confirmed, ms(MARCH)).await;
    assert!(matches!(changed, Err(RefundError::Changed { .. })), "{changed:?}");
    let unseen = RefundConfirmation {
        shown: None,
        is_approved: false,
        ..confirmed
    };
    let much = make(&mut transaction, &request(100_001), &unseen, ms(MARCH)).await;
    assert!(matches!(much, Err(RefundError::NeedsApproval { .. })), "{much:?}");
    let approved = RefundConfirmation {
        is_approved: true,
        ..unseen
    };
    let made = make(&mut transaction, &request(100_001), &approved, ms(MARCH))
        .await
        .unwrap();
    assert!(made.preview.needs_second_admin);
    transaction.commit().await.unwrap();
    shop.assert_books_are_right().await;
}

/// Before, three refunds of 1,000.00 left without a second admin.
#[tokio::test]
async fn f60_refunds_in_parts_count_together() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 300_000).await;
    let first = shop.refund(payment, Some(60_000)).await.unwrap();
    assert_eq!(first.preview.counted, eur(60_000));
    let second = shop.refund(payment, Some(40_000)).await.unwrap();
    assert_eq!(
        (second.preview.counted, second.preview.needs_second_admin),
        (eur(100_000), false)
    );
    let third = shop.refund(payment, Some(1)).await;
    assert!(
        matches!(third, Err(RefundError::NeedsApproval { counted, .. }) if counted == eur(100_001)),
        "{third:?}"
    );
    // Another payment of the customer, within 24 hours.
    let other = shop.pay(None, 50_000).await;
    let fourth = shop.refund(other, Some(1)).await;
    assert!(matches!(fourth, Err(RefundError::NeedsApproval { .. })), "{fourth:?}");
    // A day later it is alone; of the first payment all counts for good.
    let request = |payment| RefundRequest {
        payment,
        amount: Some(eur(1)),
        reason: "sorry",
    };
    let later_ms = ms(MARCH) + 24 * schemas::window::HOUR_MS;
    let mut connection = shop.world.database.pool().acquire().await.unwrap();
    let alone = preview(&mut connection, &request(other), later_ms).await.unwrap();
    assert_eq!((alone.counted, alone.needs_second_admin), (eur(1), false));
    let again = preview(&mut connection, &request(payment), later_ms).await.unwrap();
    assert!(again.needs_second_admin);
}

#[tokio::test]
async fn refunds_are_a_sheet_of_the_export_with_their_credit_notes() {
    use crate::export::{self, SheetKind};
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 11_900).await;
    let made = shop.refund(payment, Some(5_950)).await.unwrap();
    let note = invoice::get(&shop.world.database, made.note.unwrap())
        .await
        .unwrap()
        .invoice
        .number;
    let mut connection = shop.world.database.pool().acquire().await.unwrap();
    let sheet = export::sheet(&mut connection, SheetKind::Refunds, ms(MARCH), ms(MARCH) + 1)
        .await
        .unwrap();
    let csv = export::csv(&sheet).unwrap();
    let row = csv.lines().nth(1).unwrap();
    for text in [
        "rfd_1,pay_1,cus_1",
        note.as_str(),
        "manual",
        "succeeded",
        "59.50",
        "sorry",
    ] {
        assert!(row.contains(text), "{text} in {row}");
    }
    assert_eq!(csv.lines().count(), 2);
}

/// Before, the next look at the credit charged again what had been refunded.
#[tokio::test]
async fn a_refund_of_bought_credit_switches_automatic_top_up_off() {
    let shop = Shop::new(false).await;
    let payment = shop.pay(None, 20_000).await;
    let database = &shop.world.database;
    let mut transaction = database.begin_write().await.unwrap();
    let _ = crate::top_up::set(&mut transaction, shop.customer, eur(1_000), eur(5_000), ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let made = shop.refund(payment, Some(15_000)).await.unwrap();
    assert!(made.preview.switches_top_up_off);
    let settings = crate::top_up::settings(database.pool(), shop.customer).await.unwrap();
    assert!(!settings.unwrap().is_enabled);
    let told = activity::event::list(database.pool(), activity::event::EventFilter::default(), 50)
        .await
        .unwrap();
    let told = told
        .iter()
        .find(|event| event.event_type == activity::event::EventType::RefundSucceeded)
        .unwrap();
    assert_eq!(told.payload["automatic_top_up"], "off");
    // Once it is off, there is nothing to switch off.
    let again = shop.refund(payment, Some(1_000)).await.unwrap();
    assert!(!again.preview.switches_top_up_off);
}

/// Before, a confirmation failed when the customer's credit moved for another reason.
#[tokio::test]
async fn a_confirmation_holds_when_other_credit_moves() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let payment = shop.pay(Some(invoice), 11_900).await;
    let shown = shop.preview(payment, Some(1_190)).await.unwrap().shown();
    shop.pay(None, 700).await;
    let after = shop.preview(payment, Some(1_190)).await.unwrap();
    assert_eq!(after.credit_before, eur(700));
    assert_eq!(after.shown(), shown);
}

#[tokio::test]
async fn where_the_gateway_refuses_the_note_stands_and_is_credit() {
    let shop = Shop::new(false).await;
    let invoice = shop.invoice().await;
    let database = &shop.world.database;
    let gateway = ScriptedGateway {
        refunds: Some(std::sync::Mutex::new(
            [
                RefundProgress::Failed {
                    code: "expired_card".to_owned(),
                    message: "the card is gone".to_owned(),
                },
                RefundProgress::Succeeded,
            ]
            .into(),
        )),
        ..ScriptedGateway::default()
    };
    let gateways = Gateways::new(vec![Arc::new(gateway)]);
    let method = save_card(database, shop.customer, "pm_1").await;
    let new = NewPayment {
        customer: shop.customer,
        invoice: Some(invoice),
        amount: None,
        method,
        note: "",
        return_url: None,
    };
    let paid = payment::start(database, gateways.get(GatewayName::Stripe).unwrap(), &new, ms(MARCH))
        .await
        .unwrap();
    assert_eq!(paid.state, PaymentState::Succeeded);
    let refund = async |minor: i64| {
        let request = RefundRequest {
            payment: paid.id,
            amount: Some(eur(minor)),
            reason: "sorry",
        };
        let confirmed = RefundConfirmation {
            shown: None,
            is_approved: false,
            reference: None,
            actor: "test",
        };
        let mut transaction = database.begin_write().await.unwrap();
        check_gateway(&mut transaction, &gateways, paid.id).await.unwrap();
        let made = make(&mut transaction, &request, &confirmed, ms(MARCH)).await.unwrap();
        transaction.commit().await.unwrap();
        (ask(database, &gateways, made.refund, ms(MARCH)).await.unwrap(), made)
    };
    let (failed, made) = refund(2380).await;
    assert_eq!(failed.state, RefundState::Failed);
    assert!(made.note.is_some());
    assert_eq!(shop.credit().await, 2380);
    assert_eq!(shop.standing(paid.id).await.left.minor, 11_900);
    // Tried again, it is that credit that leaves.
    let (done, made) = refund(2380).await;
    assert_eq!((done.state, made.note), (RefundState::Succeeded, None));
    assert_eq!(shop.credit().await, 0);
    shop.assert_books_are_right().await;
}
