//! Generates `config.example.toml` from the doc comments and defaults of the sections.
//!
//! The sections' sources are read line by line: the doc comment of the section's struct and of each
//! field, and the field's name. The value shown is the default; a field without one names a value
//! in the last paragraph of its doc comment, as in "Example: `512`". `UPDATE=1 cargo test` rewrites
//! the file.

use std::fmt::Write;

use ruma::server_name;

use super::Config;

const SECTIONS: &[(&str, &str)] = &[
    ("server", include_str!("server.rs")),
    ("database", include_str!("database.rs")),
    ("egress", include_str!("egress.rs")),
    ("federation", include_str!("federation.rs")),
    ("appservices", include_str!("appservices.rs")),
    ("registration", include_str!("registration.rs")),
    ("login", include_str!("login.rs")),
    ("email", include_str!("email.rs")),
    ("support", include_str!("support.rs")),
    ("rate_limits", include_str!("rate_limits.rs")),
    ("rooms", include_str!("rooms.rs")),
    ("encryption", include_str!("encryption.rs")),
    ("presence", include_str!("presence.rs")),
    ("calls", include_str!("calls.rs")),
    ("delayed_events", include_str!("delayed_events.rs")),
    ("search", include_str!("search.rs")),
    ("user_directory", include_str!("user_directory.rs")),
    ("media", include_str!("media.rs")),
    ("url_previews", include_str!("url_previews.rs")),
    ("limits", include_str!("limits.rs")),
    ("logging", include_str!("logging.rs")),
    ("metrics", include_str!("metrics.rs")),
];

const HEAD: &str = "\
# The configuration of Causerie, with every setting and its default.
#
# Only `server.name` has to be given. A setting may also come from the environment
# (`CAUSERIE_SERVER__NAME=example.org`, two underscores after the section) or the command line
# (`--set server.name=example.org`), which overrule this file. `causerie check-config` says whether
# all is fine. This file is generated: it repeats the doc comments in src/config/.
";

/// A field with its doc comment.
#[derive(Debug, PartialEq)]
struct Field {
    docs: Vec<String>,
    name: String,
}

/// The doc comment of the struct whose name ends in `Config`, and its fields.
fn parse_section(source: &str) -> (Vec<String>, Vec<Field>) {
    let mut docs = Vec::new();
    let mut section_docs = Vec::new();
    let mut fields = Vec::new();
    let mut is_inside = false;
    for line in source.lines() {
        let trimmed = line.trim();
        if let Some(text) = trimmed.strip_prefix("///") {
            docs.push(text.trim().to_owned());
        } else if trimmed.starts_with("pub struct ") && trimmed.ends_with("Config {") {
            is_inside = true;
            section_docs = std::mem::take(&mut docs);
        } else if is_inside && line == "}" {
            break;
        } else if is_inside && trimmed.starts_with("pub ") {
            let name = trimmed.trim_start_matches("pub ").split(':').next().unwrap_or_default();
            fields.push(Field { docs: std::mem::take(&mut docs), name: name.to_owned() });
        } else if !trimmed.starts_with("#[") {
            docs.clear();
        }
    }
    (section_docs, fields)
}

/// The field's text without the paragraph that gives an example, and that example.
fn split_example(docs: &[String]) -> (&[String], Option<&str>) {
    let example = docs.last().and_then(|line| line.strip_prefix("Example: `")?.strip_suffix('`'));
    let is_text = |line: &String| !line.is_empty() && !line.starts_with("Example: ");
    let end = docs.iter().rposition(is_text).map_or(0, |last| last + 1);
    (&docs[..end], example)
}

fn render() -> String {
    let config = Config::for_server(server_name!("example.org").to_owned());
    let defaults = toml::Table::try_from(&config).unwrap();
    let mut text = HEAD.to_owned();
    for &(section, source) in SECTIONS {
        let (docs, fields) = parse_section(source);
        text.push('\n');
        comment(&mut text, &docs);
        writeln!(text, "[{section}]").unwrap();
        for field in fields {
            let (docs, example) = split_example(&field.docs);
            text.push('\n');
            comment(&mut text, docs);
            let default = defaults[section].get(&field.name).map(ToString::to_string);
            let value = example.map(str::to_owned).or(default);
            let value = value.unwrap_or_else(|| panic!("{} has no example", field.name));
            let mark = if field.name == "name" { "" } else { "#" };
            writeln!(text, "{mark}{} = {value}", field.name).unwrap();
        }
    }
    text
}

fn comment(text: &mut String, lines: &[String]) {
    for line in lines {
        writeln!(text, "{}", format!("# {line}").trim_end()).unwrap();
    }
}

#[test]
fn the_example_is_what_the_sections_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");
    let expected = render();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "run `UPDATE=1 cargo test --lib config::example`");
}

#[test]
fn the_example_is_a_configuration() {
    let config = super::load::from_text(&render()).unwrap();
    assert_eq!(config.server.name, "example.org");
    assert_eq!(config.database.memory_mb, None);
}

#[test]
fn every_value_of_the_example_is_accepted() {
    let text: String = render()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = super::load::from_text(&text).unwrap();
    assert_eq!(config.database.memory_mb, Some(512));
    assert_eq!(config.server.trusted_proxies.len(), 2);
}

#[test]
fn every_setting_is_in_the_example() {
    let text = render();
    for key in super::load::known_keys() {
        let (_, name) = key.split_once('.').unwrap();
        let is_shown = text.lines().any(|line| {
            line.trim_start_matches('#').split(" =").next().is_some_and(|shown| shown == name)
        });
        assert!(is_shown, "{key} is missing");
    }
}

#[test]
fn a_section_is_parsed() {
    let source = "/// About.\npub struct XConfig {\n    /// One.\n    ///\n    /// Example: `5`\n    \
                  #[serde(default)]\n    pub one: Option<u8>,\n}\n/// No.\npub struct Other {\n";
    let (docs, fields) = parse_section(source);
    assert_eq!(docs, ["About."]);
    assert_eq!(fields.len(), 1);
    let (docs, example) = split_example(&fields[0].docs);
    assert_eq!((docs, example), (&["One.".to_owned()][..], Some("5")));
}
