//! Attempts at what the sandbox forbids, which a test lets a process in service make. Only debug
//! builds with the feature `kill-points` have them; in all others they are nothing.
//!
//! `ATOLL_TRESPASS=execve` makes the attempt once everything is set up, on a thread of its own, and
//! says on standard error how it failed, or that it did not. `ATOLL_TRESPASS_UNFILTERED=1` leaves
//! out the filter of system calls, so that what else there is shows.

/// Whether there is to be no filter.
#[cfg(all(feature = "kill-points", debug_assertions))]
pub(super) fn is_unfiltered() -> bool {
    std::env::var_os("ATOLL_TRESPASS_UNFILTERED").is_some()
}

/// Never.
#[cfg(not(all(feature = "kill-points", debug_assertions)))]
pub(super) const fn is_unfiltered() -> bool {
    false
}

#[cfg(all(feature = "kill-points", debug_assertions))]
pub(crate) fn attempt() {
    use std::fs::{self, File};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::{env, io, thread};

    let Ok(what) = env::var("ATOLL_TRESPASS") else { return };
    let attempt = move || {
        let path = env::var_os("ATOLL_TRESPASS_PATH").unwrap_or_default();
        let outcome = match what.as_str() {
            "read" => File::open(&path).map(drop),
            "write" => File::create(&path).map(drop),
            "unlink" => fs::remove_file(&path),
            "execve" => nix::unistd::execv(c"/bin/true", &[c"true"])
                .map(|never| match never {})
                .map_err(io::Error::from),
            "spawn" => Command::new(&path).spawn().map(drop),
            "socket" => UnixStream::connect(&path).map(drop),
            "tcp" => std::net::TcpStream::connect("127.0.0.1:1").map(drop),
            "ptrace" => nix::sys::ptrace::traceme().map_err(io::Error::from),
            "code" => executable_memory(),
            "name" => super::own_name::overwrite(),
            "rename" => {
                super::own_name::change();
                Ok(())
            }
            "unlinkat" => nix::unistd::unlinkat(
                nix::fcntl::AT_FDCWD,
                std::path::Path::new(&path),
                nix::unistd::UnlinkatFlags::NoRemoveDir,
            )
            .map_err(io::Error::from),
            "kill" => {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None).map_err(io::Error::from)
            }
            "unshare" => {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).map_err(io::Error::from)
            }
            "ioctl" => attach_tap(),
            "prctl" => nix::sys::prctl::set_dumpable(true).map_err(io::Error::from),
            "fcntl" => nix::fcntl::fcntl(io::stdin(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096))
                .map(drop)
                .map_err(io::Error::from),
            "setsockopt" => nix::sys::socket::setsockopt(
                &io::stdin(),
                nix::sys::socket::sockopt::KeepAlive,
                &true,
            )
            .map_err(io::Error::from),
            "sendto" => nix::sys::socket::UnixAddr::new("/run/some.sock")
                .and_then(|address| {
                    nix::sys::socket::sendto(0, b"", &address, nix::sys::socket::MsgFlags::empty())
                })
                .map(drop)
                .map_err(io::Error::from),
            "sigaction" => forget_violations(),
            "scheduler" => take_all_time(),
            _ => Err(io::Error::other("unknown")),
        };
        eprintln!("trespass: {outcome:?}");
    };
    // It ends with the process, or before.
    let _ended = thread::Builder::new().spawn(attempt).map(thread::JoinHandle::join);
}

#[cfg(all(feature = "kill-points", debug_assertions))]
fn executable_memory() -> std::io::Result<()> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    let length = std::num::NonZeroUsize::MIN;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
    // SAFETY: nothing is replaced.
    unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }?;
    Ok(())
}

#[cfg(all(feature = "kill-points", debug_assertions))]
fn attach_tap() -> std::io::Result<()> {
    // SAFETY: standard input is no TAP, and the kernel checks the address.
    let failed = unsafe { libc::ioctl(0, libc::TUNSETIFF, std::ptr::null::<libc::ifreq>()) };
    nix::errno::Errno::result(failed).map(drop).map_err(Into::into)
}

#[cfg(all(feature = "kill-points", debug_assertions))]
fn forget_violations() -> std::io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: there is no handler to be wrong.
    unsafe { sigaction(Signal::SIGSYS, &ignored) }?;
    Ok(())
}

#[cfg(all(feature = "kill-points", debug_assertions))]
fn take_all_time() -> std::io::Result<()> {
    let (this_thread, priority) = (0, 1_i32);
    // SAFETY: the kernel reads one `int`, its `struct sched_param`, which outlives the call.
    let set = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            this_thread,
            libc::SCHED_FIFO,
            &raw const priority,
        )
    };
    nix::errno::Errno::result(set).map(drop).map_err(Into::into)
}

/// Nothing.
#[cfg(not(all(feature = "kill-points", debug_assertions)))]
pub(crate) const fn attempt() {}
