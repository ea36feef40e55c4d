//! One sample: a name, labels, a value. Which metric it belongs to is for others to know.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::collections::BTreeMap;
use std::fmt;

/// A sample. Its labels are in order, so that one series has one way to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    name: String,
    /// With the values escaped.
    labels: BTreeMap<String, String>,
    value: String,
}

/// Whether Prometheus takes `name` as a metric's.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

impl Sample {
    pub(super) fn new(name: &str, labels: &[(&str, &str)], value: &str) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), escaped(value)));
        Self { name: name.to_owned(), labels: labels.collect(), value: value.to_owned() }
    }

    /// Reads a line; `None` when it is no sample.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at_checked(end)?;
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => labels(inside)?,
            None => (BTreeMap::new(), rest),
        };
        let value = rest.strip_prefix(' ')?;
        // It may be followed by a time, which none of ours are.
        let number = matches!(value, "+Inf" | "-Inf" | "NaN") || value.parse::<f64>().is_ok();
        (is_name(name) && number).then(|| Self {
            name: name.to_owned(),
            labels,
            value: value.to_owned(),
        })
    }

    /// The same as of `device`.
    pub(super) fn of_device(mut self, device: &str) -> Self {
        self.labels.insert("device".to_owned(), escaped(device));
        self
    }

    /// Whether it can be one of the metric `name` that is a `kind`.
    pub(super) fn belongs_to(&self, name: &str, kind: &str) -> bool {
        match self.name.strip_prefix(name) {
            Some("") => kind != "histogram",
            Some("_bucket") => kind == "histogram" && self.labels.contains_key("le"),
            Some("_sum" | "_count") => matches!(kind, "histogram" | "summary"),
            _ => false,
        }
    }

    /// All but the value.
    pub(super) fn series(&self) -> String {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}=\"{value}\""));
        match labels.collect::<Vec<_>>().join(",") {
            none if none.is_empty() => self.name.clone(),
            labels => format!("{}{{{labels}}}", self.name),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.series(), self.value)
    }
}

/// Labels up to the closing brace, and what is behind it.
fn labels(inside: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), inside);
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (key, behind) = rest.split_once("=\"")?;
        let end = closing_quote(behind)?;
        let (value, behind) = behind.split_at_checked(end)?;
        let named = is_name(key) && !key.contains(':') && !value.contains(char::is_control);
        if !named || labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return None;
        }
        let behind = behind.strip_prefix('"')?;
        rest = match behind.strip_prefix(',') {
            Some(more) => more,
            None if behind.starts_with('}') => behind,
            None => return None,
        };
    }
}

/// Where the first quote is that is not escaped.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped && !matches!(c, '\\' | '"' | 'n') => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
