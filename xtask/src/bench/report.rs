//! What fio reports of its one job. Starts no fio.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A job's figures.
pub(crate) struct Report(Value);

impl Report {
    /// Reads what fio printed with `--output-format=json`, warnings before it left out.
    pub(crate) fn of(printed: &str) -> Result<Self> {
        let start = printed.find('{').context("fio printed no report")?;
        let mut report: Value = serde_json::from_str(printed.get(start..).unwrap_or_default())
            .context("fio's report cannot be read")?;
        let job = report.pointer_mut("/jobs/0").context("fio reports no job")?.take();
        let error = job.get("error").and_then(Value::as_i64);
        ensure!(error == Some(0), "fio had errors: {error:?}");
        Ok(Self(job))
    }

    /// The number at a pointer such as `/read/iops`.
    pub(crate) fn number(&self, pointer: &str) -> Result<f64> {
        let number = self.0.pointer(pointer).and_then(Value::as_f64);
        number.with_context(|| format!("fio reports no {pointer}"))
    }
}
