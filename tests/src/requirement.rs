//! What a machine must have for a test, and how a test that cannot run says so.

use std::io::Write as _;

use crate::{artifacts, program};

/// Something that not every machine has.
pub enum Requirement<'a> {
    /// A `/dev/kvm` that can run a stock kernel.
    StockKvm,
    /// A `/dev/kvm` of any kind.
    AnyKvm,
    /// The superuser's rights: for TAPs, other users, mounts.
    Root,
    /// A program that is not ours.
    Program(&'a str),
    /// A file of the guest directory.
    Artifact(&'a str),
}

impl Requirement<'_> {
    /// Why this machine lacks it; `None` when it does not.
    pub fn lacking(&self) -> Option<String> {
        match self {
            Self::StockKvm => no_kvm().or_else(no_stock_kernel),
            Self::AnyKvm => no_kvm(),
            Self::Root => {
                (!nix::unistd::geteuid().is_root()).then(|| "needs the superuser".to_owned())
            }
            Self::Program(name) => {
                program::find(name).is_none().then(|| format!("{name} is not installed"))
            }
            Self::Artifact(name) => {
                artifacts::find(name).is_none().then(|| format!("no guest {name} was made"))
            }
        }
    }
}

fn no_kvm() -> Option<String> {
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    kvm.err().map(|error| format!("cannot open /dev/kvm: {error}"))
}

fn no_stock_kernel() -> Option<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    (!hardware).then(|| "this /dev/kvm cannot run a stock kernel; the lab can".to_owned())
}

/// Prints that the running test is skipped, past the test runner's capture so that it is counted.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Whoever reads the output has gone when this fails, and nobody else is to be told.
    let _gone = writeln!(std::io::stdout(), "skipped: {test}: {reason}");
}

/// Ends the running test as skipped unless the machine has every [`Requirement`] named.
#[macro_export]
macro_rules! require {
    ($($requirement:expr),+ $(,)?) => {
        $(if let Some(reason) = $crate::requirement::Requirement::lacking(&$requirement) {
            $crate::requirement::skip(&reason);
            return;
        })+
    };
}
