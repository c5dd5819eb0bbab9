//! Which refusals of billing are for the customer to read, and in which words. Everything else went wrong on our side.

use billing::BillingError;
use billing::subscription::SubscriptionState;
use schemas::inventory::InventoryError;

use crate::error::Failure;

/// What to tell the customer beside the form.
///
/// # Errors
/// The failure, where it is none of the customer's making.
pub(crate) fn refusal(error: BillingError) -> Result<String, Failure> {
    Ok(match &error {
        BillingError::OutOfStock(_) => "This plan is sold out. Choose another one or a smaller quantity.".to_owned(),
        BillingError::PlanArchived(_) => "This plan is not sold any more. Choose another one.".to_owned(),
        BillingError::CouponRefused { code, reason } => {
            format!("The coupon {code} cannot be used: {reason}. Correct it, or leave the field empty.")
        }
        BillingError::CouponCode(_) => "A coupon is made of letters, digits, hyphens and underscores.".to_owned(),
        BillingError::FreePlanRefused { why, .. } => format!(
            "This account cannot have a free plan: {why}. It takes a verified email address and a second factor, and there is one for each account."
        ),
        BillingError::FreePlanFixed(_) => {
            "A free plan cannot be changed into a paid one. Order the paid plan as a new service.".to_owned()
        }
        BillingError::FreePlanIsOne { .. } => {
            "A free plan is one unit, with no add-on beside it. Order a paid plan for more.".to_owned()
        }
        BillingError::ParentCancelled { .. } => {
            "The plan that this add-on is beside is cancelled. Resume that one first.".to_owned()
        }
        BillingError::NotAhead { what, .. } => format!("Choose a time that lies ahead: {what} cannot be in the past."),
        BillingError::DateOver { today, .. } => format!("That day is over. The earliest is {}.", day(*today)),
        BillingError::Stopped(_) => {
            "Orders and changes wait: billing is stopped until a matter of our clock is settled. Try again later."
                .to_owned()
        }
        BillingError::NothingChanges(_) => "That is what you have already. Choose other terms.".to_owned(),
        BillingError::TooEarly { earliest, .. } => {
            format!(
                "That day is charged or changed already. The earliest is {}.",
                day(*earliest)
            )
        }
        BillingError::Refused { state, .. } | BillingError::NoTransition { state, .. } => match state {
            SubscriptionState::Cancelled => "This subscription is cancelled. Resume it first.".to_owned(),
            SubscriptionState::Ended => "This subscription has ended. Order a new service instead.".to_owned(),
            state => format!("That cannot be done while the subscription is {}.", state.words()),
        },
        BillingError::ChangedMeanwhile(_) => {
            "This was changed in the meantime. Reload the page, then retry.".to_owned()
        }
        BillingError::ChangeSettled(_) => "This change was made or cancelled already.".to_owned(),
        BillingError::OtherServiceType { .. } | BillingError::NotAnAddon(_) | BillingError::AddonAlone(_) => {
            "This plan is for another kind of service.".to_owned()
        }
        BillingError::AlreadySubscribed { .. } => "This service has a subscription already.".to_owned(),
        BillingError::PriceNotYet { .. } => "This price does not hold yet. Load the page again.".to_owned(),
        BillingError::OutOfRange {
            field: "quantity", max, ..
        } => format!("A quantity is between 1 and {max}."),
        BillingError::OutOfRange {
            field: "time ahead in milliseconds",
            ..
        } => "Choose a time that lies ahead, within ten years.".to_owned(),
        BillingError::OutOfRange {
            field: "number of pending changes",
            max,
            ..
        } => format!("At most {max} changes can be pending: take one back first."),
        BillingError::Text { field, max, .. } => format!("The {field} has between 1 and {max} characters on one line."),
        BillingError::Inventory(InventoryError::Text { field, max, .. }) => {
            format!("The {field} has between 1 and {max} characters on one line.")
        }
        _ => return Err(error.into()),
    })
}

/// `30 Nov 2026`
fn day(date: jiff::civil::Date) -> String {
    date.strftime("%-d %b %Y").to_string()
}

/// How many are left, where that is worth saying.
pub(crate) fn stock_text(stock: Option<i64>) -> Option<String> {
    /// From here on the number is told.
    const FEW: i64 = 10;
    match stock {
        None => None,
        Some(0) => Some("Sold out".to_owned()),
        Some(left) if left <= FEW => Some(format!("{left} left")),
        Some(_) => None,
    }
}
