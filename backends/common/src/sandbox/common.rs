//! The system calls that every device process makes once it is set up, found by tracing the wire
//! tests, and why. All that depends on the processor's architecture is at the end.
//!
//! Whoever is missing from these lists was left out with intent: what opens, makes or renames
//! files, starts programs, makes sockets, looks into other processes, changes identity, or is known
//! for its flaws and not needed (`userfaultfd`, `bpf`, `keyctl`, `perf_event_open`).

use libc::{PROT_EXEC, SIGABRT, SIGBUS, SIGSEGV};
use syscalls::Sysno;

use super::own_name::Sealed;
use super::system_call::SystemCall;

/// What is allowed.
pub(super) fn calls() -> Vec<SystemCall> {
    let any = ANY.iter().copied().chain(arch::ANY.iter().copied()).map(SystemCall::any);
    let fcntl = FCNTL.iter().map(|&command| SystemCall::any(Sysno::fcntl).with(1, command));
    let threads = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND;
    let threads = threads | libc::CLONE_THREAD | libc::CLONE_SYSVSEM;
    let pid = std::process::id();
    let actions =
        ACTIONS.iter().map(|&signal| SystemCall::any(Sysno::rt_sigaction).with(0, signal));
    let timeouts = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO];
    let timeouts = timeouts
        .iter()
        .map(|&name| SystemCall::any(Sysno::setsockopt).with(1, libc::SOL_SOCKET).with(2, name));
    any.chain(fcntl)
        .chain(actions)
        .chain(timeouts)
        .chain([
            // Threads; neither processes nor namespaces.
            SystemCall::any(Sysno::clone).with_bits(0, threads | NO_THREADS, threads),
            // Their names, and those of the allocator's mappings where it is told to name them.
            SystemCall::any(Sysno::prctl).with(0, libc::PR_SET_NAME),
            SystemCall::any(Sysno::prctl).with(0, PR_SET_VMA),
            // To abort, and so that a test can kill us at a certain point: ourselves only.
            SystemCall::any(Sysno::tgkill).with(0, pid),
            // Where the session is not told otherwise a descriptor is made not to block.
            SystemCall::any(Sysno::ioctl).with(1, libc::FIONBIO),
            // To who is at the other end, and to nobody else by name.
            SystemCall::any(Sysno::sendto).at(4, 0),
            // Metadata of an open file: of nothing that has to be looked up by a name, as far as
            // flags can tell.
            SystemCall::any(Sysno::newfstatat).with(3, libc::AT_EMPTY_PATH),
            SystemCall::any(Sysno::statx).with_bits(2, libc::AT_EMPTY_PATH, libc::AT_EMPTY_PATH),
            // Our own limits, to look at.
            SystemCall::any(Sysno::prlimit64).with(0, 0).at(2, 0),
        ])
        .collect()
}

/// What changes mappings, without touching the page of our own names; and how these are removed.
pub(super) fn on_names(own: &Sealed) -> Vec<SystemCall> {
    // Without names there is no page to spare, and nothing at address zero.
    let page = own.last.unwrap_or_default() as u64;
    let no_code = |call: SystemCall| call.with_bits(2, PROT_EXEC, 0);
    let fixed = libc::MAP_FIXED;
    let mut calls = vec![
        // Guest memory, stacks, the allocator: nothing that could be executed. The kernel chooses
        // a place where nothing is, or replaces what `lost_memory` names.
        no_code(SystemCall::any(Sysno::mmap)).with_bits(3, fixed, 0),
        no_code(SystemCall::any(Sysno::mmap)).above(0, page),
        no_code(SystemCall::any(Sysno::mprotect)).above(0, page),
        SystemCall::any(Sysno::munmap).above(0, page),
        SystemCall::any(Sysno::madvise).above(0, page),
        SystemCall::any(Sysno::mremap).above(0, page).with_bits(3, libc::MREMAP_FIXED, 0),
    ];
    for name in &own.names {
        let (folder, address) = name.arguments();
        let at = |number| SystemCall::any(number).with(0, folder).at(1, address);
        calls.push(at(Sysno::unlinkat).with(2, 0));
        calls.push(at(Sysno::newfstatat).with(3, libc::AT_SYMLINK_NOFOLLOW));
    }
    calls
}

/// What libraries try, and can do without: it fails with EACCES and nobody dies of it. glibc's
/// allocator reads `/proc/sys/vm/overcommit_memory` before it gives memory back; a panic, which
/// should be reported, looks for the source of its backtrace; the search for who holds an image's
/// lock reads `/proc`.
pub(super) fn refused() -> Vec<SystemCall> {
    let writes =
        libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    let reads = SystemCall::any(Sysno::openat).with_bits(2, writes, libc::O_RDONLY);
    let looks = [Sysno::readlinkat, Sysno::faccessat, Sysno::faccessat2, Sysno::getcwd];
    let looks = looks.iter().chain(arch::REFUSED).copied().map(SystemCall::any);
    looks.chain([reads]).collect()
}

