//! What exporters say of their own interfaces: name, description and speed, by SNMP or in options data.
//!
//! It is kept in `<data_dir>/collector/interfaces.json`, so that an exporter which does not answer for a while keeps its names
//! and, where its boundary is told by name, its boundary. Configured names win over all of it ([`crate::names`]).
//!
//! ```text
//! {"exporters": [{"address": "192.0.2.1", "interfaces": [[513, "ae0.0", "Transit: Example", "ae0.0", 100000000000, 1764400000000], …]}]}
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::text::is_plain;

/// Interfaces that are kept per exporter.
pub const INTERFACES_MAX: usize = 4_096;
/// Interfaces that are kept in all.
pub const ALL_INTERFACES_MAX: usize = 500_000;
/// Longer names and descriptions are cut.
pub const TEXT_CHARS_MAX: usize = 128;
/// What was not heard of for so long is forgotten.
pub const FORGET_AFTER_MS: i64 = 30 * 24 * 60 * 60 * 1000;

const FILE: &str = "interfaces.json";

/// What is known of one interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownInterface {
    /// `ifName`, IE 82: `xe-0/0/1.0`.
    pub name: String,
    /// `ifAlias`, IE 83: what people wrote about it.
    pub description: String,
    /// `ifDescr`: what the device calls it at length.
    pub long_name: String,
    /// 0 = not known.
    pub speed_bps: u64,
    /// When it was last told, UTC milliseconds.
    pub told_at_ms: i64,
}

impl KnownInterface {
    /// Without what cannot be seen, and not longer than is kept.
    pub fn text(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        let printable = text.chars().filter(|character| is_plain(*character));
        let cut: String = printable.take(TEXT_CHARS_MAX).collect();
        cut.trim().to_owned()
    }

    /// With what was known before where this says nothing: options data may tell name and description apart.
    pub fn beside(self, known: Option<&KnownInterface>, told_at_ms: i64) -> KnownInterface {
        let Some(known) = known else {
            return KnownInterface { told_at_ms, ..self };
        };
        let or = |new: String, old: &String| if new.is_empty() { old.clone() } else { new };
        KnownInterface {
            name: or(self.name, &known.name),
            description: or(self.description, &known.description),
            long_name: or(self.long_name, &known.long_name),
            speed_bps: if self.speed_bps == 0 {
                known.speed_bps
            } else {
                self.speed_bps
            },
            told_at_ms,
        }
    }

    /// What to call it: its name, else its long name.
    pub fn best_name(&self) -> Option<&str> {
        [&self.name, &self.long_name]
            .into_iter()
            .map(String::as_str)
            .find(|text| !text.is_empty())
    }
}

/// Of one exporter, by SNMP index.
pub type InterfacesOf = BTreeMap<u32, KnownInterface>;

/// What is known of all exporters' interfaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownInterfaces {
    /// By address and port; port 0 = whatever port.
    exporters: BTreeMap<(Address, u16), InterfacesOf>,
    count: usize,
}

impl KnownInterfaces {
    /// Of one exporter; those of its port, else those of its address.
    pub fn of(&self, exporter: Address, port: u16) -> Option<&InterfacesOf> {
        let of_port = self.exporters.get(&(exporter, port)).filter(|_| port != 0);
        of_port.or_else(|| self.exporters.get(&(exporter, 0)))
    }

    pub fn interface(&self, exporter: Address, port: u16, if_index: u32) -> Option<&KnownInterface> {
        self.of(exporter, port)?.get(&if_index)
    }

    /// Every exporter with its port and its interfaces.
    pub fn iter(&self) -> impl Iterator<Item = (Address, u16, &InterfacesOf)> {
        self.exporters
            .iter()
            .map(|((exporter, port), interfaces)| (*exporter, *port, interfaces))
    }

    pub fn is_empty(&self) -> bool {
        self.exporters.is_empty()
    }

    /// Keeps what was told of one interface; answers whether that is news. Beyond the limits nothing is kept.
    pub fn set(&mut self, exporter: Address, port: u16, if_index: u32, interface: KnownInterface) -> bool {
        let of_exporter = self.exporters.get(&(exporter, port)).map_or(0, BTreeMap::len);
        let old = self.exporters.get(&(exporter, port)).and_then(|all| all.get(&if_index));
        if old.is_none() && (of_exporter >= INTERFACES_MAX || self.count >= ALL_INTERFACES_MAX) {
            return false;
        }
        let is_news = old.is_none_or(|old| {
            (&old.name, &old.description, &old.long_name, old.speed_bps)
                != (
                    &interface.name,
                    &interface.description,
                    &interface.long_name,
                    interface.speed_bps,
                )
        });
        let all = self.exporters.entry((exporter, port)).or_default();
        self.count += usize::from(all.insert(if_index, interface).is_none());
        is_news
    }

