//! What each source may say, which one wins, and the sentence for each mistake.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::config::{ListenAddress, LogFormat, Secret, Serves};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("causerie.toml");
    fs::write(&path, text).unwrap();
    load(Some(&path), Vec::new(), &[]).map_err(|error| {
        ConfigError::new(error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    })
}

fn from_overrides(overrides: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut all = pairs(&[("server.name", "example.org")]);
    all.extend(pairs(overrides));
    load(None, Vec::new(), &all)
}

#[test]
fn a_name_is_enough() {
    let config = from_file("[server]\nname = \"example.org\"\n").unwrap();
    assert_eq!(config.server.name, "example.org");
    assert_eq!(config.server.listeners[0].address.to_string(), "127.0.0.1:8008");
    assert_eq!(config.server.listeners[0].serves, Serves::Both);
    assert!(!config.registration.enabled && config.database.durable && config.rate_limits.enabled);
    assert_eq!(config.rooms.default_version.as_str(), "12");
    assert_eq!(config.metrics.listener, None);
}

#[test]
fn the_command_line_overrules_the_environment_and_that_the_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("causerie.toml");
    let text = "[server]\nname = \"file\"\n[logging]\nfilter = \"warn\"\nformat = \"json\"\n";
    fs::write(&path, text).unwrap();
    let environment = pairs(&[
        ("CAUSERIE_SERVER__NAME", "environment"),
        ("CAUSERIE_LOGGING__FILTER", "debug"),
        ("CAUSERIE_ROOMS__DEFAULT_VERSION", "11"),
        ("CAUSERIE_PORT_8008_TCP_ADDR", "10.0.0.1"),
    ]);
    let config = load(Some(&path), environment, &pairs(&[("server.name", "line")])).unwrap();
    assert_eq!(config.server.name, "line");
    assert_eq!(config.logging.filter, "debug");
    assert_eq!(config.logging.format, LogFormat::Json);
    assert_eq!(config.rooms.default_version.as_str(), "11");
}

#[test]
fn values_outside_of_the_file_are_toml_or_plain_text() {
    let config = from_overrides(&[
        ("database.durable", "false"),
        ("database.memory_mb", "64"),
        ("registration.tokens", "[\"abc\", 12345]"),
        ("rate_limits.messages", "{ per_second = 10, burst = 2 }"),
        ("rate_limits.registration.burst", "9"),
        ("server.listeners", "[{ address = \"[::1]:0\", serves = \"client\" }]"),
        ("server.trusted_proxies", "[\"10.0.0.0/8\"]"),
        ("database.path", "/srv/with space"),
    ])
    .unwrap();
    assert!(!config.database.durable);
    assert_eq!(config.database.memory_mb, Some(64));
    assert_eq!(config.registration.tokens, [Secret::new("abc"), Secret::new("12345")]);
    assert!((config.rate_limits.messages.per_second - 10.0).abs() < f64::EPSILON);
    assert_eq!(config.rate_limits.registration.burst, 9);
    assert_eq!(config.server.listeners[0].address, ListenAddress::Tcp("[::1]:0".parse().unwrap()));
    assert!(config.server.trusted_proxies[0].contains("10.1.1.1".parse().unwrap()));
    assert_eq!(config.database.path, Path::new("/srv/with space"));
}

#[test]
fn a_unix_socket_has_a_mode() {
    let listener = "[{ unix_socket = \"/run/c.sock\", unix_socket_mode = \"600\" }]";
    let config = from_overrides(&[("server.listeners", listener)]).unwrap();
    let expected = ListenAddress::Unix { path: "/run/c.sock".into(), mode: 0o600 };
    assert_eq!(config.server.listeners[0].address, expected);
}

fn refused(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let error = from_file(text).expect_err(text);
        assert_eq!(error.to_string(), *expected, "{text}");
    }
}

const SERVER: &str = "[server]\nname = \"example.org\"\n";

#[test]
fn a_key_that_is_unknown_or_missing_has_its_sentence() {
    let cases = [
        (
            String::new(),
            "`server.name` is missing: give the name of the server, as in `name = \"example.org\"`",
        ),
        (
            "[server]\n".to_owned(),
            "`server.name` is missing: give the name of the server, as in `name = \"example.org\"`",
        ),
        (
            format!("{SERVER}trusted_proxy = []\n"),
            "`server.trusted_proxy` (in DIR/causerie.toml) is not a setting; did you mean \
             `server.trusted_proxies`?",
        ),
        (
            format!("{SERVER}[databse]\npath = \"x\"\n"),
            "`databse` (in DIR/causerie.toml) is not a setting; did you mean `database`?",
        ),
        (
            format!("{SERVER}memory_mb = 5\n"),
            "`server.memory_mb` (in DIR/causerie.toml) is not a setting; did you mean \
             `database.memory_mb`?",
        ),
        (
            format!("{SERVER}[rate_limits.messages]\nper_second = 1\nbrust = 5\n"),
            "`rate_limits.messages.brust` (in DIR/causerie.toml) is not a setting; did you mean \
             `rate_limits.messages.burst`?",
        ),
    ];
    refused(&cases);
}

