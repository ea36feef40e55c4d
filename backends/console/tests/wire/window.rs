//! The size of the window, where the terminal is not this process's own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::pty::{Winsize, openpty};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::ports::{CONSOLE_PORT, DEVICE_ADD, DEVICE_READY, Driver, PORT_OPEN, PORT_READY};
use crate::rig::{F_SIZE, Rig, connect};

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

const RESIZE: u16 = 5;

const fn window(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn who_types_at_a_pseudo_terminal_gets_answers_that_fit_its_window() {
    let mut rig = Rig::start(|dir| vec![format!("--pty={}", dir.join("console").display())]);
    assert_eq!(rig.guest.device.features() & F_SIZE, F_SIZE);
    assert_eq!(rig.guest.size(), (80, 24), "nobody has said another");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    let mut terminal = options.open(rig.path("console")).unwrap();
    for round in 0..5 {
        let size = window(132 + round, 43 + round);
        // SAFETY: the kernel reads a `winsize`.
        unsafe { set_window_size(terminal.as_raw_fd(), &raw const size) }.unwrap();
        terminal.write_all(b"key").unwrap();
        assert_eq!(rig.guest.read(3), b"key");
        assert_eq!(rig.guest.size(), (132 + round, 43 + round));
    }
}

#[test]
fn a_driver_of_several_ports_hears_of_the_window_on_the_control_queue() {
    let rig = Rig::start(|dir| {
        let path = |name: &str| dir.join(name).display().to_string();
        vec![format!("--unix={}", path("tty")), format!("--port=agent:unix={}", path("agent"))]
    });
    let mut driver = Driver::attach(&rig);
    driver.say(0, DEVICE_READY, 1);
    assert_eq!(driver.hear(), (0, DEVICE_ADD, 1, vec![]));
    assert_eq!(driver.hear(), (1, DEVICE_ADD, 1, vec![]));
    driver.say(0, PORT_READY, 1);
    assert_eq!(driver.hear(), (0, CONSOLE_PORT, 1, vec![]));
    assert_eq!(driver.hear(), (0, RESIZE, 0, vec![0; 4]), "it is not known");
    assert_eq!(driver.hear(), (0, PORT_OPEN, 1, vec![]));
    let client = connect(&rig.path("tty"));
    assert_eq!(driver.hear(), (0, PORT_OPEN, 1, vec![]), "as before");
    for columns in [100, 132] {
        let terminal = openpty(Some(&window(columns, 40)), None).unwrap();
        client.send_with_fd(&b"x"[..], terminal.slave.as_raw_fd()).unwrap();
        assert_eq!(driver.hear(), (0, RESIZE, 0, vec![columns as u8, 0, 40, 0]));
    }
    assert_eq!(driver.device.config(0, 4).unwrap(), [132, 0, 40, 0]);
}
