//! Who uses what others leave of what is included.
//!
//! Those share whose usage of the same time is charged on one document, counted in the same way and at the same price of a
//! unit. What some leave goes to those who need more, the first first. So it is whenever it is looked at: as it is charged, and
//! whenever something of it turns out to be otherwise.

use super::Model;
use super::agreement::{PaidMonth, Rating};
use super::terms::{CountedDirection, UnitPrice};

/// What one has, and what it used; nothing where that was not measured.
type PoolMember = (i128, Option<i128>);

/// What those who share have in common: the time, whether a percentile counts, which bytes, the price.
pub(super) type Common = (i64, i64, bool, CountedDirection, UnitPrice);

/// What each gets of what the others leave.
pub(super) fn share_out(sharers: &[PoolMember]) -> Vec<i128> {
    let mut left: i128 = sharers
        .iter()
        .map(|&(has, used)| used.map_or(0, |used| (has - used).max(0)))
        .sum();
    let mut got = Vec::new();
    for &(has, used) in sharers {
        let takes = used.map_or(0, |used| (used - has).max(0)).min(left);
        left -= takes;
        got.push(takes);
    }
    got
}

impl Model {
    pub(super) fn common(&self, rating: &Rating, from_ms: i64, to_ms: i64) -> Common {
        let unit_price = self.offers[rating.offer].unit_price;
        (from_ms, to_ms, rating.is_percentile, rating.way, unit_price)
    }

    pub(super) fn sharer(&self, service: u32, rating: &Rating, time: (i64, i64)) -> PoolMember {
        (rating.included, self.used(service, rating, time))
    }

    /// What a charged month gets of what those leave that it shares with, by what is known of all of them.
    pub(super) fn granted_now(&self, month: &PaidMonth) -> i128 {
        let Some(pool) = month.pool else { return 0 };
        let mut sharing: Vec<(usize, PoolMember)> = Vec::new();
        for subscription in &self.subscriptions {
            for other in subscription.phases.iter().flat_map(|phase| &phase.months) {
                if other.pool == Some(pool) {
                    let time = (other.from_ms, other.to_ms);
                    sharing.push((other.line, self.sharer(subscription.service, &other.rating, time)));
                }
            }
        }
        sharing.sort_by_key(|&(line, _)| line);
        let sharers: Vec<PoolMember> = sharing.iter().map(|&(_, sharer)| sharer).collect();
        let own = sharing.iter().position(|&(line, _)| line == month.line).unwrap();
        share_out(&sharers)[own]
    }
}

#[test]
fn what_is_left_goes_to_the_first_who_need_it() {
    for (sharers, got) in [
        (vec![(100, Some(150)), (100, Some(50))], vec![50, 0]),
        (vec![(100, Some(150)), (100, Some(100))], vec![0, 0]),
        (vec![(31, Some(50)), (31, Some(10)), (31, Some(36))], vec![19, 0, 2]),
        // What was not measured is not left.
        (vec![(100, None), (100, Some(150))], vec![0, 0]),
    ] {
        assert_eq!(share_out(&sharers), got, "{sharers:?}");
    }
}
