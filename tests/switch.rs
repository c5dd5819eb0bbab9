//! A real switch meters real traffic: Open vSwitch exports sFlow, IPFIX and NetFlow v5 of the packets between two hosts, and what
//! the service is metered for equals what the kernel counted at its interface, to the byte.
//!
//! IPFIX of this switch tells of each packet twice, on its way in and on its way out; its NetFlow v5 counts the Ethernet
//! header. Both would be wrong bills.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::command::Background;
use crate::support::ezscale::{DataDir, Start};
use crate::support::ovs::{COLLECTOR, Export, SERVER, SWITCH, SwitchLab};
use crate::support::wait::wait_for;

const IPERF_PORT: u16 = 5201;
const START_LIMIT: Duration = Duration::from_secs(20);
/// For the switch to tell of its last flows, and for usage to have them.
const METERED_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn open_vswitch_sflow_meters_what_the_kernel_counted() {
    check(Export::Sflow, "");
}

#[test]
fn open_vswitch_ipfix_of_both_directions_meters_each_packet_once() {
    check(Export::Ipfix, "default_sampling_rate = 1\n");
}

#[test]
fn open_vswitch_netflow_v5_without_its_ethernet_headers_meters_what_the_kernel_counted() {
    check(Export::NetflowV5, "default_sampling_rate = 1\nlayer2_octets = 14\n");
}

fn check(export: Export, settings: &str) {
    let mut data = DataDir::new();
    let lab = SwitchLab::new(data.scratch());
    data.set_config(&format!("[[exporter]]\naddress = \"{SWITCH}\"\n{settings}"));
    let customer = data.add(
        &["customer", "add", "--name", "Example", "--email", "b@example.net"],
        "cus_",
    );
    let service = data.add(&["service", "add", "--name", "server", "--customer", &customer], "svc_");
    let prefix = format!("{SERVER}/32");
    data.run(&[
        "service",
        "assign",
        &service,
        "--prefix",
        &prefix,
        "--from",
        "2020-01-01T00:00:00Z",
    ]);
    let any_port = SocketAddr::new(COLLECTOR, 0).to_string();
    let collector = Start::new("collect")
        .netflow(&any_port)
        .sflow(&any_port)
        .inside(&lab.collector)
        .on(&data);
    let mut iperf = Background::start("iperf3", lab.server.command("iperf3").arg("-s"), data.scratch());
    iperf.wait_until("listening", START_LIMIT, |_| lab.server.is_listening("tcp", IPERF_PORT));

    let address = match export {
        Export::Sflow => collector.sflow[0],
        Export::Ipfix | Export::NetflowV5 => collector.netflow[0],
    };
    lab.export(export, address);
    let before = lab.server_counters();
    let server = SERVER.to_string();
    for arguments in [
        &["--bytes", "2M", "--bitrate", "40M"][..],
        &["--bytes", "1M", "--bitrate", "40M", "--reverse"],
        &["--bytes", "500K", "--bitrate", "20M", "--udp", "--length", "200"],
    ] {
        lab.client
            .run(&[&["iperf3", "--client", server.as_str()][..], arguments].concat());
    }
    lab.client
        .run(&["ping", "-q", "-c", "20", "-i", "0.05", "-s", "400", &server]);
    let counted = lab.server_counters().since(before);
    let truth = [counted.rx_layer3_bytes(), counted.tx_layer3_bytes()];
    assert!(
        truth[0] > 2_500_000 && truth[1] > 1_000_000,
        "there was traffic: {truth:?}"
    );

    let metered = || {
        data.query_numbers(
            "SELECT sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out FROM usage_5m WHERE service = 1",
            ["bytes_in", "bytes_out"],
        )
    };
    let what = format!("{export:?} to meter {truth:?} bytes, as the kernel counted");
    let mut last = [0; 2];
    wait_for(&what, METERED_LIMIT, || {
        last = metered();
        assert!(
            last[0] <= truth[0] && last[1] <= truth[1],
            "{export:?}: metered {last:?}, more than the kernel's {truth:?}"
        );
        (last == truth).then_some(())
    });
    lab.stop_exporting(export);
    drop(iperf);
    collector.terminate();
    assert_eq!(metered(), truth, "{export:?}: and nothing more came afterwards");
}
