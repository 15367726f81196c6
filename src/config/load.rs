//! Gathers the settings from the file, the environment and the command line, and turns what the
//! parser says about them into one sentence.
//!
//! A value from the environment or the command line is read as TOML where it is TOML, and as plain
//! text otherwise: `true`, `12`, `["a"]`, but also `example.org` without quotes.

use std::{env, fmt, fs, path::Path};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    error::{Actual, Kind},
    value::{Dict, Map, Value},
};
use ruma::server_name;
use serde::{
    Deserializer,
    de::{Unexpected, Visitor},
};

use super::{Config, ConfigError, RateLimitsConfig};

const PREFIX: &str = "CAUSERIE_";

/// The variables of the process that are settings, by name and value.
pub(super) fn environment() -> Vec<(String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Reads and checks the settings; a later source overrules an earlier one.
pub(super) fn load(
    path: Option<&Path>,
    environment: Vec<(String, String)>,
    overrides: &[(String, String)],
) -> Result<Config, ConfigError> {
    let mut figment = Figment::from(default_rate_limits());
    if let Some(path) = path {
        figment = figment.merge(file(path)?);
    }
    for (name, value) in environment {
        if let Some(key) = key_of_variable(&name)? {
            let origin = format!("in the environment variable `{name}`");
            figment = figment.merge(Layer::single(origin, &key, &value));
        }
    }
    for (key, value) in overrides {
        if key.split('.').any(str::is_empty) || !key.contains('.') {
            return Err(ConfigError::new(format!(
                "`{key}` on the command line is not a setting: write `section.key=value`"
            )));
        }
        figment = figment.merge(Layer::single("on the command line".to_owned(), key, value));
    }
    let config: Config = figment.extract().map_err(|error| sentence(&error, &figment))?;
    config.validate()?;
    Ok(config)
}

/// So that of a limit the burst alone can be set.
fn default_rate_limits() -> Layer {
    let limits = Value::serialize(RateLimitsConfig::default()).ok();
    let settings = limits.map(|limits| ("rate_limits".to_owned(), limits));
    Layer { origin: "by default".to_owned(), settings: settings.into_iter().collect() }
}

fn file(path: &Path) -> Result<Layer, ConfigError> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        ConfigError::new(format!("The configuration file {shown} cannot be read: {error}"))
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
        // The parser's message may go over several lines; a sentence does not.
        let message = error.message().replace('\n', ", ");
        ConfigError::new(format!("{shown}, line {line}, is not TOML: {message}"))
    })?;
    Ok(Layer { origin: format!("in {shown}"), settings: as_dict(table) })
}

/// The key that a variable sets, or `None` for a variable that means something else.
///
/// Container platforms invent variables such as `CAUSERIE_PORT_8008_TCP`, so one without `__` is
/// no error, unless it is plainly meant as a setting.
fn key_of_variable(name: &str) -> Result<Option<String>, ConfigError> {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    if rest.contains("__") {
        return Ok(Some(rest.replace("__", ".")));
    }
    match known_keys().into_iter().find(|key| key.replace('.', "_") == rest) {
        Some(key) => Err(ConfigError::new(format!(
            "The environment variable `{name}` is not read: for `{key}` write \
             `{PREFIX}{}`, with two underscores after the section",
            key.replace('.', "__").to_uppercase()
        ))),
        None => Ok(None),
    }
}

/// Settings from one place.
struct Layer {
    origin: String,
    settings: Dict,
}

