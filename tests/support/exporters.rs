//! The real exporters: softflowd (NetFlow v5, v9, IPFIX) and pmacctd (nfprobe: v9, IPFIX; sfprobe: sFlow v5).
//!
//! Both sniff an interface in a [`Namespace`] and send to a collector's address. [`Exporter::stop`] makes them export
//! what they hold. What was found out about them (softflowd 1.1.0, pmacct 1.7.7):
//!
//! - A sniffed packet waits in libpcap's ring until its block is full: softflowd sets no time limit on that, pmacctd
//!   reads late. Stopped too early they lose the end of the traffic. So the test sends marker packets until
//!   [`Exporter::has_seen`] them; the ring keeps the order.
//! - softflowd ends with 1 after a clean shutdown. Its v5 drops IPv6. Its sampling is every n-th packet: on strictly
//!   alternating traffic, such as ping and its reply, an even n sees one direction only, so sample by an odd number.
//!   It tells its rate in v5 headers (0 when unsampled), in v9 options (field 34, 1 when unsampled) and in IPFIX options
//!   (305/306: 1 packet taken, n − 1 passed over).
//! - pmacctd skips a random number of packets between samples, evenly distributed from 1 to 2n − 1. nfprobe says
//!   nothing of a rate when it does not sample, and otherwise in options (48–50, also in IPFIX, where those numbers are
//!   deprecated). sfprobe counts the frame check sequence in the frame length (IP length + 18), cuts headers at 128
//!   bytes, and gives its own address as 127.0.0.1 unless told.
//! - pmacctd loses packets between its processes ("Missing data detected") unless `plugin_pipe_size` is raised.
//! - All count layer 3 bytes, to the byte as many as the kernel.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command::{Background, output_of};
use super::net::Namespace;

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How an exporter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It lost no packet.
    WithoutLoss,
    /// It did not tell.
    Untold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Softflowd,
    Pmacctd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    NetflowV5,
    NetflowV9,
    Ipfix,
    Sflow,
}

impl Protocol {
    /// The version as both programs spell it, for all that are of the NetFlow family.
    fn netflow_version(self) -> &'static str {
        match self {
            Self::NetflowV5 => "5",
            Self::NetflowV9 => "9",
            Self::Ipfix => "10",
            Self::Sflow => panic!("sFlow is no version of NetFlow"),
        }
    }
}

/// What to run where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) program: Program,
    pub(crate) protocol: Protocol,
    /// Where packets are sniffed, and from where datagrams are sent.
    pub(crate) namespace: &'a Namespace,
    pub(crate) interface: &'a str,
    /// The exporter's address as it shall name itself, where its protocol carries one.
    pub(crate) agent: IpAddr,
    pub(crate) collector: SocketAddr,
    /// One packet in so many; 1 takes all.
    pub(crate) sampling_rate: u32,
    pub(crate) timeouts: Timeouts,
    /// For configuration files, control sockets and logs. Its path must be short: sockets' paths are.
    pub(crate) dir: &'a Path,
}

/// After how long a flow that goes on is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeouts {
    /// As the program has it.
    Usual,
    /// After so many seconds, whatever its kind.
    Active(u32),
}

/// A running exporter.
#[derive(Debug)]
pub(crate) struct Exporter {
    program: Program,
    process: Background,
    /// softflowd's control socket, or the socket of pmacctd's in-memory table.
    control: PathBuf,
}

