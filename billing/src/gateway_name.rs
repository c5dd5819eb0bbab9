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
            GatewayName::Test => "test gateway",
            other => other.name(),
        }
    }
}

impl std::fmt::Display for GatewayName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
