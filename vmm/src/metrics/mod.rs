//! Metrics as Prometheus reads them: what the VMM counts itself, and what device processes say,
//! joined to one text. What is counted, and how it is asked for, is not known here.
//!
//! A process is believed nothing: what it says is taken apart, gets the label of its device whatever
//! it says there itself, and is left out whole if any of it is not as it should be.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

mod sample;

use std::collections::{BTreeMap, HashSet};
use std::fmt::{Display, Write};

use sample::{Sample, is_name};

/// The most samples that one process may give.
const MAX_SAMPLES: usize = 20_000;

/// A process says what can't be joined with what the others say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// A line is none of Prometheus' text format.
    #[error("line {line} is not in Prometheus' text format")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// A metric has another type than elsewhere, or is the VMM's own.
    #[error("line {line} is about {name}, which is somebody else's or of another type")]
    Taken {
        /// The line's number, from 1.
        line: usize,
        /// The metric.
        name: String,
    },
    /// The same twice.
    #[error("line {line} says what was said before")]
    Twice {
        /// Its number, from 1.
        line: usize,
    },
    /// Too much.
    #[error("there are more than {MAX_SAMPLES} samples")]
    TooMany,
}

/// All samples of one metric.
#[derive(Clone, Debug)]
struct Family {
    kind: String,
    help: String,
    /// Whether the VMM counts it.
    own: bool,
    samples: Vec<Sample>,
}

/// Metrics of all kinds.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
}

impl Exposition {
    /// Adds a sample of the VMM's own, of the metric `name` that is a `kind`.
    pub fn add(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind: kind.to_owned(),
            help: help.to_owned(),
            own: true,
            samples: Vec::new(),
        });
        family.samples.push(Sample::new(name, labels, &value.to_string()));
    }

    /// Adds what the process of `device` says.
    ///
    /// # Errors
    /// [`BadText`]; nothing of it was added.
    pub fn absorb(&mut self, device: &str, text: &str) -> Result<(), BadText> {
        let said = parse(device, text)?;
        for (name, (line, family)) in &said {
            if let Some(here) = self.families.get(name)
                && (here.own || here.kind != family.kind)
            {
                return Err(BadText::Taken { line: *line, name: name.clone() });
            }
        }
        for (name, (_, family)) in said {
            match self.families.get_mut(&name) {
                Some(here) => here.samples.extend(family.samples),
                None => drop(self.families.insert(name, family)),
            }
        }
        Ok(())
    }

    /// All of it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            // Writing to a string can't fail.
            let _always =
                writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            for sample in &family.samples {
                let _always = writeln!(text, "{sample}");
            }
        }
        text
    }
}

/// The metrics in `text`, each with the number of the line where it begins.
fn parse(device: &str, text: &str) -> Result<BTreeMap<String, (usize, Family)>, BadText> {
    let mut families = BTreeMap::<String, (usize, Family)>::new();
    let (mut seen, mut help, mut current) = (HashSet::new(), ("", ""), String::new());
    for (line, content) in (1_usize..).zip(text.lines()) {
        let bad = || BadText::Line { line };
        if let Some(said) = content.strip_prefix("# HELP ") {
            help = said.split_once(' ').ok_or_else(bad)?;
        } else if let Some(said) = content.strip_prefix("# TYPE ") {
            let (name, kind) = said.split_once(' ').ok_or_else(bad)?;
            let known = ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind);
            if !known || !is_name(name) || families.contains_key(name) {
                return Err(bad());
            }
            let help = if help.0 == name { help.1 } else { "" };
            // The escapes that Prometheus knows stay; what a terminal would act on does not.
            let help = help.chars().filter(|c| !c.is_control()).collect();
            let family = Family { kind: kind.to_owned(), help, own: false, samples: Vec::new() };
            families.insert(name.to_owned(), (line, family));
            current = name.to_owned();
        } else if !content.is_empty() && !content.starts_with('#') {
            let sample = Sample::parse(content).ok_or_else(bad)?.of_device(device);
            let (_, family) = families.get_mut(&current).ok_or_else(bad)?;
            if !sample.belongs_to(&current, &family.kind) {
                return Err(bad());
            }
            if !seen.insert(sample.series()) {
                return Err(BadText::Twice { line });
            }
            if seen.len() > MAX_SAMPLES {
                return Err(BadText::TooMany);
            }
            family.samples.push(sample);
        }
    }
    Ok(families)
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
