//! What the command line and a file say, put together.

use std::io::Write;

use super::*;

fn from_toml(text: &str) -> Result<Settings, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Settings::from_file(file.path())
}

fn with_kernel() -> Settings {
    Settings { kernel: Some("vmlinux".into()), ..Settings::default() }
}

#[test]
fn a_file_takes_every_option_as_text_or_as_a_table() {
    let settings = from_toml(
        r#"
        kernel = "vmlinux"
        cpus = 2
        memory = "1G,prefault=on"
        console = "pty=/run/vm/console,on-disconnect=reset"
        serial = "off"
        grace = 30
        net = ["tap=tap0", { tap = "tap1", mtu = 1400 }]

        [[disk]]
        path = "root.img"
        readonly = true
        sandbox = false

        [[device]]
        type = "rng"
        socket = "/run/rng.sock"
        on-disconnect = "pause:30:stop"
        queue-size = 64
        "#,
    );
    let vm = settings.unwrap().into_vm().unwrap();
    let ids: Vec<_> = vm.devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["disk0", "net0", "net1", "console0", "device0"]);
    assert_eq!(vm.cpus, 2);
    assert_eq!(vm.memory.size, Size(1 << 30));
    assert!(vm.memory.prefault);
    assert_eq!(vm.grace, Some(Duration::from_secs(30)));
    let BackendConfig::Disk(disk) = &vm.devices[0].backend else { panic!("a disk comes first") };
    assert!(disk.readonly && !disk.sandbox);
    let BackendConfig::Net(net) = &vm.devices[1].backend else { panic!("then a network card") };
    assert!(net.sandbox, "unless it is turned off");
    let BackendConfig::Socket(socket) = &vm.devices[4].backend else { panic!("sockets come last") };
    assert_eq!(socket.queue_size, Some(64));
    let policies: Vec<_> =
        vm.devices.iter().map(|device| device.on_disconnect.to_string()).collect();
    assert_eq!(policies, ["wait", "wait", "wait", "reset", "pause:30:stop"]);
}

#[test]
fn the_command_line_wins_over_the_file_and_adds_devices() {
    let file = from_toml("kernel = 'old'\ncpus = 2\ndisk = 'path=a'").unwrap();
    let line = Settings {
        kernel: Some("new".into()),
        disk: vec![DiskConfig::from_text("path=b").unwrap()],
        ..Settings::default()
    };
    let vm = line.over(file).into_vm().unwrap();
    assert_eq!(vm.kernel.to_str(), Some("new"));
    assert_eq!(vm.cpus, 2);
    assert_eq!(vm.devices.len(), 2);
}

#[test]
fn mistakes_in_a_file_are_named() {
    let error = from_toml("kernal = 'x'").unwrap_err();
    let ConfigError::InFile { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.to_string(), "there is no option `kernal`; did you mean `kernel`?");
    assert!(matches!(from_toml("kernel = "), Err(ConfigError::NotToml { .. })));
    assert!(matches!(
        Settings::from_file("/nonexistent/vm.toml".as_ref()),
        Err(ConfigError::Unreadable { .. })
    ));
}

#[test]
fn a_machine_has_a_kernel_and_1_to_64_cpus() {
    assert!(matches!(Settings::default().into_vm(), Err(ConfigError::NoKernel)));
    for cpus in [0, 65, 256, u64::MAX] {
        let settings = Settings { cpus: Some(cpus), ..with_kernel() };
        assert!(matches!(settings.into_vm(), Err(ConfigError::Cpus(asked)) if asked == cpus));
    }
}

#[test]
fn two_devices_do_not_share_a_name() {
    let disk = |text| DiskConfig::from_text(text).unwrap();
    let settings =
        Settings { disk: vec![disk("path=a"), disk("path=b,id=disk0")], ..with_kernel() };
    assert!(matches!(settings.into_vm(), Err(ConfigError::SameId(id)) if id == "disk0"));
}

#[test]
fn the_terminal_serves_one_console() {
    let console = || vec![ConsoleConfig::from_text("stdio").unwrap()];
    assert_eq!(with_kernel().into_vm().unwrap().serial, SerialConfig::Stdio);
    let quiet = Settings { console: console(), ..with_kernel() };
    assert_eq!(quiet.into_vm().unwrap().serial, SerialConfig::Off);
    let both = Settings { console: console(), serial: Some(SerialConfig::Stdio), ..with_kernel() };
    assert!(matches!(both.into_vm(), Err(ConfigError::TerminalTwice)));
}