impl Layer {
    fn single(origin: String, key: &str, value: &str) -> Self {
        let value = figment::util::nest(key, parse_value(value));
        Self { origin, settings: value.into_dict().unwrap_or_default() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}

fn as_dict(table: toml::Table) -> Dict {
    Value::serialize(table).ok().and_then(Value::into_dict).unwrap_or_default()
}

fn parse_value(text: &str) -> Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    parsed
        .filter(|table| table.len() == 1)
        .and_then(|table| as_dict(table).remove("value"))
        .unwrap_or_else(|| Value::from(text))
}

/// Settings from the text of a file alone.
#[cfg(test)]
pub(super) fn from_text(text: &str) -> Result<Config, ConfigError> {
    let table = toml::from_str(text).map_err(|error| ConfigError::new(error.to_string()))?;
    let figment = Figment::from(Layer { origin: "in a text".to_owned(), settings: as_dict(table) });
    let config: Config = figment.extract().map_err(|error| sentence(&error, &figment))?;
    config.validate()?;
    Ok(config)
}

/// Every `section.key`, from the defaults.
pub(super) fn known_keys() -> Vec<String> {
    let defaults = Config::for_server(server_name!("localhost").to_owned());
    let sections = Value::serialize(defaults).ok().and_then(Value::into_dict).unwrap_or_default();
    let keys_of = |(section, keys): (String, Value)| {
        let keys = keys.into_dict().unwrap_or_default().into_keys();
        keys.map(move |key| format!("{section}.{key}"))
    };
    sections.into_iter().flat_map(keys_of).collect()
}

fn sentence(error: &Error, figment: &Figment) -> ConfigError {
    let mut path = error.path.clone();
    if let Kind::UnknownField(field, known) = &error.kind {
        if path.last() != Some(field) {
            path.push(field.clone());
        }
        return unknown_key(&path, known, figment);
    }
    if let Kind::MissingField(field) = &error.kind {
        path.push(field.to_string());
        let key = path.join(".");
        return ConfigError::new(if key == "server" || key == "server.name" {
            "`server.name` is missing: give the name of the server, as in `name = \"example.org\"`"
                .to_owned()
        } else {
            format!("`{key}` is missing{}", origin_of(error, &path, figment))
        });
    }
    let problem = match &error.kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("it must be {}, not {}", plain_type(expected), plain_actual(actual))
        }
        Kind::UnknownVariant(_, known) => format!("it must be one of {}", listed(known)),
        Kind::Message(message) => message.clone(),
        other => other.to_string(),
    };
    let origin = origin_of(error, &path, figment);
    ConfigError::new(format!("`{}`{origin} is wrong: {problem}", path.join(".")))
}

fn unknown_key(path: &[String], known: &[&str], figment: &Figment) -> ConfigError {
    let (field, parents) = path.split_last().map_or(("", path), |(last, rest)| (last, rest));
    let key = path.join(".");
    let keys = known_keys();
    let elsewhere =
        keys.iter().find(|candidate| candidate.split_once('.').is_some_and(|(_, k)| k == field));
    let sibling = known
        .iter()
        .min_by_key(|candidate| strsim::damerau_levenshtein(candidate, field))
        .map(|candidate| [parents, &[(*candidate).to_owned()]].concat().join("."));
    // The exact key of another section is nearer than a similar one of this section.
    let nearest = elsewhere.cloned().or(sibling).unwrap_or_default();
    let origin = origin_at(path, figment);
    ConfigError::new(format!("`{key}`{origin} is not a setting; did you mean `{nearest}`?"))
}

fn origin_of(error: &Error, path: &[String], figment: &Figment) -> String {
    match &error.metadata {
        Some(metadata) => format!(" ({})", metadata.name),
        None => origin_at(path, figment),
    }
}

fn origin_at(path: &[String], figment: &Figment) -> String {
    (1..=path.len())
        .rev()
        .find_map(|length| figment.find_metadata(&path[..length].join(".")))
        .map(|metadata| format!(" ({})", metadata.name))
        .unwrap_or_default()
}

fn plain_type(expected: &str) -> String {
    match expected {
        "a boolean" => "`true` or `false`".to_owned(),
        "u32" | "u64" | "usize" => "a whole number of 0 or more".to_owned(),
        "f64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "path string" => "a path".to_owned(),
        _ if expected.starts_with("struct ") => "a section of keys and values".to_owned(),
        _ => expected.to_owned(),
    }
}

/// Names the type and not the value, which may be a secret in the wrong place.
fn plain_actual(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "`true` or `false`",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "such a number",
        Actual::Str(_) | Actual::Char(_) => "such a text",
        Actual::Seq => "a list",
        Actual::Map => "a section",
        _ => "this",
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Reads a text that may have been written without quotes and look like a number, as in
/// `CAUSERIE_ROOMS__DEFAULT_VERSION=12`.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct TextVisitor;

    impl Visitor<'_> for TextVisitor {
        type Value = String;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a text")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
            if number < 0 {
                return Err(E::invalid_type(Unexpected::Signed(number), &self));
            }
            Ok(number.to_string())
        }
    }

    deserializer.deserialize_any(TextVisitor)
}

#[cfg(test)]
mod tests;
