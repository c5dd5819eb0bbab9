//! A real switch: Open vSwitch with its userspace datapath, between two hosts in namespaces of their own.
//!
//! ```text
//!  client 10.99.0.1 ──── [br0: to-client, to-server] ──── server 10.99.0.2      the service that is billed
//!                                    │
//!                                    └── exports sFlow, IPFIX or NetFlow v5 to the collector, from the switch's namespace
//! ```
//!
//! `ovsdb-server` and `ovs-vswitchd` have folders of their own, so that several switches may run. Its datapath takes packets
//! from the links by itself: the kernel's counters of the links are the truth.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::Background;
use super::net::{End, InterfaceCounters, Namespace, connect};

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
/// Where datagrams come from, and where the collector listens.
pub(crate) const SWITCH: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 98, 0, 254));
pub(crate) const COLLECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 98, 0, 1));

const BRIDGE: &str = "br0";
const CLIENT_MAC: &str = "02:00:00:00:99:01";
const SERVER_MAC: &str = "02:00:00:00:99:02";
const START_LIMIT: Duration = Duration::from_secs(30);

/// What it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Export {
    Sflow,
    Ipfix,
    NetflowV5,
}

/// The switch with its hosts and the collector's namespace. Stop what runs inside first.
#[derive(Debug)]
pub(crate) struct SwitchLab {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) switch: Namespace,
    pub(crate) collector: Namespace,
    folder: PathBuf,
    daemons: Vec<Background>,
}

impl SwitchLab {
    pub(crate) fn new(dir: &Path) -> SwitchLab {
        let folder = dir.join("ovs");
        std::fs::create_dir_all(&folder).expect("the test's directory is writable");
        let mut lab = SwitchLab {
            client: Namespace::new("client"),
            server: Namespace::new("server"),
            switch: Namespace::new("switch"),
            collector: Namespace::new("collector"),
            folder,
            daemons: Vec::new(),
        };
        lab.wire();
        lab.start(dir);
        lab
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
            end(&self.client, "to-switch", CLIENT_MAC),
            end(&self.switch, "to-client", "02:00:00:00:99:fd"),
        );
        connect(
            end(&self.server, "to-switch", SERVER_MAC),
            end(&self.switch, "to-server", "02:00:00:00:99:fe"),
        );
        connect(
            end(&self.collector, "to-switch", "02:00:00:00:98:01"),
            end(&self.switch, "to-collector", "02:00:00:00:98:fe"),
        );
        self.client.add_address("to-switch", &format!("{CLIENT}/24"));
        self.server.add_address("to-switch", &format!("{SERVER}/24"));
        self.collector.add_address("to-switch", &format!("{COLLECTOR}/24"));
        self.switch.add_address("to-collector", &format!("{SWITCH}/24"));
        // Without address resolution every frame on the links is an IP packet of the traffic.
        self.client.set_neighbour("to-switch", SERVER, SERVER_MAC);
        self.server.set_neighbour("to-switch", CLIENT, CLIENT_MAC);
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn database(&self) -> String {
        format!("unix:{}", self.file("db.sock"))
    }

    fn start(&mut self, dir: &Path) {
        let database = self.file("conf.db");
        self.switch.run(&[
            "ovsdb-tool",
            "create",
            &database,
            "/usr/share/openvswitch/vswitch.ovsschema",
        ]);
        let control = |lab: &SwitchLab, name: &str| format!("--unixctl={}", lab.file(name));
        let run_folder = format!("OVS_RUNDIR={}", self.folder.display());
        let mut command = self.switch.command("env");
        command
            .args([run_folder.as_str(), "ovsdb-server", database.as_str()])
            .arg(format!("--remote=punix:{}", self.file("db.sock")))
            .arg(control(&*self, "db.ctl"));
        let mut server = Background::start("ovsdb-server", &mut command, dir);
        let socket = self.folder.join("db.sock");
        server.wait_until("its socket", START_LIMIT, |_| socket.exists());
        self.vsctl(&["--no-wait", "init"]);
        let mut command = self.switch.command("env");
        command
            .args([run_folder.as_str(), "ovs-vswitchd"])
            .arg(self.database())
            .arg(control(&*self, "vswitchd.ctl"));
        let daemon = Background::start("ovs-vswitchd", &mut command, dir);
        self.daemons = vec![daemon, server];
        self.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"]);
        for port in ["to-client", "to-server"] {
            self.vsctl(&["add-port", BRIDGE, port]);
        }
    }

    fn vsctl(&self, arguments: &[&str]) -> String {
        let database = format!("--db={}", self.database());
        self.switch
            .run(&[&["ovs-vsctl", "--timeout=30", database.as_str()][..], arguments].concat())
    }

    /// Exports every packet from now on.
    pub(crate) fn export(&self, what: Export, to: SocketAddr) {
        let target = format!("targets=\"{to}\"");
        let create: Vec<&str> = match what {
            Export::Sflow => vec![
                "set",
                "bridge",
                BRIDGE,
                "sflow=@e",
                "--",
                "--id=@e",
                "create",
                "sflow",
                "agent=to-collector",
                target.as_str(),
                "sampling=1",
                "header=128",
                "polling=5",
            ],
            Export::Ipfix => vec![
                "set",
                "bridge",
                BRIDGE,
                "ipfix=@e",
                "--",
                "--id=@e",
                "create",
                "ipfix",
                target.as_str(),
                "sampling=1",
                "cache_active_timeout=5",
                "cache_max_flows=1000",
            ],
            Export::NetflowV5 => vec![
                "set",
                "bridge",
                BRIDGE,
                "netflow=@e",
                "--",
                "--id=@e",
                "create",
                "netflow",
                target.as_str(),
                "active_timeout=5",
            ],
        };
        self.vsctl(&["--"].iter().chain(&create).copied().collect::<Vec<_>>());
    }

    /// Stops exporting: what it still holds is sent.
    pub(crate) fn stop_exporting(&self, what: Export) {
        let column = match what {
            Export::Sflow => "sflow",
            Export::Ipfix => "ipfix",
            Export::NetflowV5 => "netflow",
        };
        self.vsctl(&["clear", "bridge", BRIDGE, column]);
    }

    /// What the server's own interface counted: received is what the service received.
    pub(crate) fn server_counters(&self) -> InterfaceCounters {
        self.server.counters("to-switch")
    }
}
