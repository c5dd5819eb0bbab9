//! A real SNMP agent: Debian's snmpd, with a community and a user of version 3.
//!
//! It keeps what it read of the interfaces for three seconds and rewrites the `snmpd.conf` in `SNMP_PERSISTENT_DIR`: ours lies
//! elsewhere.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::command::Background;
use super::net::Namespace;

pub(crate) const COMMUNITY: &str = "ez-read";
pub(crate) const USER: &str = "ez-user";
pub(crate) const AUTH_PASSWORD: &str = "ez-auth-password";
pub(crate) const PRIVACY_PASSWORD: &str = "ez-privacy-password";

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running agent. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Snmpd {
    _process: Background,
}

impl Snmpd {
    /// Starts it inside a namespace and waits until it listens.
    pub(crate) fn start(namespace: &Namespace, listen: SocketAddr, dir: &Path) -> Snmpd {
        let config = dir.join("agent.conf");
        let text = format!(
            "rocommunity {COMMUNITY} default\n\
             createUser {USER} SHA-256 \"{AUTH_PASSWORD}\" AES \"{PRIVACY_PASSWORD}\"\n\
             rouser {USER} priv\n"
        );
        std::fs::write(&config, text).expect("the test's directory is writable");
        let persistent = dir.join("snmp-persistent");
        std::fs::create_dir_all(&persistent).expect("the test's directory is writable");
        let mut command = namespace.command("env");
        command
            .arg(format!("SNMP_PERSISTENT_DIR={}", persistent.display()))
            .args(["MIBS=", "snmpd", "-f", "-Lo", "-C", "-c"])
            .arg(&config)
            .arg(format!("udp:{listen}"));
        let mut process = Background::start("snmpd", &mut command, dir);
        process.wait_until("listening", START_LIMIT, |_| {
            namespace.is_listening("udp", listen.port())
        });
        Snmpd { _process: process }
    }
}
