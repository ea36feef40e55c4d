//! A TAP with an address for the host's side, and the host's end of what is tested over it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;

use crate::image::{Md5, pattern};
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

    /// Makes one with several queues.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn of_many_queues() -> Self {
        Self::with(&["multi_queue"])
    }

    /// Makes it the way out of a host that has none, such as the lab; it leads nowhere.
    #[track_caller]
    pub fn be_way_out(&self) {
        let table = std::fs::read_to_string("/proc/net/route").expect("the table of routes");
        // A line has the interface and then the destination.
        if table.lines().all(|line| line.split_whitespace().nth(1) != Some("00000000")) {
            let gateway = self.guest().to_string();
            tool("ip", ["route", "add", "default", "via", &gateway, "dev", self.name()]);
        }
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

    /// Gives the host's side an address of IPv6 as well.
    ///
    /// # Panics
    /// Where there is no IPv6.
    #[track_caller]
    pub fn add_v6(&self) {
        let address = format!("{}/64", self.host_v6());
        tool("ip", ["address", "add", &address, "dev", self.name(), "nodad"]);
    }

    /// That address.
    pub fn host_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, self.subnet.into(), 0, 0, 0, 1)
    }

    /// The command that gives a guest's `device` an address of IPv6.
    pub fn guest_setup_v6(&self, device: &str) -> String {
        let address = Ipv6Addr::new(0xfd77, 0, 0, self.subnet.into(), 0, 0, 0, 2);
        format!("ip -6 address add {address}/64 dev {device} nodad")
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

    /// Listens at the host's address; whoever connects is sent bytes without a pause until
    /// [`Stream::end`], which returns their MD5 sum.
    #[track_caller]
    pub fn stream_to_guest(&self) -> Stream {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let (port, sum) = self.serve(move |mut stream| {
            let piece = pattern(64 << 10);
            let mut sum = Md5::new();
            // No two pieces alike, or one that came twice would not show in their order.
            for number in 0u64.. {
                let piece = [&number.to_le_bytes()[..], &piece].concat();
                stream.write_all(&piece).expect("send to the guest");
                sum.add(&piece);
                if told.load(Ordering::Relaxed) {
                    break;
                }
            }
            stream.shutdown(std::net::Shutdown::Write).expect("say the end to the guest");
            let _nothing = stream.read(&mut [0]);
            sum.finish()
        });
        Stream { port, ended, sum }
    }

    /// Listens at the host's address; returns the MD5 sum of all that who connects says.
    #[track_caller]
    pub fn sum_from_guest(&self) -> (u16, JoinHandle<String>) {
        self.serve(|mut stream| {
            let mut sum = Md5::new();
            let mut piece = vec![0; 64 << 10];
            loop {
                match stream.read(&mut piece).expect("hear from the guest") {
                    0 => return sum.finish(),
                    count => sum.add(&piece[..count]),
                }
            }
        })
    }

    #[track_caller]
    fn serve<T: Send + 'static>(
        &self,
        conversation: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
    ) -> (u16, JoinHandle<T>) {
        // Of either family, where the host's side has both.
        let listener = match TcpListener::bind((self.host_v6(), 0)) {
            Ok(_both) => TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)),
            Err(_only_v4) => TcpListener::bind((self.host(), 0)),
        };
        let listener = listener.expect("listen on a TAP's address");
        let port = listener.local_addr().expect("a listener has an address").port();
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept the guest");
            conversation(stream)
        });
        (port, served)
    }
}

/// Bytes on their way to a guest.
pub struct Stream {
    /// Where the guest gets them.
    pub port: u16,
    ended: Arc<AtomicBool>,
    sum: JoinHandle<String>,
}

impl Stream {
    /// Ends it, waits until the guest has read all of it and returns its MD5 sum.
    #[track_caller]
    pub fn end(self) -> String {
        self.ended.store(true, Ordering::Relaxed);
        self.sum.join().expect("the host's sender")
    }
}

/// An iperf3 server at the host's address `host`.
#[track_caller]
pub fn iperf_server(host: &str) -> Process {
    let mut command = Command::new(program::find("iperf3").expect("find iperf3"));
    command.args(["--server", "--forceflush", "--bind", host]);
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