impl Exporter {
    /// Starts it and returns when it captures.
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let mut exporter = match setup.program {
            Program::Softflowd => Self::start_softflowd(setup),
            Program::Pmacctd => Self::start_pmacctd(setup),
        };
        let control = exporter.control.clone();
        exporter
            .process
            .wait_until("a packet socket and an answer", START_LIMIT, |process| {
                let opened = setup.program == Program::Softflowd || process.log().contains("link type is");
                opened && setup.namespace.packet_socket_count() > 0 && ask(setup.program, &control).is_some()
            });
        exporter
    }

    fn start_softflowd(setup: &Setup<'_>) -> Self {
        let control = setup.dir.join("softflowd.ctl");
        let mut command = sniffer(setup, "softflowd");
        command.arg("-d").args(["-i", setup.interface]);
        command.args([
            "-v",
            setup.protocol.netflow_version(),
            "-n",
            &setup.collector.to_string(),
        ]);
        command
            .arg("-c")
            .arg(&control)
            .arg("-p")
            .arg(setup.dir.join("softflowd.pid"));
        if setup.sampling_rate > 1 {
            command.args(["-s", &setup.sampling_rate.to_string()]);
        }
        if let Timeouts::Active(seconds) = setup.timeouts {
            command.args(["-t", &format!("maxlife={seconds}"), "-t", "expint=1"]);
        }
        let process = Background::start("softflowd", &mut command, setup.dir);
        Self {
            program: Program::Softflowd,
            process,
            control,
        }
    }

    fn start_pmacctd(setup: &Setup<'_>) -> Self {
        let table = setup.dir.join("pmacctd.table");
        let collector = setup.collector;
        let export = match setup.protocol {
            Protocol::Sflow => format!(
                "plugins: sfprobe[export], memory[seen]\n\
                 sfprobe_receiver[export]: {collector}\n\
                 sfprobe_agentip[export]: {}\n",
                setup.agent
            ),
            netflow => format!(
                "plugins: nfprobe[export], memory[seen]\n\
                 nfprobe_receiver[export]: {collector}\n\
                 nfprobe_version[export]: {}\n\
                 aggregate[export]: src_host, dst_host, src_port, dst_port, proto, tos\n",
                netflow.netflow_version()
            ),
        };
        let timeouts = match (setup.protocol, setup.timeouts) {
            (Protocol::Sflow, _) | (_, Timeouts::Usual) => String::new(),
            (_, Timeouts::Active(seconds)) => format!("nfprobe_timeouts[export]: maxlife={seconds}:expint=1\n"),
        };
        let sampling = match setup.sampling_rate {
            1 => String::new(),
            rate => format!("sampling_rate: {rate}\n"),
        };
        // The table is there to be asked what the capture has come to. The pipes to the plugins hold all of the
        // traffic, so that none is lost when a plugin waits for the processor.
        let configuration = format!(
            "daemonize: false\n\
             pcap_interface: {}\n\
             plugin_pipe_size: 67108864\n\
             plugin_buffer_size: 65536\n\
             imt_path[seen]: {}\n\
             aggregate[seen]: dst_host\n\
             {export}{timeouts}{sampling}",
            setup.interface,
            table.display()
        );
        let file = setup.dir.join("pmacctd.conf");
        std::fs::write(&file, configuration).expect("the test's directory is writable");
        let mut command = sniffer(setup, "pmacctd");
        command.arg("-f").arg(&file);
        let process = Background::start("pmacctd", &mut command, setup.dir);
        Self {
            program: Program::Pmacctd,
            process,
            control: table,
        }
    }

    /// Whether a packet to or from this IPv4 address was taken from the capture.
    pub(crate) fn has_seen(&self, address: IpAddr) -> bool {
        assert!(address.is_ipv4(), "the markers are IPv4");
        let address = address.to_string();
        let in_an_address = |c: char| c.is_ascii_digit() || c == '.';
        ask(self.program, &self.control)
            .is_some_and(|flows| flows.split(|c| !in_an_address(c)).any(|word| word == address))
    }

    /// Exports everything that is held and ends. Fails when it lost packets before it could count them: then nobody
    /// can tell what it should have exported.
    pub(crate) fn stop(mut self) -> Stopped {
        let (status, clean, no_loss, said) = match self.program {
            Program::Softflowd => {
                let statistics = self.softflowctl("statistics");
                self.softflowctl("shutdown");
                (
                    self.process.wait_for_exit(STOP_LIMIT),
                    1,
                    "Packets dropped by libpcap: 0\n",
                    statistics,
                )
            }
            Program::Pmacctd => {
                let status = self.process.stop_with("INT", STOP_LIMIT);
                (status, 0, "dropped_packets=0\n", self.process.log())
            }
        };
        let program = self.program;
        // Asked to end, pmacctd asks its plugins to; where they are gone before it has looked up, it takes them for lost,
        // says so and leaves its statistics out.
        if program == Program::Pmacctd && status.code() == Some(1) && said.contains("no more plugins active") {
            return Stopped::Untold;
        }
        assert_eq!(
            status.code(),
            Some(clean),
            "{program:?} ends as it does on request:\n{}",
            self.process.log()
        );
        assert!(
            said.contains(no_loss),
            "{program:?} lost packets on their way from the kernel:\n{said}"
        );
        assert!(
            !said.contains("Missing data detected"),
            "{program:?} lost packets between its processes:\n{said}"
        );
        Stopped::WithoutLoss
    }

    fn softflowctl(&self, request: &str) -> String {
        output_of(Command::new("softflowctl").arg("-c").arg(&self.control).arg(request))
    }
}

/// The command of a sniffer, ahead of others for the processor: one that waits too long loses packets.
fn sniffer(setup: &Setup<'_>, program: &str) -> Command {
    let mut command = setup.namespace.command("nice");
    command.args(["-n", "-15", program]);
    command
}

/// The flows that an exporter holds, as text; none when it does not answer.
fn ask(program: Program, control: &Path) -> Option<String> {
    let mut command = match program {
        Program::Softflowd => {
            let mut command = Command::new("softflowctl");
            command.arg("-c").arg(control).arg("dump-flows");
            command
        }
        Program::Pmacctd => {
            let mut command = Command::new("pmacct");
            command.arg("-p").arg(control).arg("-s");
            command
        }
    };
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
