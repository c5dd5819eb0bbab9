//! Packets that the exporter did not forward: kept as flows and counted, never metered.
//!
//! Three ways to say so are understood, and nothing else is guessed:
//!
//! * a forwarding status (IE 89, RFC 7270 §4.12) whose upper two bits are 10, dropped; sFlow says it in the output interface;
//! * Junos' forwarding exception of a sampled packet (`netflow/exception.rs`);
//! * where an exporter is configured with `zero_route_is_discard`, as Junos is with `report-zero-oif-gw-on-discard`: next hop zero *and*
//!   output interface zero, in a record that has both fields, names its input interface, and says no forwarding status. Such a
//!   flow gets the status "dropped, reason not told".
//!
//! Without that setting both zero mean many things, most of them forwarded: Junos without `nexthop-learning` says so of traffic between
//! routing instances and over several paths, Cisco of what the router itself receives, everybody of multicast. Such a flow
//! counts, and is marked ([`tables::flow::marks::NO_ROUTE`]) so that it can be read again under the setting.

/// Whether a flow with no route, of whose forwarding `told` is said, is taken as dropped.
#[inline]
pub(super) fn by_rule(told: u8, zero_route_is_discard: bool) -> bool {
    zero_route_is_discard && told == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_setting_makes_a_discard_of_it_and_only_where_nothing_is_told() {
        assert!(by_rule(0, true));
        assert!(!by_rule(0, false), "forwarded, to nobody knows where");
        assert!(!by_rule(64, true), "forwarded, as the exporter says itself");
        assert!(!by_rule(0x82, true), "its own reason stays");
        assert!(!by_rule(0xc0, true), "consumed by the router is not dropped");
    }
}
