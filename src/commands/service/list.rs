//! Lists of services and assignments in CSV files. A line that is not understood is named, and nothing is taken.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use csv::StringRecord;
use ipnet::IpNet;
use schemas::address::Address;
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory::{NewAssignment, NewService};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::options;

/// A service as a line or the command's options say it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedService {
    pub(super) name: String,
    pub(super) customer: CustomerId,
    #[serde(rename = "type", default = "default_type")]
    pub(super) service_type: String,
    #[serde(default)]
    pub(super) site: Option<String>,
    /// Where it stands in a file.
    #[serde(skip)]
    pub(super) line: Option<u64>,
}

fn default_type() -> String {
    "vps".to_owned()
}

impl TypedService {
    pub(super) fn as_new(&self) -> NewService<'_> {
        NewService {
            customer: self.customer,
            name: &self.name,
            service_type: &self.service_type,
            site: self.site.as_deref(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AssignmentLine {
    service: ServiceId,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    exporter: Option<Address>,
    #[serde(default)]
    interface: Option<u32>,
    #[serde(default)]
    vlan: Option<u16>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

/// The columns that a list may have, and those that it must have.
struct Columns {
    known: &'static [&'static str],
    needed: &'static [&'static str],
}

const SERVICE_COLUMNS: Columns = Columns {
    known: &["name", "customer", "type", "site"],
    needed: &["name", "customer"],
};

const ASSIGNMENT_COLUMNS: Columns = Columns {
    known: &["service", "prefix", "exporter", "interface", "vlan", "from", "to"],
    needed: &["service"],
};

impl Columns {
    /// Refuses a header that lacks what is needed, or has what is not known or stands twice.
    fn check(&self, header: &StringRecord) -> anyhow::Result<()> {
        let has = |name: &str| header.iter().any(|column| column == name);
        let missing: Vec<&str> = self.needed.iter().copied().filter(|name| !has(name)).collect();
        let unknown: Vec<&str> = header.iter().filter(|name| !self.known.contains(name)).collect();
        let is_repeated = |name: &&str| header.iter().filter(|column| column == name).count() > 1;
        let repeated: Vec<&str> = self.known.iter().copied().filter(is_repeated).collect();
        let mut problems = Vec::new();
        for (problem, names) in [("missing", missing), ("unknown", unknown), ("repeated", repeated)] {
            if !names.is_empty() {
                let of = if names.len() == 1 { "column" } else { "columns" };
                problems.push(format!("{problem} {of}: {}", names.join(", ")));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        bail!(
            "the header line is not understood, {}; the columns are {}, of which {} must be there",
            problems.join("; "),
            self.known.join(", "),
            self.needed.join(" and ")
        )
    }
}

/// What a line's field says wrongly, by the name of its column.
fn field_error(error: csv::Error, header: &StringRecord) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => {
            let column = err.field().and_then(|field| header.get(usize::try_from(field).ok()?));
            match column {
                Some(column) => anyhow!("{column}: {}", err.kind()),
                None => anyhow!("{}", err.kind()),
            }
        }
        _ => error.into(),
    }
}

/// A time in UTC milliseconds.
fn instant_ms(text: &str) -> anyhow::Result<i64> {
    let instant = options::instant(text).map_err(|problem| anyhow!("{text:?}: {problem}"))?;
    Ok(instant.as_millisecond())
}

fn prefix(text: &str) -> anyhow::Result<IpNet> {
    schemas::prefix::parse(text).map_err(|problem| anyhow!("prefix {text:?}: {problem}"))
}

/// The services of a file.
pub(super) fn services(path: &Path) -> anyhow::Result<Vec<TypedService>> {
    lines(path, &SERVICE_COLUMNS, |line, service: TypedService| {
        Ok(TypedService {
            line: Some(line),
            ..service
        })
    })
}

/// The assignments of a file; those that do not say from when on are valid from `now_ms` on.
pub(super) fn assignments(path: &Path, now_ms: i64) -> anyhow::Result<Vec<NewAssignment>> {
    lines(path, &ASSIGNMENT_COLUMNS, |_, line: AssignmentLine| {
        let prefix = line.prefix.as_deref().map(prefix).transpose()?;
        let from_ms = line.from.as_deref().map(instant_ms).transpose()?;
        let new = NewAssignment {
            service: line.service,
            target: super::target(prefix, line.exporter, line.interface, line.vlan)?,
            from_ms: from_ms.unwrap_or(now_ms),
            to_ms: line.to.as_deref().map(instant_ms).transpose()?,
        };
        if new.to_ms.is_some_and(|to_ms| to_ms <= new.from_ms) {
            bail!("it would end before it starts");
        }
        Ok(new)
    })
}

fn lines<Line: DeserializeOwned, Item>(
    path: &Path,
    columns: &Columns,
    read: impl Fn(u64, Line) -> anyhow::Result<Item>,
) -> anyhow::Result<Vec<Item>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .with_context(|| format!("read {}", path.display()))?;
    let headers = reader
        .headers()
        .with_context(|| format!("read {}", path.display()))?
        .clone();
    columns
        .check(&headers)
        .with_context(|| format!("read {}", path.display()))?;
    let mut items = Vec::new();
    for record in reader.records() {
        // The reader's own errors name the line.
        let record = record.with_context(|| format!("read {}", path.display()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let item = record
            .deserialize(Some(&headers))
            .map_err(|error| field_error(error, &headers))
            .and_then(|fields| read(line, fields));
        items.push(item.with_context(|| format!("line {line} of {}", path.display()))?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::assignment::Target;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn lines_say_what_belongs_to_whom() {
        let list = file(
            "service,prefix,exporter,interface,vlan,from,to\n\
             svc_1,192.0.2.0/28,,,,,\n\
             svc_2, 2001:db8::/64 ,,,,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z\n\
             svc_3,,192.0.2.1,7,30,,\n",
        );
        let list = assignments(list.path(), 5).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].target, Target::Prefix("192.0.2.0/28".parse().unwrap()));
        assert_eq!((list[0].from_ms, list[0].to_ms), (5, None));
        assert_eq!(list[1].from_ms, 1_767_225_600_000);
        assert_eq!(list[1].to_ms, Some(1_769_904_000_000));
        assert_eq!(
            list[2].target,
            Target::Interface {
                exporter: "192.0.2.1".parse().unwrap(),
                if_index: 7,
                vlan: Some(30)
            }
        );
        let short = file("service,prefix\nsvc_1,192.0.2.0/28\n");
        assert_eq!(assignments(short.path(), 0).unwrap().len(), 1);
        let typed = file("name,customer,site\nweb-1,cus_1,NYC1\nweb-2,cus_2,\n");
        let typed = services(typed.path()).unwrap();
        assert_eq!(typed[0].site.as_deref(), Some("NYC1"));
        assert_eq!(
            (typed[1].site.as_deref(), typed[1].service_type.as_str()),
            (None, "vps")
        );
        assert_eq!(typed.iter().map(|one| one.line).collect::<Vec<_>>(), [Some(2), Some(3)]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, words) in [
            ("service,prefix\nsvc_1,192.0.2.0/28\nsvc_2,192.0.2/28\n", "line 3"),
            ("service,prefix\nweb,192.0.2.0/28\n", "svc_1"),
            ("service,prefix\nsvc_1,\n", "is needed"),
            ("service,prefix,vlan\nsvc_1,192.0.2.0/28,7\n", "beside it"),
            ("service,perfix\nsvc_1,192.0.2.0/28\n", "unknown column: perfix"),
            ("prefix\n192.0.2.0/28\n", "missing column: service"),
            ("prefix,service,prefix\n", "repeated column: prefix"),
            ("service,prefix\nsvc_1,192.0.2.0/33\n", "0 to 32"),
            ("service,exporter,interface\nsvc_1,192.0.2.1,x\n", "interface: "),
            (
                "service,prefix,from\nsvc_1,192.0.2.0/28,soon\n",
                "a day like 2026-11-29",
            ),
            (
                "service,prefix,from,to\nsvc_1,192.0.2.0/28,2026-01-02T00:00:00Z,2026-01-01T00:00:00Z\n",
                "before",
            ),
        ] {
            let error = format!("{:#}", assignments(file(text).path(), 0).unwrap_err());
            assert!(error.contains(words), "{text:?} gave {error:?}");
            assert!(!error.contains("CSV deserialize"), "{text:?} gave {error:?}");
        }
    }
}
