//! What can happen in a history.

use proptest::prelude::*;

/// Something that happens. Numbers choose among what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    SignUp {
        customer: usize,
        offer: usize,
        quantity: i64,
        coupon: Option<usize>,
    },
    /// Another service of a customer, on the terms and with the months of one that there is.
    Alike {
        subscription: usize,
        quantity: i64,
    },
    Addon {
        subscription: usize,
        offer: usize,
        quantity: i64,
    },
    Change {
        subscription: usize,
        offer: usize,
        quantity: i64,
    },
    /// Now, with the cycle, or so many days ahead.
    Cancel {
        subscription: usize,
        end: i64,
    },
    Resume {
        subscription: usize,
    },
    /// The service goes to another customer.
    Transfer {
        subscription: usize,
        customer: usize,
    },
    /// So many windows in a row with so much in and out each, from so many hours ago on.
    Use {
        subscription: usize,
        mib: (u64, u64),
        windows: i64,
        hours_ago: i64,
    },
    /// Nobody was heard.
    Silence {
        hours_ago: i64,
        hours: i64,
    },
    /// Attack traffic, which is not charged.
    Flag {
        subscription: usize,
        hours_ago: i64,
        hours: i64,
    },
    Unflag {
        flag: usize,
    },
    Days {
        count: i64,
        minutes: i64,
        crash_after_us: Option<u64>,
    },
    Pay {
        document: usize,
        permille: i64,
    },
    /// More than the whole: all that is left.
    Credit {
        document: usize,
        permille: i64,
    },
    Void {
        document: usize,
        rebill: bool,
    },
    /// An invoice that gives unused days back is void: mostly that of a change to other terms.
    VoidUnused {
        document: usize,
        rebill: bool,
    },
    WriteOff {
        document: usize,
    },
    Grant {
        customer: usize,
        minor: i64,
    },
    Item {
        customer: usize,
        minor: i64,
    },
    /// A place has another rate of tax from now on.
    PlaceRate {
        place: usize,
        rate: usize,
    },
    /// A customer is taxed in another way.
    Taxed {
        customer: usize,
        how: usize,
    },
    /// A customer's services share what is included, or do so no more.
    Pool {
        customer: usize,
    },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let which = || 0usize..64;
    let quantity = || prop_oneof![3 => Just(1i64), 1 => 2i64..4];
    let ago = || prop_oneof![2 => 0i64..48, 3 => 0i64..1200, 1 => 0i64..4000];
    let run = || prop_oneof![3 => 1i64..9, 1 => 1i64..100, 2 => 300i64..2000];
    let minutes = prop_oneof![2 => Just(0i64), 1 => 0i64..1440];
    prop_oneof![
        4 => (which(), which(), quantity(), prop::option::of(which()))
            .prop_map(|(customer, offer, quantity, coupon)| Step::SignUp { customer, offer, quantity, coupon }),
        3 => (which(), quantity()).prop_map(|(subscription, quantity)| Step::Alike { subscription, quantity }),
        1 => (which(), which(), quantity())
            .prop_map(|(subscription, offer, quantity)| Step::Addon { subscription, offer, quantity }),
        3 => (which(), which(), quantity())
            .prop_map(|(subscription, offer, quantity)| Step::Change { subscription, offer, quantity }),
        1 => (which(), 0i64..40).prop_map(|(subscription, end)| Step::Cancel { subscription, end }),
        1 => which().prop_map(|subscription| Step::Resume { subscription }),
        1 => (which(), which()).prop_map(|(subscription, customer)| Step::Transfer { subscription, customer }),
        4 => (which(), (0u64..90_000, 0u64..90_000), run(), ago())
            .prop_map(|(subscription, mib, windows, hours_ago)| Step::Use { subscription, mib, windows, hours_ago }),
        1 => (ago(), 1i64..40).prop_map(|(hours_ago, hours)| Step::Silence { hours_ago, hours }),
        1 => (which(), ago(), 1i64..100)
            .prop_map(|(subscription, hours_ago, hours)| Step::Flag { subscription, hours_ago, hours }),
        1 => which().prop_map(|flag| Step::Unflag { flag }),
        8 => (0i64..45, minutes, prop::option::weighted(0.2, 0u64..20_000))
            .prop_map(|(count, minutes, crash_after_us)| Step::Days { count, minutes, crash_after_us }),
        3 => (which(), 1i64..1500).prop_map(|(document, permille)| Step::Pay { document, permille }),
        2 => (which(), 1i64..1200).prop_map(|(document, permille)| Step::Credit { document, permille }),
        2 => (which(), any::<bool>()).prop_map(|(document, rebill)| Step::Void { document, rebill }),
        2 => (prop_oneof![3 => Just(0usize), 1 => which()], any::<bool>())
            .prop_map(|(document, rebill)| Step::VoidUnused { document, rebill }),
        1 => which().prop_map(|document| Step::WriteOff { document }),
        1 => (which(), 1i64..10_000).prop_map(|(customer, minor)| Step::Grant { customer, minor }),
        1 => (which(), -5_000i64..5_000).prop_map(|(customer, minor)| Step::Item { customer, minor }),
        1 => (which(), which()).prop_map(|(place, rate)| Step::PlaceRate { place, rate }),
        1 => (which(), which()).prop_map(|(customer, how)| Step::Taxed { customer, how }),
        1 => which().prop_map(|customer| Step::Pool { customer }),
    ]
}
