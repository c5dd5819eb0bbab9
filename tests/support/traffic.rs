//! Traffic of known kinds through the [`Lab`]: bulk TCP both ways, UDP, DNS, ping, over IPv4 and IPv6.

use std::path::Path;
use std::time::Duration;

use super::command::Background;
use super::lab::{Lab, NEIGHBOUR_V4, SERVER_V4, SERVER_V6};
use super::wait::wait_until;

/// iperf3's usual port.
const IPERF_PORT: u16 = 5201;
const DNS_PORT: u16 = 53;
const START_LIMIT: Duration = Duration::from_secs(20);

/// The servers in the server's namespace. They end when dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    _iperf: Background,
    _dns: Background,
}

impl Servers {
    /// Starts them and waits until they listen.
    pub(crate) fn start(lab: &Lab, log_dir: &Path) -> Self {
        let mut iperf = Background::start("iperf3", lab.server.command("iperf3").arg("-s"), log_dir);
        let mut dns = Background::start(
            "dnsmasq",
            lab.server.command("dnsmasq").args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--user=root",
                "--pid-file=",
                "--address=/example.net/192.0.2.7",
                &format!("--listen-address={SERVER_V4},{SERVER_V6}"),
            ]),
            log_dir,
        );
        iperf.wait_until("listening", START_LIMIT, |_| lab.server.is_listening("tcp", IPERF_PORT));
        dns.wait_until("listening", START_LIMIT, |_| lab.server.is_listening("udp", DNS_PORT));
        Self {
            _iperf: iperf,
            _dns: dns,
        }
    }
}

/// Which IP versions the traffic is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    Both,
}

/// How fast bulk traffic goes. A sniffer's ring holds about 10,000 packets: at 8,000 a second one that has to wait for
/// the processor for a whole second still loses none.
const TCP_BITRATE: &str = "100M";
/// Below what any part of the path could drop: nothing sends UDP again.
const UDP_BITRATE: &str = "50M";

/// Some 33 MB to the server and 6 MB back, in about four seconds, as the mix that a hosted server sees. Each part must
/// succeed.
pub(crate) fn generate(lab: &Lab, families: Families) {
    let v4 = SERVER_V4.to_string();
    let v6 = SERVER_V6.to_string();
    let client = |argv: &[&str]| {
        // Between two clients iperf3's server closes its port and opens it again.
        if argv.first() == Some(&"iperf3") {
            wait_until("iperf3 to listen again", START_LIMIT, || {
                lab.server.is_listening("tcp", IPERF_PORT)
            });
        }
        lab.client.run(argv)
    };

    // TCP to the server, and from it.
    client(&["iperf3", "--client", &v4, "--bytes", "20M", "--bitrate", TCP_BITRATE]);
    client(&[
        "iperf3",
        "--client",
        &v4,
        "--bytes",
        "5M",
        "--bitrate",
        TCP_BITRATE,
        "--reverse",
    ]);
    client(&[
        "iperf3",
        "--client",
        &v4,
        "--bytes",
        "4M",
        "--bitrate",
        UDP_BITRATE,
        "--udp",
    ]);
    if families == Families::Both {
        client(&[
            "iperf3",
            "-6",
            "--client",
            &v6,
            "--bytes",
            "8M",
            "--bitrate",
            TCP_BITRATE,
        ]);
    }
    let servers = if families == Families::Both {
        vec![&v4, &v6]
    } else {
        vec![&v4]
    };
    for number in 0..10 {
        for server in &servers {
            let answer = client(&[
                "dig",
                "+short",
                "+tries=1",
                &format!("@{server}"),
                &format!("h{number}.example.net"),
            ]);
            assert_eq!(answer.trim(), "192.0.2.7", "the DNS server answers");
        }
    }
    for server in servers {
        client(&["ping", "-q", "-c", "20", "-i", "0.01", "-s", "400", server]);
    }
}

/// Sends pings from the router to the server's other address, which no service has.
///
/// A sniffer's buffer hands packets over by the block and not in time, so that the last packets of the traffic stay
/// unseen until more come. These are the more; an exporter that has seen them has seen everything before them.
pub(crate) fn send_marker(lab: &Lab) {
    lab.router
        .run(&["ping", "-q", "-f", "-c", "500", "-W", "1", &NEIGHBOUR_V4.to_string()]);
}
