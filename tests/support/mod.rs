//! What the end-to-end tests share.
//!
//! - [`ezscale`]: the built binary: a data directory, commands on it, a running collector or server.
//! - [`demo`]: the demo's data, made once and copied.
//! - [`net`], [`lab`]: network namespaces, and the little network in which traffic of known size is metered.
//! - [`traffic`]: that traffic.
//! - [`exporters`]: softflowd and pmacctd, the real exporters.
//! - [`clock`]: the time, taken once.
//! - [`golden`], [`beside`]: captures and datagrams of others' routers, and leaving out by name what needs them.
//! - [`numbered`]: flows by number, and the model of what must become of them. [`disk`]: a disk that fails on demand.
//! - [`pcap`], [`tshark`]: captures, and the second opinion on what they say.
//! - [`ovs`]: Open vSwitch, a real switch.
//! - [`snmpd`]: an SNMP agent.
//! - [`smtp`], [`hooks`]: a mail server and a program that hears of events.
//! - [`s3`]: a server that speaks S3.
//! - [`stripe`]: a payment gateway that fails in every way it can, and remembers what it really charged.
//! - [`http`]: a client that comes from an address of its own.
//! - [`wait`], [`command`]: waiting with a deadline, running other programs.
//!
//! What is missing on the machine fails the test with a sentence on what to do; only captures that lie beside the repository
//! may be missing ([`beside`]).

#[path = "../../collector/tests/support/beside.rs"]
#[allow(dead_code, reason = "the collector's tests read more of it")]
pub(crate) mod beside;
pub(crate) mod browser;
pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod demo;
pub(crate) mod disk;
pub(crate) mod exporters;
pub(crate) mod ezscale;
pub(crate) mod golden;
pub(crate) mod hooks;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod net;
pub(crate) mod numbered;
pub(crate) mod ovs;
pub(crate) mod pcap;
pub(crate) mod s3;
pub(crate) mod smtp;
pub(crate) mod snmpd;
pub(crate) mod stripe;
pub(crate) mod traffic;
pub(crate) mod tshark;
pub(crate) mod wait;
