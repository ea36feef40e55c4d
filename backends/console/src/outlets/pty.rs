//! A new pseudo-terminal. Somebody is attached while its other end is open.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use atoll_backend::OwnName;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::read;
use tracing::info;

use crate::outlet::{OpenError, Outlet, ReaderId};
use crate::window::{Size, size_of};

/// Our end of a pseudo-terminal.
pub(super) struct Pty {
    master: PtyMaster,
    name: PathBuf,
    /// Told when somebody opens the other end. Without, one would have to look again and again.
    opens: Inotify,
    /// Somebody has the other end open, and reads.
    reading: bool,
    /// There may be keys, of somebody who is there or has left.
    sending: bool,
    /// How often somebody has attached.
    attachments: ReaderId,
    _link: Option<OwnName>,
}

impl Pty {
    /// Makes a pseudo-terminal, and a symbolic link to it if one is wanted.
    pub(super) fn open(link: Option<&Path>, what: &str) -> Result<Self, OpenError> {
        let failed = |source| OpenError::System { doing: "make a pseudo-terminal", source };
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC);
        let master = master.map_err(failed)?;
        grantpt(&master).map_err(failed)?;
        unlockpt(&master).map_err(failed)?;
        let name = ptsname_r(&master).map_err(failed)?;
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).map_err(failed)?;
        {
            // Raw, so that the terminal echoes nothing and the guest does. Opening it and closing
            // it again is also what makes it say from now on whether somebody has it open.
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let other = open(name.as_str(), flags, Mode::empty()).map_err(failed)?;
            let mut settings = tcgetattr(&other).map_err(failed)?;
            cfmakeraw(&mut settings);
            tcsetattr(&other, SetArg::TCSANOW, &settings).map_err(failed)?;
        }
        let opens = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let opens = opens.map_err(failed)?;
        opens.add_watch(name.as_str(), AddWatchFlags::IN_OPEN).map_err(failed)?;
        let link = link.map(|link| make_link(link, &name)).transpose()?;
        // Not a log line: whoever asked for a pseudo-terminal needs its name.
        eprintln!("atoll-console: {what} is at {name}");
        let mut pty = Self {
            master,
            name: PathBuf::from(name),
            opens,
            reading: false,
            sending: false,
            attachments: 0,
            _link: link,
        };
        pty.check();
        Ok(pty)
    }

    /// Whether somebody has the other end open.
    fn is_open(&self) -> bool {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => !fds[0].revents().is_some_and(|now| now.contains(PollFlags::POLLHUP)),
            Err(_) => false,
        }
    }
}

impl Outlet for Pty {
    fn readers(&self) -> Vec<(ReaderId, BorrowedFd<'_>)> {
        self.reading.then(|| (self.attachments, self.master.as_fd())).into_iter().collect()
    }

    fn input(&self) -> Option<(ReaderId, BorrowedFd<'_>)> {
        self.sending.then(|| (self.attachments, self.master.as_fd()))
    }

    fn read(&mut self, keys: &mut [u8]) -> nix::Result<Option<usize>> {
        Ok(Some(read(&self.master, keys)?).filter(|&count| count > 0))
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.opens.as_fd())
    }

    fn check(&mut self) {
        let mut opened = false;
        while self.opens.read_events().is_ok_and(|events| !events.is_empty()) {
            opened = true;
        }
        let open = self.is_open();
        if open != self.reading {
            info!("{} the pseudo-terminal", if open { "attached to" } else { "detached from" });
        }
        self.attachments = self.attachments.saturating_add(u64::from(open && !self.reading));
        self.reading = open;
        // What one who has left had typed is the guest's all the same.
        self.sending |= open || opened;
    }

    fn input_ended(&mut self) {
        self.check();
        self.sending = self.reading;
    }

    fn reader_left(&mut self, _reader: ReaderId, _reason: &str) {
        self.check();
    }

    fn window(&self) -> Option<Size> {
        size_of(self.master.as_fd())
    }

    fn terminal(&self) -> Option<PathBuf> {
        Some(self.name.clone())
    }
}

/// Makes a symbolic link to the pseudo-terminal, in place of one that somebody left behind.
fn make_link(path: &Path, target: &str) -> Result<OwnName, OpenError> {
    let failed = |source| OpenError::Link { path: path.into(), source };
    match fs::symlink_metadata(path) {
        // Left behind by somebody who was killed.
        Ok(file) if file.is_symlink() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(OpenError::NotALink { path: path.into() }),
        Err(_none) => {}
    }
    symlink(target, path).map_err(failed)?;
    OwnName::of(path).map_err(failed)
}