/// What fails as on an older kernel, upon which libraries do it in the older way: the arguments of
/// `clone3` are in memory, where no filter can check that a thread is meant.
pub(super) fn unknown() -> Vec<SystemCall> {
    vec![SystemCall::any(Sysno::clone3)]
}

/// Of the flags of `clone`, those that make something other than a thread of this process.
const NO_THREADS: i32 = libc::CLONE_VFORK
    | libc::CLONE_PARENT
    | libc::CLONE_PTRACE
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// include/uapi/linux/prctl.h
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Signals whose handlers may change: `lost_memory` and the standard library's own give up what is
/// not theirs, so that the process dies of it; aborting; and glibc's for its first thread ("change
/// your identity too", "be cancelled"). Not SIGSYS, whose handler is the sandbox's.
const ACTIONS: [i32; 5] = [SIGBUS, SIGSEGV, SIGABRT, 32, 33];

/// Descriptors that front-ends hand over are made not to block; images are locked; the record of
/// what is in flight is sealed.
const FCNTL: [i32; 9] = [
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_OFD_SETLK,
    libc::F_OFD_GETLK,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// With any arguments: they work on what the process has, or on itself.
const ANY: [Sysno; 64] = [
    // Open files: events, rings' files and devices, log lines.
    Sysno::read,
    Sysno::write,
    Sysno::readv,
    Sysno::writev,
    Sysno::pread64,
    Sysno::pwrite64,
    Sysno::preadv,
    Sysno::pwritev,
    Sysno::preadv2,
    Sysno::pwritev2,
    Sysno::lseek,
    Sysno::close,
    Sysno::dup,
    Sysno::fstat,
    Sysno::fsync,
    Sysno::fdatasync,
    // The in-flight region is made when a front-end asks for one: a file in memory, given a size.
    Sysno::memfd_create,
    Sysno::ftruncate,
    // Sockets that there are: the session, the back channel, the next front-end.
    Sysno::accept4,
    Sysno::recvmsg,
    Sysno::sendmsg,
    Sysno::recvfrom,
    Sysno::shutdown,
    Sysno::getsockopt,
    Sysno::getsockname,
    Sysno::getpeername,
    // Waiting.
    Sysno::ppoll,
    Sysno::epoll_create1,
    Sysno::epoll_ctl,
    Sysno::epoll_pwait,
    Sysno::eventfd2,
    Sysno::timerfd_create,
    Sysno::timerfd_settime,
    Sysno::futex,
    Sysno::nanosleep,
    Sysno::clock_nanosleep,
    Sysno::restart_syscall,
    Sysno::sched_yield,
    // The time, where the kernel gives none without a call.
    Sysno::clock_gettime,
    Sysno::clock_getres,
    Sysno::gettimeofday,
    // Memory: the C library's heap. Other allocators are content with mmap.
    Sysno::brk,
    Sysno::membarrier,
    // What threads do when they start and end.
    Sysno::set_robust_list,
    Sysno::rseq,
    Sysno::sigaltstack,
    Sysno::sched_getaffinity,
    Sysno::set_tid_address,
    Sysno::exit,
    Sysno::exit_group,
    // Signals: being asked to end, ending by oneself.
    Sysno::rt_sigprocmask,
    Sysno::rt_sigreturn,
    Sysno::rt_sigtimedwait,
    Sysno::rt_sigpending,
    Sysno::getpid,
    Sysno::gettid,
    // Who and where we are.
    Sysno::getuid,
    Sysno::geteuid,
    Sysno::getgid,
    Sysno::getegid,
    Sysno::sysinfo,
    Sysno::uname,
    // Keys of hash tables.
    Sysno::getrandom,
    Sysno::getcpu,
];

/// What older architectures have under names of their own.
#[cfg(target_arch = "x86_64")]
mod arch {
    use syscalls::Sysno;

    pub(super) const ANY: &[Sysno] =
        &[Sysno::poll, Sysno::epoll_wait, Sysno::time, Sysno::arch_prctl];
    pub(super) const REFUSED: &[Sysno] =
        &[Sysno::access, Sysno::readlink, Sysno::stat, Sysno::lstat];
}

/// What older architectures have under names of their own: nothing.
#[cfg(not(target_arch = "x86_64"))]
mod arch {
    use syscalls::Sysno;

    pub(super) const ANY: &[Sysno] = &[];
    pub(super) const REFUSED: &[Sysno] = &[];
}
