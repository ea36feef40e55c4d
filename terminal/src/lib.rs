//! A user's terminal while it is connected to a guest: raw, with a size, and with keys by which to get
//! away again. Where the bytes go is not known here.

mod anew;
mod escape;
mod raw;
mod size;

pub use anew::opened_anew;
pub use escape::{Escape, HINT};
pub use raw::RawTerminal;
pub use size::Size;
