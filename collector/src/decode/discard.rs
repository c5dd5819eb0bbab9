//! Packets that the exporter did not forward: kept as flows and counted, never metered.
//!
//! Two ways to say so are understood, and nothing else is guessed:
//!
//! * a forwarding status (IE 89, RFC 7270 §4.12) whose upper two bits are 10, dropped; sFlow says it in the output interface;
//! * Juniper's and NetFlow's older one: next hop zero *and* output interface zero, in a record that has both fields, names
//!   its input interface, and says no forwarding status. Such a flow gets the status "dropped, reason not told".
//!
//! A record without an input interface comes from a probe that knows no interfaces, and one without a next hop field from
//! an exporter that does not tell it: for both a zero output interface means nothing.

use schemas::address::Address;
use schemas::flow::{FORWARDING_DROPPED, Flow};

/// Marks a flow whose record has a next hop and an output interface, both zero.
#[inline]
pub(super) fn mark(flow: &mut Flow) {
    let is_nowhere = flow.out_if == 0 && flow.next_hop == Address::UNSPECIFIED;
    flow.forwarding_status = status(flow.forwarding_status, is_nowhere, flow.in_if);
}

/// The forwarding status of a flow that came in at `in_if`, said to be `told`, and goes nowhere when next hop and output
/// interface are zero.
#[inline]
pub(super) fn status(told: u8, goes_nowhere: bool, in_if: u32) -> u8 {
    if goes_nowhere && in_if != 0 && told == 0 {
        FORWARDING_DROPPED
    } else {
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_that_says_so_in_full_is_a_discard() {
        let marked = |in_if, out_if, next_hop: &str, forwarding_status| {
            let mut flow = Flow {
                in_if,
                out_if,
                next_hop: next_hop.parse().unwrap(),
                forwarding_status,
                ..Flow::default()
            };
            mark(&mut flow);
            (flow.forwarding_status, flow.was_discarded())
        };
        assert_eq!(marked(7, 0, "::", 0), (FORWARDING_DROPPED, true));
        assert_eq!(marked(7, 8, "::", 0), (0, false), "it went out, to whomever");
        assert_eq!(marked(7, 0, "192.0.2.1", 0), (0, false), "it was routed");
        assert_eq!(marked(0, 0, "::", 0), (0, false), "a probe knows no interfaces");
        assert_eq!(
            marked(7, 0, "::", 64),
            (64, false),
            "forwarded, as the exporter says itself"
        );
        assert_eq!(marked(7, 0, "::", 0x82), (0x82, true), "its own reason stays");
        assert_eq!(marked(7, 8, "192.0.2.1", 0xbf), (0xbf, true));
        assert_eq!(
            marked(7, 0, "::", 0xc0),
            (0xc0, false),
            "consumed by the router is not dropped"
        );
    }
}
