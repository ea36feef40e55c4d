//! How an error and its causes become one sentence.

use std::error::Error;
use std::fmt;

/// Shows an error followed by its causes, as `what: why: why`.
pub(crate) struct Because<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
