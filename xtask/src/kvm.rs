//! Where guests run: on this machine when its /dev/kvm can run a stock kernel and we may make TAP
//! devices, in the lab otherwise. Decides by looking first, and by booting one when that is
//! needed to know.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Many times what a boot of the small guest takes on any hardware, and nothing like what it
/// takes where each instruction is emulated.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where guests run.
pub(crate) enum Place {
    /// On this machine.
    Here,
    /// In the lab, and why.
    Lab(String),
}

/// Decides, and says so in one line.
pub(crate) fn place(programs: &[PathBuf], guest: &Path) -> Result<Place> {
    let place = match lacking(programs, guest)? {
        None => Place::Here,
        Some(reason) => Place::Lab(reason),
    };
    match &place {
        Place::Here => eprintln!("/dev/kvm runs a stock kernel: guests run on this machine"),
        Place::Lab(reason) => eprintln!("guests run in the lab, not on this machine: {reason}"),
    }
    Ok(place)
}

/// Why guests can't run on this machine, if they can't.
fn lacking(programs: &[PathBuf], guest: &Path) -> Result<Option<String>> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        return Ok(Some(format!("/dev/kvm can't be opened: {error}")));
    }
    if Path::new("/sys/module/kvm_pvm").exists() {
        return Ok(Some(
            "its /dev/kvm is pagetable-based (PVM), no stock kernel runs on it".into(),
        ));
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    if !has_virtualization(&cpu) {
        return Ok(Some("its CPU shows neither vmx nor svm".into()));
    }
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("only root may make the TAP devices that guests need".into()));
    }
    let atoll = programs.iter().find(|path| path.ends_with("atoll"));
    match atoll {
        Some(atoll) => boots(atoll, guest),
        None => Ok(Some("there is no atoll to try its /dev/kvm with".into())),
    }
}

fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

/// Boots the small guest, which powers off at once.
fn boots(atoll: &Path, guest: &Path) -> Result<Option<String>> {
    let mut child = Command::new(atoll)
        .args(["run", "--memory", "256M", "--serial", "off"])
        .args(["--cmdline", "quiet panic=-1 run=true"])
        .arg("--kernel")
        .arg(guest.join("vmlinux"))
        .arg("--initrd")
        .arg(guest.join("initramfs.cpio.gz"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", atoll.display()))?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            let failed = (!status.success())
                .then(|| format!("a stock kernel did not boot on its /dev/kvm ({status})"));
            return Ok(failed);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(Some(format!("a stock kernel did not boot on its /dev/kvm in {PATIENCE:?}")))
}

#[cfg(test)]
#[path = "kvm_test.rs"]
mod tests;
