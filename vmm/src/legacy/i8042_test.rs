//! What the keyboard controller still does.

use std::sync::Arc;
use std::sync::mpsc::channel;

use super::*;

#[test]
fn only_the_reset_command_resets() {
    let (sender, requests) = channel();
    let i8042 = I8042::new(Arc::new(move |request| sender.send(request).unwrap()));
    i8042.write(4, &[0xd1]);
    i8042.write(0, &[0xfe]);
    i8042.write(4, &[0xfe, 0xfe]);
    assert!(requests.try_recv().is_err());
    i8042.write(4, &[0xfe]);
    assert_eq!(requests.try_recv(), Ok(PowerRequest::Reset));
}

#[test]
fn its_status_says_that_nothing_waits() {
    let i8042 = I8042::new(Arc::new(|_| {}));
    let mut status = [0xff];
    i8042.read(4, &mut status);
    assert_eq!(status, [0]);
}
