//! Backends that a test starts itself, for `--device` or for another front-end.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::image::Image;
use crate::network::Tap;
use crate::process::{Finished, Process};
use crate::scratch::Scratch;
use crate::{program, wait_for};

/// A vhost-user backend listening on a socket.
pub struct Backend {
    process: Process,
    /// What starts another one.
    program: OsString,
    args: Vec<OsString>,
    socket: PathBuf,
    _scratch: Scratch,
}

impl Backend {
    /// `atoll-blk` with `image` as its disk and `options` besides.
    #[track_caller]
    pub fn blk(image: &Image, options: &[&str]) -> Self {
        let mut file = OsString::from("--blk-file=");
        file.push(image.path());
        Self::ours("atoll-blk", [file].into_iter().chain(options.iter().map(OsString::from)))
    }

    /// `atoll-net` on `tap`.
    #[track_caller]
    pub fn net(tap: &Tap) -> Self {
        Self::ours("atoll-net", [format!("--tap={}", tap.name())])
    }

    /// `atoll-console` with a Unix socket for the terminal's side.
    #[track_caller]
    pub fn console(terminal: &Path) -> Self {
        let mut option = OsString::from("--unix=");
        option.push(terminal);
        Self::ours("atoll-console", [option])
    }

    #[track_caller]
    fn ours(name: &str, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::start(|socket| {
            let mut path = OsString::from("--socket-path=");
            path.push(socket);
            let mut command = Command::new(program::ours(name));
            command.arg(path).args(options);
            command
        })
    }

    /// Starts the backend that `command` makes for a socket's path, and waits until it listens.
    #[track_caller]
    pub fn start(command: impl FnOnce(&Path) -> Command) -> Self {
        let scratch = Scratch::new();
        let socket = scratch.join("vhost0");
        let command = command(&socket);
        let program = command.get_program().to_owned();
        let args = command.get_args().map(OsStr::to_owned).collect();
        let mut process = Process::spawn(command);
        wait_to_listen(&mut process, &socket);
        Self { process, program, args, socket, _scratch: scratch }
    }

    /// Ends it with SIGKILL, wherever it is in its work, and leaves its socket as it is.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    /// Starts it again on the same socket, after its end.
    #[track_caller]
    pub fn restart(&mut self) {
        // What is not ours does not replace the socket of who died.
        let _gone_already = std::fs::remove_file(&self.socket);
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        self.process = Process::spawn(command);
        wait_to_listen(&mut self.process, &self.socket);
    }

    /// The socket it listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it with SIGTERM.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        self.process.stop()
    }

    /// Whether somebody accepts connections on its socket.
    pub fn listens(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok()
    }
}

#[track_caller]
fn wait_to_listen(process: &mut Process, socket: &Path) {
    wait_for("a backend's socket", || {
        assert!(
            process.is_running(),
            "`{}` ended at once:\n{}",
            process.command_line(),
            process.stderr()
        );
        socket.exists().then_some(())
    });
}