#[test]
fn a_wrong_value_has_its_sentence() {
    let cases = [
        (
            format!("{SERVER}[database]\ndurable = \"maybe\"\n"),
            "`database.durable` (in DIR/causerie.toml) is wrong: it must be `true` or `false`, \
             not such a text",
        ),
        (
            format!("{SERVER}[logging]\nformat = \"xml\"\n"),
            "`logging.format` (in DIR/causerie.toml) is wrong: it must be one of `text`, `json`",
        ),
        (
            format!("{SERVER}[registration]\ntokens = \"hunter2\"\n"),
            "`registration.tokens` (in DIR/causerie.toml) is wrong: it must be a list, not such a \
             text",
        ),
        (
            format!("{SERVER}registration = 5\n[x]"),
            "`server.registration` (in DIR/causerie.toml) is not a setting; did you mean \
             `rate_limits.registration`?",
        ),
        (
            format!("rooms = 5\n{SERVER}"),
            "`rooms` (in DIR/causerie.toml) is wrong: it must be a section of keys and values, \
             not such a number",
        ),
        (
            format!("{SERVER}[logging\n"),
            "DIR/causerie.toml, line 3, is not TOML: unclosed table, expected `]`",
        ),
        (
            format!("{SERVER}listeners = [{{ address = \"8008\" }}]\n"),
            "`server.listeners.0` (in DIR/causerie.toml) is wrong: `8008` is not an IP address \
             and a port, as in `127.0.0.1:8008`",
        ),
        (
            format!("{SERVER}listeners = [{{ adress = \"127.0.0.1:1\" }}]\n"),
            "`server.listeners.0.adress` (in DIR/causerie.toml) is not a setting; did you mean \
             `server.listeners.0.address`?",
        ),
        (
            format!("{SERVER}listeners = [{{ unix_socket = \"/a\", unix_socket_mode = \"999\" }}]"),
            "`server.listeners.0` (in DIR/causerie.toml) is wrong: the `unix_socket_mode` `999` \
             is not a file mode such as `660`",
        ),
    ];
    refused(&cases);
}

#[test]
fn a_wrong_name_or_listener_is_refused() {
    for (key, value) in [
        ("server.name", "not a name"),
        ("server.listeners", "[{ address = \"127.0.0.1:1\", unix_socket = \"/a\" }]"),
        ("server.listeners", "[{}]"),
        ("server.trusted_proxies", "[\"everyone\"]"),
        ("rooms.default_version", "-1"),
    ] {
        let error = from_overrides(&[(key, value)]).expect_err(value).to_string();
        assert!(error.contains("(on the command line) is wrong: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_key_on_the_command_line_needs_its_section() {
    for key in ["name", "server.", ".name", "server..name"] {
        let error = from_overrides(&[(key, "x")]).expect_err(key).to_string();
        assert!(error.ends_with("is not a setting: write `section.key=value`"), "{error}");
    }
}

#[test]
fn a_variable_with_one_underscore_is_pointed_out() {
    let environment = pairs(&[("CAUSERIE_SERVER_NAME", "example.org")]);
    let error = load(None, environment, &[]).expect_err("one underscore").to_string();
    assert!(error.contains("write `CAUSERIE_SERVER__NAME`"), "{error}");
    let environment = pairs(&[("CAUSERIE_SERVER__NMAE", "example.org")]);
    let error = load(None, environment, &[]).expect_err("unknown").to_string();
    assert_eq!(
        error,
        "`server.nmae` (in the environment variable `CAUSERIE_SERVER__NMAE`) is not a setting; \
         did you mean `server.name`?"
    );
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let error = load(Some(Path::new("/nowhere/causerie.toml")), Vec::new(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("The configuration file /nowhere/causerie.toml cannot"));
}

#[test]
fn secrets_are_not_shown() {
    let config = from_overrides(&[("registration.tokens", "[\"hunter2\"]")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!toml::to_string(&config).unwrap().contains("hunter2"));
}
