//! A machine described in a TOML file: the same options as on the command line, by the same names.
//!
//! An option's value is either its command-line text or a table of its keys; options that may be
//! repeated take an array.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::options::{Section, nearest};
use super::{ConfigError, Settings};

/// Every option a file may hold.
const OPTIONS: &[&str] = &[
    "kernel",
    "initrd",
    "cmdline",
    "cpus",
    "memory",
    "disk",
    "net",
    "console",
    "device",
    "serial",
    "control",
    "connect-timeout",
    "grace",
];

impl Settings {
    /// Reads the options in the TOML file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file and what in it is at fault.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table = text.parse::<Table>().map_err(|error| ConfigError::NotToml {
            path: path.to_owned(),
            reason: error.message().to_owned(),
        })?;
        Self::from_table(table)
            .map_err(|error| ConfigError::InFile { path: path.to_owned(), source: Box::new(error) })
    }

    fn from_table(table: Table) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for (key, value) in table {
            match key.as_str() {
                "kernel" => settings.kernel = Some(text("kernel", value)?.into()),
                "initrd" => settings.initrd = Some(text("initrd", value)?.into()),
                "cmdline" => settings.cmdline = Some(text("cmdline", value)?),
                "cpus" => settings.cpus = Some(number("cpus", &value)?),
                "memory" => settings.memory = Some(Section::from_value(value)?),
                "disk" => settings.disk = repeated(value)?,
                "net" => settings.net = repeated(value)?,
                "console" => settings.console = repeated(value)?,
                "device" => settings.device = repeated(value)?,
                "serial" => settings.serial = Some(Section::from_value(value)?),
                "control" => settings.control = Some(text("control", value)?.into()),
                "connect-timeout" => {
                    settings.connect_timeout = Some(number("connect-timeout", &value)?);
                }
                "grace" => settings.grace = Some(number("grace", &value)?),
                _ => {
                    let advice = nearest(&key, OPTIONS);
                    return Err(ConfigError::UnknownOption { key, advice });
                }
            }
        }
        Ok(settings)
    }
}

/// One value, or an array of them.
fn repeated<T: Section>(value: Value) -> Result<Vec<T>, ConfigError> {
    match value {
        Value::Array(values) => values.into_iter().map(T::from_value).collect(),
        value => T::from_value(value).map(|section| vec![section]),
    }
}

fn text(section: &'static str, value: Value) -> Result<String, ConfigError> {
    match value {
        Value::String(text) => Ok(text),
        other => {
            let reason = format!("expected a string, found {}", other.type_str());
            Err(ConfigError::Value { section, reason })
        }
    }
}

fn number<T: TryFrom<i64>>(section: &'static str, value: &Value) -> Result<T, ConfigError> {
    value.as_integer().and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        ConfigError::Value { section, reason: format!("`{value}` is not a number it can take") }
    })
}
