//! What the lines of invoices and credit notes charge for, or take back.

use crate::BillingError;

/// What a line charges for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Base,
    Addon,
    Discount,
    /// Days charged in advance that are not used.
    Unused,
    TransferOverage,
    PercentileOverage,
    Adjustment,
    /// Charged or credited by hand.
    Item,
    /// Taken back by a credit note.
    Reversal,
}

impl LineKind {
    pub const ALL: [LineKind; 9] = [
        LineKind::Base,
        LineKind::Addon,
        LineKind::Discount,
        LineKind::Unused,
        LineKind::TransferOverage,
        LineKind::PercentileOverage,
        LineKind::Adjustment,
        LineKind::Item,
        LineKind::Reversal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            LineKind::Base => "base",
            LineKind::Addon => "addon",
            LineKind::Discount => "discount",
            LineKind::Unused => "unused",
            LineKind::TransferOverage => "transfer_overage",
            LineKind::PercentileOverage => "percentile_overage",
            LineKind::Adjustment => "adjustment",
            LineKind::Item => "item",
            LineKind::Reversal => "reversal",
        }
    }

    /// True for lines that come from measured usage.
    pub fn is_usage(self) -> bool {
        matches!(
            self,
            LineKind::TransferOverage | LineKind::PercentileOverage | LineKind::Adjustment
        )
    }
}

impl std::str::FromStr for LineKind {
    type Err = BillingError;

    fn from_str(text: &str) -> Result<LineKind, BillingError> {
        let kind = LineKind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.ok_or_else(|| BillingError::corrupt("line kind", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_spelling() {
        for kind in LineKind::ALL {
            assert_eq!(kind.name().parse::<LineKind>().unwrap(), kind);
        }
        assert!("bonus".parse::<LineKind>().is_err());
    }
}
