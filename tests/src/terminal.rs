//! A terminal with a person in front of it, and a program that runs in it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atoll_terminal::Size;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

use crate::scratch::Scratch;
use crate::{program, wait_for};

/// A terminal. What programs print to it is kept.
pub struct Terminal {
    person: File,
    program: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
}

/// A program that runs in a terminal. Dropping it ends it.
pub struct Seated {
    child: Child,
    scratch: Scratch,
}

impl Terminal {
    /// A terminal of this size.
    #[track_caller]
    pub fn new(columns: u16, rows: u16) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).expect("open a terminal");
        // A program that had the person's end as well would never see it closed.
        let close = FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC);
        fcntl(&master, close).expect("keep it from programs");
        let (person, shown) = (File::from(master), Arc::<Mutex<Vec<u8>>>::default());
        let (mut screen, kept) = (person.try_clone().expect("clone it"), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut piece = [0; 16 << 10];
            // Until the terminal is dropped.
            while let Ok(count) = screen.read(&mut piece) {
                let shown = piece.get(..count).unwrap_or_default();
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(shown);
            }
        });
        let terminal = Self { person, program: slave, shown };
        terminal.resize(columns, rows);
        terminal
    }

    /// Runs `command` in it, as a shell would, but for what it complains about, which is kept apart.
    #[track_caller]
    pub fn run(&self, command: &Command) -> Seated {
        let scratch = Scratch::new();
        let handle = || Stdio::from(self.program.try_clone().expect("clone a terminal"));
        // It makes the terminal its own.
        let mut setsid = Command::new(program::find("setsid").expect("find setsid"));
        setsid.arg("-c").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => setsid.env(name, value),
                None => setsid.env_remove(name),
            };
        }
        let stderr = File::create(scratch.join("stderr")).expect("make a file");
        let child = setsid.stdin(handle()).stdout(handle()).stderr(stderr).spawn();
        Seated { child: child.expect("start setsid"), scratch }
    }

    /// Presses `keys`.
    #[track_caller]
    pub fn press(&self, keys: &[u8]) {
        (&self.person).write_all(keys).expect("type");
    }

    /// Makes the window another size.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        Size { columns, rows }.set(self.person.as_fd()).expect("resize a terminal");
    }

    /// All that was ever shown.
    pub fn shown(&self) -> MutexGuard<'_, Vec<u8>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `text` was shown.
    #[track_caller]
    pub fn wait_shows(&self, text: &str) {
        wait_for(text, || String::from_utf8_lossy(&self.shown()).contains(text).then_some(()));
    }

    /// What programs would have to restore.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.program).expect("look at a terminal")
    }

    /// Whether every key is a program's.
    pub fn is_raw(&self) -> bool {
        let cooked = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        !self.settings().local_flags.intersects(cooked)
    }
}

impl Seated {
    /// What it complained about so far.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(self.scratch.join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends it `signal`.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pids are positive");
        kill(Pid::from_raw(pid), signal).expect("send a signal");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("a program's end", || self.child.try_wait().expect("wait for a child"))
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
