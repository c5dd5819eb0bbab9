//! How to point a router or switch at us, with our addresses filled in.
//!
//! Where a socket listens on every address, the address of this machine is not known here. The one the visitor reached
//! the portal by is a good guess when it is an address that routers may reach too; else the commands
//! name what the reader has to fill in: no machine can know how routers reach it from behind another address.

use std::net::{IpAddr, SocketAddr};

use crate::exporters::view::SocketView;

/// Where flows are sent unless the collector says otherwise.
const NETFLOW_PORT: u16 = 2055;
const SFLOW_PORT: u16 = 6343;
const ADDRESS_TO_FILL_IN: &str = "COLLECTOR-ADDRESS";

/// Commands for the operator of a router.
pub(super) struct Guide {
    pub(super) netflow: String,
    pub(super) sflow: String,
    /// The addresses have to be filled in.
    pub(super) address_is_unknown: bool,
}

impl Guide {
    /// `host` is the Host header of the request.
    pub(super) fn new(sockets: &[SocketView], host: Option<&str>) -> Guide {
        let netflow = bound(sockets, "netflow");
        let sflow_socket = bound(sockets, "sflow");
        // One machine has one address in both, unless its sockets say otherwise.
        let own = |socket: Option<SocketAddr>| socket.map(|bound| bound.ip()).filter(|ip| is_reachable(*ip));
        let here = own(netflow).or(own(sflow_socket)).or_else(|| host.and_then(reachable));
        let address = |socket: Option<SocketAddr>| {
            let ip = own(socket).or(here);
            ip.map_or_else(|| ADDRESS_TO_FILL_IN.to_owned(), |ip| ip.to_string())
        };
        Guide {
            netflow: jflow(&address(netflow), netflow.map_or(NETFLOW_PORT, |bound| bound.port())),
            sflow: sflow(
                &address(sflow_socket),
                sflow_socket.map_or(SFLOW_PORT, |bound| bound.port()),
            ),
            address_is_unknown: here.is_none(),
        }
    }
}

/// Where a protocol is sent: to the socket meant for it, else to any. The collector tells protocols apart by their content.
fn bound(sockets: &[SocketView], kind: &str) -> Option<SocketAddr> {
    let meant = sockets.iter().find(|socket| socket.kind == kind);
    meant.or(sockets.first())?.address.parse().ok()
}

/// Whether other machines may reach it.
fn is_reachable(ip: IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified()
}

/// The address in a Host header, unless only this machine could use it.
fn reachable(host: &str) -> Option<IpAddr> {
    let ip = match host.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => host.trim_matches(['[', ']']).parse().ok()?,
    };
    is_reachable(ip).then_some(ip)
}

/// Inline J-Flow on MX, PTX and SRX: IPFIX with the sampling rate in its options.
fn jflow(address: &str, port: u16) -> String {
    format!(
        "set services flow-monitoring version-ipfix template ezscale-v4 flow-active-timeout 60
set services flow-monitoring version-ipfix template ezscale-v4 flow-inactive-timeout 15
set services flow-monitoring version-ipfix template ezscale-v4 template-refresh-rate seconds 30
set services flow-monitoring version-ipfix template ezscale-v4 option-refresh-rate seconds 30
set services flow-monitoring version-ipfix template ezscale-v4 ipv4-template
set services flow-monitoring version-ipfix template ezscale-v6 flow-active-timeout 60
set services flow-monitoring version-ipfix template ezscale-v6 flow-inactive-timeout 15
set services flow-monitoring version-ipfix template ezscale-v6 template-refresh-rate seconds 30
set services flow-monitoring version-ipfix template ezscale-v6 option-refresh-rate seconds 30
set services flow-monitoring version-ipfix template ezscale-v6 ipv6-template
set forwarding-options sampling instance ezscale input rate 1000
set forwarding-options sampling instance ezscale family inet output flow-server {address} port {port}
set forwarding-options sampling instance ezscale family inet output flow-server {address} version-ipfix template ezscale-v4
set forwarding-options sampling instance ezscale family inet output inline-jflow source-address ROUTER-ADDRESS
set forwarding-options sampling instance ezscale family inet6 output flow-server {address} port {port}
set forwarding-options sampling instance ezscale family inet6 output flow-server {address} version-ipfix template ezscale-v6
set forwarding-options sampling instance ezscale family inet6 output inline-jflow source-address ROUTER-ADDRESS
set chassis fpc 0 sampling-instance ezscale
# on every interface, so that each packet is seen once, where it comes in
set interfaces xe-0/0/0 unit 0 family inet sampling input
set interfaces xe-0/0/0 unit 0 family inet6 sampling input"
    )
}

/// sFlow on EX and QFX.
fn sflow(address: &str, port: u16) -> String {
    format!(
        "set protocols sflow agent-id SWITCH-ADDRESS
set protocols sflow source-ip SWITCH-ADDRESS
set protocols sflow collector {address} udp-port {port}
set protocols sflow polling-interval 20
set protocols sflow sample-rate ingress 1000
# on every interface, so that each packet is seen once, where it comes in
set protocols sflow interfaces xe-0/0/0.0"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(kind: &str, address: &str) -> SocketView {
        let bound: SocketAddr = address.parse().unwrap();
        SocketView {
            kind: kind.to_owned(),
            address: address.to_owned(),
            port: bound.port(),
            datagrams: 0,
            bytes: 0,
            kernel_dropped: 0,
            queue_dropped: 0,
            receive_buffer_bytes: 0,
        }
    }

    #[test]
    fn our_addresses_are_filled_in() {
        let sockets = [socket("netflow", "198.51.100.10:9995"), socket("sflow", "0.0.0.0:6344")];
        let guide = Guide::new(&sockets, Some("203.0.113.5:8080"));
        assert!(
            guide.netflow.contains("flow-server 198.51.100.10 port 9995"),
            "{}",
            guide.netflow
        );
        assert!(
            guide.sflow.contains("collector 198.51.100.10 udp-port 6344"),
            "one machine, one address: {}",
            guide.sflow
        );
        assert!(!guide.address_is_unknown);
        let guide = Guide::new(&[socket("netflow", "0.0.0.0:9995")], Some("203.0.113.5:8080"));
        assert!(
            guide.sflow.contains("collector 203.0.113.5 udp-port 9995"),
            "where nothing else listens: {}",
            guide.sflow
        );
        let guide = Guide::new(&[socket("netflow", "127.0.0.1:9995")], None);
        for text in [&guide.netflow, &guide.sflow] {
            assert!(
                text.contains(ADDRESS_TO_FILL_IN) && text.contains("port 9995"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_only_this_machine_could_use_is_left_to_be_filled_in() {
        for host in [
            None,
            Some("localhost:8080"),
            Some("127.0.0.1:8080"),
            Some("[::1]:8080"),
            Some("portal.example.net"),
        ] {
            let guide = Guide::new(&[socket("netflow", "[::]:2055")], host);
            assert!(
                guide.netflow.contains("flow-server COLLECTOR-ADDRESS port 2055"),
                "{host:?}"
            );
            assert!(guide.address_is_unknown);
        }
        let guide = Guide::new(&[], Some("[2001:db8::7]"));
        assert!(guide.sflow.contains("collector 2001:db8::7 udp-port 6343"));
    }
}
