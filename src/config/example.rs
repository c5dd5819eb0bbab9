//! The example of a configuration.

/// What `ezscale config example` prints: every setting with its default or a typical value.
pub(crate) const EXAMPLE: &str = include_str!("../../docs/ezscale.example.toml");

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn the_example_is_valid_and_names_every_section() {
        let config = Config::parse(EXAMPLE).unwrap();
        assert!(!config.exporters.is_empty());
        assert!(!config.collector.netflow.is_empty());
        assert_eq!(config.exporters[0].interface_names[&513], "ae0.0");
        let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again.exporters, config.exporters);
    }

    /// A commented section and its settings, without the marks, one after the other.
    fn with_each_section_switched_on() -> Vec<(String, String)> {
        let lines: Vec<&str> = EXAMPLE.lines().collect();
        let header = |line: &str| Some(line.strip_prefix("# [")?.strip_suffix(']')?.to_owned());
        let mut found = Vec::new();
        for (start, line) in lines.iter().enumerate() {
            let Some(name) = header(line) else { continue };
            let end = (start + 1..lines.len()).find(|&at| !lines[at].starts_with("# ") || header(lines[at]).is_some());
            let section = start..end.unwrap_or(lines.len());
            let text = lines.iter().enumerate().map(|(at, line)| {
                let setting = line.strip_prefix("# ").filter(|_| section.contains(&at));
                // Not what a remark goes on with, nor keys that are left empty.
                let is_one = |text: &&str| text.starts_with('[') || (text.contains(" = ") && !text.contains("\"\""));
                setting.filter(is_one).unwrap_or(line).to_owned() + "\n"
            });
            found.push((name, text.collect()));
        }
        found
    }

    #[test]
    fn a_section_of_the_example_that_is_switched_on_takes_nothing_of_what_is_below() {
        let table = |text: &str| {
            let config = Config::parse(text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
            toml::Table::try_from(&config).unwrap()
        };
        let before = table(EXAMPLE);
        let switched = with_each_section_switched_on();
        assert!(switched.len() >= 6, "{switched:?}");
        for (name, text) in switched {
            let section = name.split('.').next().unwrap();
            let after = table(&text);
            assert_ne!(after.get(section), before.get(section), "[{name}] sets nothing");
            for (other, value) in after.iter().filter(|(other, _)| *other != section) {
                assert_eq!(Some(value), before.get(other), "{other}, by [{name}]");
            }
        }
    }
}
