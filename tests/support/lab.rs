//! The little network in which real exporters meter real traffic.
//!
//! ```text
//!  client ──────────── router ──────────── server
//!  10.71.0.1           │  ▲ sniffed here   10.72.0.1  fd72::1     the service that is billed
//!  fd71::1             │  └ `to-server`    10.72.0.2              a neighbour that is not
//!                      │
//!                      └─────────────────── collector
//!                        10.73.0.254        10.73.0.1
//! ```
//!
//! The router forwards. Exporters sniff its interface towards the server, both directions, and the kernel's counters of
//! that same interface are the truth: what it sends there is what the service received. Neighbours are fixed and
//! offloads are off, so that every frame on that interface is an IP packet of the traffic, of at most the MTU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::net::{End, InterfaceCounters, Namespace, connect};

pub(crate) const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 71, 0, 1));
pub(crate) const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd71, 0, 0, 0, 0, 0, 0, 1));
pub(crate) const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 72, 0, 1));
pub(crate) const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd72, 0, 0, 0, 0, 0, 0, 1));
/// Another address of the server, outside the service's prefixes: for packets that must not be metered as its.
pub(crate) const NEIGHBOUR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 72, 0, 2));
/// Where the exporters' datagrams come from.
pub(crate) const ROUTER_TO_COLLECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 73, 0, 254));
/// Where the collector listens.
pub(crate) const COLLECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 73, 0, 1));

/// The router's interface towards the server.
pub(crate) const SNIFFED: &str = "to-server";

const ROUTER_TO_CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 71, 0, 254));
const ROUTER_TO_CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd71, 0, 0, 0, 0, 0, 0, 0xfe));
const ROUTER_TO_SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 72, 0, 254));
const ROUTER_TO_SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd72, 0, 0, 0, 0, 0, 0, 0xfe));

const CLIENT_MAC: &str = "02:00:00:00:71:01";
const ROUTER_TO_CLIENT_MAC: &str = "02:00:00:00:71:fe";
const SERVER_MAC: &str = "02:00:00:00:72:01";
const ROUTER_TO_SERVER_MAC: &str = "02:00:00:00:72:fe";
const COLLECTOR_MAC: &str = "02:00:00:00:73:01";
const ROUTER_TO_COLLECTOR_MAC: &str = "02:00:00:00:73:fe";

/// The four namespaces. Dropping it takes the network down; stop what runs inside first.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) client: Namespace,
    pub(crate) router: Namespace,
    pub(crate) server: Namespace,
    pub(crate) collector: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            client: Namespace::new("client"),
            router: Namespace::new("router"),
            server: Namespace::new("server"),
            collector: Namespace::new("collector"),
        };
        lab.wire();
        lab.address();
        lab
    }

    /// The kernel's counters of the interface that the exporters sniff.
    pub(crate) fn sniffed_counters(&self) -> InterfaceCounters {
        self.router.counters(SNIFFED)
    }

    fn wire(&self) {
        fn end<'a>(namespace: &'a Namespace, interface: &'a str, mac: &'a str) -> End<'a> {
            End {
                namespace,
                interface,
                mac,
            }
        }
        connect(
            end(&self.client, "to-router", CLIENT_MAC),
            end(&self.router, "to-client", ROUTER_TO_CLIENT_MAC),
        );
        connect(
            end(&self.server, "to-router", SERVER_MAC),
            end(&self.router, SNIFFED, ROUTER_TO_SERVER_MAC),
        );
        connect(
            end(&self.collector, "to-router", COLLECTOR_MAC),
            end(&self.router, "to-collector", ROUTER_TO_COLLECTOR_MAC),
        );
    }

    fn address(&self) {
        let Self {
            client,
            router,
            server,
            collector,
        } = self;
        client.add_address("to-router", &format!("{CLIENT_V4}/24"));
        client.add_address("to-router", &format!("{CLIENT_V6}/64"));
        server.add_address("to-router", &format!("{SERVER_V4}/24"));
        server.add_address("to-router", &format!("{NEIGHBOUR_V4}/24"));
        server.add_address("to-router", &format!("{SERVER_V6}/64"));
        collector.add_address("to-router", &format!("{COLLECTOR}/24"));
        router.add_address("to-client", &format!("{ROUTER_TO_CLIENT_V4}/24"));
        router.add_address("to-client", &format!("{ROUTER_TO_CLIENT_V6}/64"));
        router.add_address(SNIFFED, &format!("{ROUTER_TO_SERVER_V4}/24"));
        router.add_address(SNIFFED, &format!("{ROUTER_TO_SERVER_V6}/64"));
        router.add_address("to-collector", &format!("{ROUTER_TO_COLLECTOR}/24"));

        for gateway in [ROUTER_TO_CLIENT_V4, ROUTER_TO_CLIENT_V6] {
            client.set_neighbour("to-router", gateway, ROUTER_TO_CLIENT_MAC);
            client.set_default_route(gateway);
        }
        for gateway in [ROUTER_TO_SERVER_V4, ROUTER_TO_SERVER_V6] {
            server.set_neighbour("to-router", gateway, ROUTER_TO_SERVER_MAC);
            server.set_default_route(gateway);
        }
        for address in [CLIENT_V4, CLIENT_V6] {
            router.set_neighbour("to-client", address, CLIENT_MAC);
        }
        for address in [SERVER_V4, SERVER_V6, NEIGHBOUR_V4] {
            router.set_neighbour(SNIFFED, address, SERVER_MAC);
        }
        router.set_neighbour("to-collector", COLLECTOR, COLLECTOR_MAC);
        collector.set_neighbour("to-router", ROUTER_TO_COLLECTOR, ROUTER_TO_COLLECTOR_MAC);
        router.enable_forwarding();
    }
}