#[test]
fn a_console_goes_to_exactly_one_place() {
    let to = |text| ConsoleConfig::from_text(text).map(|console| console.to);
    assert_eq!(to("pty").unwrap(), ConsoleTo::Pty(None));
    assert_eq!(to("pty=/l").unwrap(), ConsoleTo::Pty(Some("/l".into())));
    assert_eq!(to("socket=/s").unwrap(), ConsoleTo::Socket("/s".into()));
    assert!(to("stdio,pty").is_err());
    assert!(to("").is_err());
}

#[test]
fn a_network_card_is_on_a_tap_a_socket_or_the_user_mode_network() {
    let to = |text| NetConfig::from_text(text).map(|net| net.to);
    assert_eq!(to("tap=tap0").unwrap(), NetTo::Tap("tap0".into()));
    assert_eq!(to("user").unwrap(), NetTo::User(vec![]));
    let forwards = ["tcp:2222:22", "udp:53:53"].map(str::to_owned);
    assert_eq!(to("user,hostfwd=tcp:2222:22+udp:53:53").unwrap(), NetTo::User(forwards.to_vec()));
    assert!(to("user,tap=tap0").is_err());
    assert_eq!(to("bridge=br0").unwrap(), NetTo::Bridge("br0".into()));
    assert_eq!(to("macvtap=mv0").unwrap(), NetTo::Macvtap("mv0".into()));
    assert_eq!(to("stream=/run/net").unwrap(), NetTo::Stream("/run/net".into()));
    assert_eq!(to("stream=/run/net,server=on").unwrap(), NetTo::StreamServer("/run/net".into()));
    let error = to("tap=tap0,server=on").unwrap_err().to_string();
    assert_eq!(error, "--net: server goes with stream, as in stream=HERE,server=on");
    let datagrams = NetTo::Datagrams("/run/a".into(), "/run/b".into());
    assert_eq!(to("dgram=/run/a,remote=/run/b").unwrap(), datagrams);
    for half in ["dgram=/run/a", "tap=tap0,remote=/run/b"] {
        let error = to(half).unwrap_err().to_string();
        assert_eq!(error, "--net: dgram and remote go together, as in dgram=HERE,remote=THERE");
    }
    assert!(to("dgram=/run/a,remote=/run/b,queue-pairs=2").is_err());
    assert!(to("bridge=br0,tap=tap0").is_err());
    assert!(to("stream=/run/net,queue-pairs=2").is_err());
    assert!(to("mtu=1400").is_err());
    assert_eq!(NetConfig::from_text("tap=tap0,queue-pairs=4").unwrap().queue_pairs, Some(4));
    assert!(to("user,queue-pairs=4").is_err());
    let error = to("tap=tap0,hostfwd=tcp:1:2").unwrap_err().to_string();
    assert_eq!(error, "--net: hostfwd goes with user, as in user,hostfwd=tcp:2222:22");
}

#[test]
fn a_policy_that_is_none_is_refused_by_its_option() {
    let error = DiskConfig::from_text("path=a,on-disconnect=pause:30").unwrap_err().to_string();
    assert_eq!(
        error,
        "--disk: `pause:30`: after 30 seconds of `pause` there must be another policy, as in \
         pause:30:stop"
    );
}

#[test]
fn a_disk_may_be_limited_and_a_burst_belongs_to_a_limit() {
    let disk = DiskConfig::from_text("path=a,bps=1M,bps-burst=4K,iops=100").unwrap();
    assert_eq!(disk.limits, [("bps", 1 << 20), ("bps_burst", 4096), ("iops", 100)].into());
    assert!(DiskConfig::from_text("path=a").unwrap().limits.is_empty());
    let refused = |text| DiskConfig::from_text(text).unwrap_err().to_string();
    assert!(refused("path=a,iops-burst=7").ends_with("there is no iops"));
    assert!(refused("path=a,bps=fast").starts_with("--disk: `fast`: not a size"));
    assert!(refused("path=a,rx-bps=7").contains("no key `rx-bps`"));
    let net = NetConfig::from_text("user,rx-bps=1M,tx-pps=5,tx-pps-burst=9").unwrap();
    assert_eq!(net.limits, [("rx_bps", 1 << 20), ("tx_pps", 5), ("tx_pps_burst", 9)].into());
    let error = NetConfig::from_text("user,bps=7").unwrap_err().to_string();
    assert!(error.contains("no key `bps`"), "{error}");
    let table = "[[disk]]\npath = \"a\"\niops = 100\nqueues = 2";
    let disk = from_toml(table).unwrap().disk.remove(0);
    assert_eq!((disk.limits, disk.queues), ([("iops", 100)].into(), Some(2)));
}
