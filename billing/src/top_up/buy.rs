//! Credit that a customer buys: a payment without an invoice, made by the payment engine once for each request.

use schemas::db::Database;
use schemas::ids::{CustomerId, PaymentMethodId};
use schemas::money::Money;

use super::{BOUGHT_NOTE, TopUpError, limits_of};
use crate::payment::method::of_customer;
use crate::payment::{self, Gateways, NewPayment, Payment};

/// Credit to be bought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purchase<'a> {
    pub customer: CustomerId,
    pub amount: Money,
    pub method: PaymentMethodId,
    /// What was sent to ask for it, such as the token of a form: the same again is the same purchase.
    pub request: &'a str,
    /// Where the customer comes back to from a page of the bank's.
    pub return_url: Option<&'a str>,
}

/// A customer buys credit. What is returned may be under way still, and the bank may want it confirmed.
///
/// # Errors
/// When the amount is out of the [`super::limits()`] or in another currency, the method is not the customer's, or another
/// top-up is under way. What the gateway answers, or does not, is no error but the payment's state.
pub async fn buy(
    database: &Database,
    gateways: &Gateways,
    purchase: &Purchase<'_>,
    now_ms: i64,
) -> Result<Payment, TopUpError> {
    let Purchase { customer, amount, .. } = *purchase;
    let mut connection = database.pool().acquire().await?;
    let limits = limits_of(&mut connection, customer, amount).await?;
    limits.check("top-up", amount, limits.amount_min, limits.amount_max)?;
    let method = of_customer(&mut connection, customer, purchase.method).await?;
    drop(connection);
    let new = NewPayment {
        customer,
        invoice: None,
        amount: Some(amount),
        method: method.id,
        note: BOUGHT_NOTE,
        return_url: purchase.return_url,
    };
    let gateway = gateways.get(method.gateway)?;
    Ok(payment::start_once(database, gateway, &new, purchase.request, now_ms).await?)
}

#[cfg(test)]
mod tests;
