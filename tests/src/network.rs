//! A TAP with an address for the host's side, and the host's end of what is tested over it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use crate::process::{Process, tool};
use crate::{program, wait_for};

/// Subnets in use by this process.
static SUBNETS: AtomicU8 = AtomicU8::new(1);

/// A TAP of a test's own, in a subnet of its own. Dropping it removes it.
pub struct Tap {
    name: String,
    subnet: u8,
}

impl Tap {
    /// Makes one and brings it up.
    ///
    /// # Panics
    /// When this process may not: see `Requirement::Root`.
    #[track_caller]
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Makes one for the user with the id `owner` alone.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn of_user(owner: u32) -> Self {
        Self::with(&["user", &owner.to_string()])
    }

    #[track_caller]
    fn with(keys: &[&str]) -> Self {
        let subnet = SUBNETS.fetch_add(1, Ordering::Relaxed);
        // The process id keeps two test runs on one machine apart.
        let name = format!("atoll{}-{subnet}", std::process::id() % 100_000);
        let tap = Self { name, subnet };
        tool("ip", ["tuntap", "add", "dev", &tap.name, "mode", "tap"].iter().chain(keys));
        tool("ip", ["address", "add", &format!("{}/24", tap.host()), "dev", &tap.name]);
        tool("ip", ["link", "set", &tap.name, "up"]);
        tap
    }

    /// Its name on the host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on it.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, 1)
    }

    /// The address for the guest.
    pub fn guest(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, 2)
    }

    /// The command with which a guest brings up its side on `device`.
    pub fn guest_setup(&self, device: &str) -> String {
        let address = self.guest();
        format!("ip address add {address}/24 dev {device} && ip link set {device} up")
    }

    /// Listens at the host's address; whoever connects is sent `message` and the end of it.
    #[track_caller]
    pub fn send_to_guest(&self, message: Vec<u8>) -> (u16, JoinHandle<()>) {
        self.serve(move |mut stream| {
            stream.write_all(&message).expect("send to the guest");
            stream.shutdown(std::net::Shutdown::Write).expect("say the end to the guest");
            // The guest's own end says that it has read everything.
            let _nothing = stream.read(&mut [0]);
        })
    }

    /// Listens at the host's address; returns all that who connects says.
    #[track_caller]
    pub fn hear_from_guest(&self) -> (u16, JoinHandle<Vec<u8>>) {
        self.serve(|mut stream| {
            let mut message = Vec::new();
            stream.read_to_end(&mut message).expect("hear from the guest");
            message
        })
    }

    #[track_caller]
    fn serve<T: Send + 'static>(
        &self,
        conversation: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
    ) -> (u16, JoinHandle<T>) {
        let listener = TcpListener::bind((self.host(), 0)).expect("listen on a TAP's address");
        let port = listener.local_addr().expect("a listener has an address").port();
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept the guest");
            conversation(stream)
        });
        (port, served)
    }
}

/// An iperf3 server at the host's address on `tap`.
#[track_caller]
pub fn iperf_server(tap: &Tap) -> Process {
    let mut command = Command::new(program::find("iperf3").expect("find iperf3"));
    command.args(["--server", "--forceflush", "--bind", &tap.host().to_string()]);
    let server = Process::spawn(command);
    wait_for("iperf3 to listen", || server.stdout().contains("Server listening").then_some(()));
    server
}

impl Drop for Tap {
    fn drop(&mut self) {
        // A TAP that could not be made need not be removed.
        let mut remove = Command::new("ip");
        let _gone = remove.args(["link", "delete", &self.name]).output();
    }
}

impl Default for Tap {
    fn default() -> Self {
        Self::new()
    }
}
