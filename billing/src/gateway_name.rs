//! The gateways there are, as payments name them, and the cash accounts of the ledger.

/// Which gateway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum GatewayName {
    Stripe,
    Paypal,
    /// Bank transfers, recorded by finance.
    Manual,
    /// For trying out: moves no money, and stands beside no live one.
    Test,
}

impl GatewayName {
    pub fn name(self) -> &'static str {
        match self {
            GatewayName::Stripe => "stripe",
            GatewayName::Paypal => "paypal",
            GatewayName::Manual => "manual",
            GatewayName::Test => "test",
        }
    }

    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            GatewayName::Stripe => "Stripe",
            GatewayName::Paypal => "PayPal",
            GatewayName::Manual => "Bank transfer",
            GatewayName::Test => "Test gateway",
        }
    }
}

/// What a payment by the gateway of this name is called in a sentence.
pub(crate) fn payment_words(gateway: &str) -> &'static str {
    match gateway {
        "stripe" => "Stripe payment",
        "paypal" => "PayPal payment",
        "manual" => "bank transfer",
        "test" => "test payment",
        _ => "payment",
    }
}

impl std::fmt::Display for GatewayName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
