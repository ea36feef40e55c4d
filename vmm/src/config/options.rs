//! One grammar for every structured option: `first,key=value,key`.
//!
//! The command line's text and a configuration file's table both become the same map of keys, so
//! a section is described once. What the keys mean is the section's business, not this file's.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use super::ConfigError;

/// A structured option, such as `--disk`.
pub trait Section: DeserializeOwned {
    /// Its name, as on the command line.
    const NAME: &'static str;
    /// Every key it takes.
    const KEYS: &'static [&'static str];
    /// The key that a leading word without `=` is the value of; elsewhere such a word is a switch.
    const LEADING: Option<&'static str> = None;
    /// Those of the keys that may be given several times; in a file they may be arrays.
    const REPEATABLE: &'static [&'static str] = &[];

    /// Reads the section from `text`, in the grammar `word,key=value,…`; `,,` is a comma.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key or value at fault.
    fn from_text(text: &str) -> Result<Self, ConfigError> {
        let mut table = Table::new();
        for (position, part) in split(text).into_iter().enumerate() {
            let (key, value) = match (part.split_once('='), Self::LEADING) {
                (Some((key, value)), _) => (key.to_owned(), value.to_owned()),
                (None, Some(leading)) if position == 0 => (leading.to_owned(), part),
                (None, _) => (part, "on".to_owned()),
            };
            if Self::REPEATABLE.contains(&key.as_str()) {
                let values = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                values.as_array_mut().into_iter().for_each(|all| all.push(value.clone().into()));
            } else if table.insert(key.clone(), Value::String(value)).is_some() {
                return Err(ConfigError::Repeated { section: Self::NAME, key });
            }
        }
        Self::from_table(table)
    }

    /// Reads the section from a configuration file's table.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key or value at fault.
    fn from_table(table: Table) -> Result<Self, ConfigError> {
        for key in table.keys() {
            if !Self::KEYS.contains(&key.as_str()) {
                return Err(ConfigError::UnknownKey {
                    section: Self::NAME,
                    key: key.clone(),
                    advice: nearest(key, Self::KEYS),
                });
            }
        }
        Self::deserialize(table).map_err(|error| ConfigError::Value {
            section: Self::NAME,
            reason: error.message().to_owned(),
        })
    }

    /// Reads the section from a configuration file's value: a table, or text as on the command
    /// line.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key or value at fault.
    fn from_value(value: Value) -> Result<Self, ConfigError> {
        match value {
            Value::Table(table) => Self::from_table(table),
            Value::String(text) => Self::from_text(&text),
            Value::Integer(number) => Self::from_text(&number.to_string()),
            other => Err(ConfigError::Value {
                section: Self::NAME,
                reason: format!("expected a table or a string, found {}", other.type_str()),
            }),
        }
    }
}

/// Splits at commas; two together are one that belongs to the value.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// What to write instead of `word`: the nearest of `known` where one is near, else all of them.
pub fn nearest(word: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance);
    match best {
        Some((distance, candidate)) if distance <= 1.max(word.len() / 3) => {
            format!("did you mean `{candidate}`?")
        }
        _ => format!("it takes {}", known.join(", ")),
    }
}

/// A text, or a number or switch read as its text: TOML has types where a command line has none.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(on) => Ok(if on { "on" } else { "off" }.to_owned()),
        other => Err(D::Error::custom(format!("expected a value, found {}", other.type_str()))),
    }
}

/// `on` or `off`.
pub(super) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match text(deserializer)?.as_str() {
        "on" | "true" | "yes" => Ok(true),
        "off" | "false" | "no" => Ok(false),
        other => Err(D::Error::custom(format!("`{other}` is neither `on` nor `off`"))),
    }
}

/// Any value that has a `FromStr` whose error is a sentence.
pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = text(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
}

/// The same for a key that may be absent.
pub(super) fn parsed_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    parsed(deserializer).map(Some)
}

/// One or several values that have a `FromStr` whose error is a sentence.
pub(super) fn parsed_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let texts = match Value::deserialize(deserializer)? {
        Value::Array(texts) => texts,
        one => vec![one],
    };
    texts.into_iter().map(|text| parsed(text).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
#[path = "options_test.rs"]
mod tests;