    /// Forgets what was not told for [`FORGET_AFTER_MS`].
    pub fn forget_old(&mut self, now_ms: i64) {
        let oldest_ms = now_ms - FORGET_AFTER_MS;
        self.exporters.retain(|_, interfaces| {
            interfaces.retain(|_, interface| interface.told_at_ms >= oldest_ms);
            !interfaces.is_empty()
        });
        self.count = self.exporters.values().map(BTreeMap::len).sum();
    }

    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("collector").join(FILE)
    }

    /// Reads what a data directory keeps; nothing where there is no file.
    ///
    /// # Errors
    /// When the file exists and cannot be read or understood.
    pub fn read(data_dir: &Path) -> std::io::Result<KnownInterfaces> {
        let text = match std::fs::read(KnownInterfaces::path(data_dir)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(KnownInterfaces::default()),
            Err(error) => return Err(error),
        };
        let stored: Stored = serde_json::from_slice(&text)?;
        let mut known = KnownInterfaces::default();
        for exporter in stored.exporters {
            for (if_index, name, description, long_name, speed_bps, told_at_ms) in exporter.interfaces {
                let interface = KnownInterface {
                    name,
                    description,
                    long_name,
                    speed_bps,
                    told_at_ms,
                };
                known.set(exporter.address, exporter.port, if_index, interface);
            }
        }
        Ok(known)
    }

    /// The file's path and content, for whoever writes it.
    ///
    /// # Errors
    /// Never, as JSON has room for all of it.
    pub fn to_file(&self, data_dir: &Path) -> std::io::Result<(PathBuf, Vec<u8>)> {
        let exporters = self.iter().map(|(address, port, interfaces)| StoredExporter {
            address,
            port,
            interfaces: interfaces
                .iter()
                .map(|(if_index, known)| {
                    (
                        *if_index,
                        known.name.clone(),
                        known.description.clone(),
                        known.long_name.clone(),
                        known.speed_bps,
                        known.told_at_ms,
                    )
                })
                .collect(),
        });
        let stored = Stored {
            exporters: exporters.collect(),
        };
        Ok((KnownInterfaces::path(data_dir), serde_json::to_vec(&stored)?))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    exporters: Vec<StoredExporter>,
}

#[derive(Serialize, Deserialize)]
struct StoredExporter {
    address: Address,
    #[serde(default)]
    port: u16,
    interfaces: Vec<(u32, String, String, String, u64, i64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, told_at_ms: i64) -> KnownInterface {
        KnownInterface {
            name: name.to_owned(),
            description: "Transit".to_owned(),
            speed_bps: 10_000_000_000,
            told_at_ms,
            ..KnownInterface::default()
        }
    }

    #[test]
    fn what_is_known_survives_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(KnownInterfaces::read(dir.path()).unwrap().is_empty());
        let mut known = KnownInterfaces::default();
        let exporter = "192.0.2.1".parse().unwrap();
        assert!(known.set(exporter, 0, 513, interface("ae0", 5)));
        assert!(
            !known.set(exporter, 0, 513, interface("ae0", 6)),
            "told again is no news"
        );
        assert!(known.set(exporter, 0, 513, interface("ae1", 7)));
        assert!(known.set(exporter, 40_001, 513, interface("other", 7)));
        let (path, content) = known.to_file(dir.path()).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        let again = KnownInterfaces::read(dir.path()).unwrap();
        assert_eq!(again, known);
        let name = |port| again.interface(exporter, port, 513).unwrap().name.as_str();
        assert_eq!((name(0), name(40_001), name(40_002)), ("ae1", "other", "ae1"));
    }

    #[test]
    fn what_is_old_is_forgotten_and_a_flood_is_bounded() {
        let mut known = KnownInterfaces::default();
        let exporter = "192.0.2.1".parse().unwrap();
        for if_index in 0..INTERFACES_MAX as u32 + 10 {
            known.set(exporter, 0, if_index, interface("x", i64::from(if_index)));
        }
        assert_eq!(known.of(exporter, 0).unwrap().len(), INTERFACES_MAX);
        known.forget_old(FORGET_AFTER_MS + 4_000);
        assert_eq!(known.of(exporter, 0).unwrap().len(), 96);
        known.forget_old(2 * FORGET_AFTER_MS);
        assert!(known.is_empty() && known.set(exporter, 0, 1, interface("x", 0)));
    }

    #[test]
    fn texts_are_clean_and_short() {
        assert_eq!(KnownInterface::text(b" xe-0/0/1\0\n "), "xe-0/0/1");
        assert_eq!(KnownInterface::text("\u{202e}1/0/0-ex\u{200b}".as_bytes()), "1/0/0-ex");
        assert_eq!(KnownInterface::text(&[b'a'; 500]).len(), TEXT_CHARS_MAX);
        assert_eq!(KnownInterface::text(&[0xff, b'x']), "\u{fffd}x");
    }
}
