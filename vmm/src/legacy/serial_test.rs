//! What goes through the serial port.

use std::thread;

use super::*;

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const LINE_STATUS: u64 = 5;
const DATA_READY: u8 = 1;

/// Output that a test can look into.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn port() -> (SerialPort, Output, Arc<Event>) {
    let (output, interrupt) = (Output::default(), Arc::new(Event::new().unwrap()));
    (SerialPort::new(Arc::clone(&interrupt), Box::new(output.clone())), output, interrupt)
}

fn read(port: &SerialPort, offset: u64) -> u8 {
    let mut byte = [0];
    port.read(offset, &mut byte);
    byte[0]
}

#[test]
fn what_the_guest_prints_comes_out() {
    let (port, output, _interrupt) = port();
    for byte in b"hello" {
        port.write(DATA, &[*byte]);
    }
    assert_eq!(*output.0.lock().unwrap(), b"hello");
}

#[test]
fn keys_interrupt_and_arrive_in_order_however_many() {
    let (port, _output, interrupt) = port();
    port.write(INTERRUPT_ENABLE, &[1]);
    let keys: Vec<u8> = (0..=255).cycle().take(3 * INPUT_LIMIT).collect();
    let typed = keys.clone();
    thread::scope(|scope| {
        scope.spawn(|| port.input(&typed));
        for key in keys {
            while read(&port, LINE_STATUS) & DATA_READY == 0 {
                thread::yield_now();
            }
            assert_eq!(read(&port, DATA), key);
        }
    });
    assert!(interrupt.drain());
    assert_eq!(read(&port, LINE_STATUS) & DATA_READY, 0);
}

#[test]
fn a_lost_output_does_not_stop_the_guest() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let port = SerialPort::new(Arc::new(Event::new().unwrap()), Box::new(Broken));
    port.write(DATA, b"x");
    port.write(DATA, b"y");
    assert_ne!(read(&port, LINE_STATUS) & 0x20, 0, "ready to transmit");
}
