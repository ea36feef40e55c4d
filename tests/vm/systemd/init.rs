//! A machine inside this one whose pid 1 is systemd, with Atoll installed as its package would:
//! made, asked, ended. Knows no guest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_tests::process::Process;
use atoll_tests::scratch::Scratch;
use atoll_tests::{artifacts, procfs, program, wait_for};

/// What sets it up.
const SCRIPT: &str = include_str!("machine");

/// What the package installs for systemd.
macro_rules! installed {
    ($($place:literal $folder:literal / $name:literal),+ $(,)?) => {
        &[$((concat!($place, "/", $name),
             include_str!(concat!("../../../dist/", $folder, "/", $name)))),+]
    };
}
const FILES: &[(&str, &str)] = installed! {
    "usr/lib/systemd/system" "systemd" / "atoll@.service",
    "usr/lib/systemd/system" "systemd" / "atoll-blk@.service",
    "usr/lib/systemd/system" "systemd" / "atoll-blk@.socket",
    "usr/lib/systemd/system" "systemd" / "atoll-console@.service",
    "usr/lib/systemd/system" "systemd" / "atoll-console@.socket",
    "usr/lib/systemd/system" "systemd" / "atoll-net@.service",
    "usr/lib/systemd/system" "systemd" / "atoll-net@.socket",
    "usr/lib/sysusers.d" "sysusers.d" / "atoll.conf",
};

/// Why this machine can't have one inside; `None` when it can.
pub(super) fn lacking() -> Option<String> {
    let systemd = Path::new("/lib/systemd/systemd").exists();
    let cgroups = Path::new("/sys/fs/cgroup/cgroup.procs").exists();
    match (systemd, cgroups) {
        (false, _) => Some("systemd is not installed".to_owned()),
        (_, false) => Some("there is no unified cgroup hierarchy".to_owned()),
        _ => None,
    }
}

/// The machine, which lives as long as its process.
pub(super) struct Machine {
    /// The process id of its pid 1.
    pid: u32,
    scratch: Scratch,
}

impl Machine {
    /// Boots it with `configuration` in `/etc/atoll`: paths and contents.
    #[track_caller]
    pub(super) fn boot(configuration: &[(&str, String)], image: &Path) -> (Self, Process) {
        let scratch = Scratch::new();
        for (path, text) in configuration {
            write(&scratch.join("etc").join(path), text);
        }
        for (path, text) in FILES {
            write(&scratch.join("files").join(path), text);
        }
        for name in ["atoll", "atoll-blk", "atoll-net", "atoll-console"] {
            let place = scratch.join("files/usr/bin").join(name);
            fs::create_dir_all(place.parent().expect("it has a folder")).expect("make a folder");
            fs::copy(program::ours(name), &place).expect("install a program");
        }
        let state = scratch.join("state");
        fs::create_dir(&state).expect("make a folder");
        fs::copy(image, state.join("disk.img")).expect("put the disk in place");
        // tempfile's folders are their owner's alone, and its services are somebody else.
        for folder in [scratch.path(), &state, &scratch.join("files")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("open a folder");
        }

        let script = scratch.write("machine", SCRIPT);
        let kernel = artifacts::get("vmlinux");
        let mut command = Command::new("sh");
        command.arg(script).arg(scratch.path()).arg(kernel.parent().expect("it is in a folder"));
        let mut process = Process::spawn(command);
        let pid = wait_for("systemd's start", || {
            assert!(process.is_running(), "the machine ended: {}", process.stderr());
            let children = procfs::children(process.pid());
            children.into_iter().find_map(|(pid, name)| (name == "systemd").then_some(pid))
        });
        let machine = Self { pid, scratch };
        wait_for("systemd's basic target", || {
            let (active, _) = machine.run("systemctl is-active basic.target");
            active.then_some(())
        });
        // systemd has made it anew as the kernel has it, and udev, which opens it to all, is not here.
        machine.check("chmod 0666 /dev/net/tun");
        (machine, process)
    }

    /// A path of the machine, as seen from here.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// The disk's image.
    pub(super) fn disk(&self) -> PathBuf {
        self.scratch.join("state/disk.img")
    }

    /// Runs a shell's command inside: whether it succeeded, and what it printed.
    #[track_caller]
    pub(super) fn run(&self, command: &str) -> (bool, String) {
        let output = Command::new("nsenter")
            .args(["--target", &self.pid.to_string(), "--all", "sh", "-c", command])
            .output()
            .expect("run nsenter");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said.trim_end().to_owned())
    }

    /// Runs a command that shall succeed.
    #[track_caller]
    pub(super) fn check(&self, command: &str) -> String {
        let (succeeded, said) = self.run(command);
        assert!(succeeded, "`{command}` failed: {said}");
        said
    }

    /// A property of a unit.
    #[track_caller]
    pub(super) fn property(&self, unit: &str, name: &str) -> String {
        self.check(&format!("systemctl show --value --property {name} {unit}"))
    }

    /// Everything that a failure may come from.
    pub(super) fn journal(&self) -> String {
        self.run("journalctl --no-pager --lines 80; systemctl --no-pager --all list-units 'atoll*'")
            .1
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("make a folder");
    fs::write(path, text).expect("write a file");
}
