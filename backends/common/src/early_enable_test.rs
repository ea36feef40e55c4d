use std::sync::Arc;

use vhost::vhost_user::message::VhostUserProtocolFeatures;

use super::*;
use crate::device::{ConfigRefused, Device, DeviceError, Identity, Worker};

/// A device of two queues which nobody gets to serve.
struct Still;

impl Device for Still {
    fn identity(&self) -> Identity {
        Identity { name: "still", device_type: 1, features: 0, queues: 2, max_queue_size: 8 }
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        Ok(())
    }

    fn open_queue(&self, _index: u16, _features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        Err("nobody serves it".into())
    }

    fn reset(&self) {}
}

fn session(protocol_features: VhostUserProtocolFeatures) -> Mutex<Session> {
    let mut session = Session::new(Arc::new(Still), None);
    session.set_protocol_features(protocol_features.bits()).unwrap();
    Mutex::new(session)
}

const ENABLE: u32 = 18;
const NEED_REPLY: u32 = 1 | 8;

fn message(flags: u32, index: u32, enable: u32) -> Vec<u8> {
    [ENABLE, flags, 8, index, enable].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Serves `message`. Returns what `serve` does, and the reply.
fn exchange(session: &Mutex<Session>, message: &[u8]) -> (bool, Vec<u8>) {
    let (mut front_end, socket) = UnixStream::pair().unwrap();
    front_end.write_all(message).unwrap();
    let header = Header::peek(&socket).unwrap().unwrap();
    assert!(header.enables_ring());
    let served = serve(&socket, header, session).unwrap();
    drop(socket);
    let mut reply = Vec::new();
    front_end.read_to_end(&mut reply).unwrap();
    (served, reply)
}

fn reply(value: u64) -> Vec<u8> {
    let header = [ENABLE, 1 | 4, 8].map(u32::to_ne_bytes);
    [header.as_flattened(), &value.to_ne_bytes()].concat()
}

#[test]
fn a_ring_is_enabled_and_disabled_before_features_are_set() {
    let session = session(VhostUserProtocolFeatures::empty());
    assert!(!lock(&session).features_set());
    assert_eq!(exchange(&session, &message(1, 1, 1)), (true, vec![]));
    assert_eq!([0, 1].map(|index| lock(&session).is_enabled(index).unwrap()), [false, true]);
    assert_eq!(exchange(&session, &message(1, 1, 0)), (true, vec![]));
    assert!(!lock(&session).is_enabled(1).unwrap());
}

#[test]
fn it_is_acknowledged_where_that_was_negotiated_and_asked_for() {
    let acknowledging = session(VhostUserProtocolFeatures::REPLY_ACK);
    assert_eq!(exchange(&acknowledging, &message(NEED_REPLY, 0, 1)), (true, reply(0)));
    assert_eq!(exchange(&acknowledging, &message(1, 0, 0)), (true, vec![]));
    let silent = session(VhostUserProtocolFeatures::empty());
    assert_eq!(exchange(&silent, &message(NEED_REPLY, 0, 1)), (true, vec![]));
}

#[test]
fn a_ring_that_does_not_exist_ends_the_connection() {
    let session = session(VhostUserProtocolFeatures::REPLY_ACK);
    assert_eq!(exchange(&session, &message(NEED_REPLY, 2, 1)), (false, reply(1)));
    assert_eq!(exchange(&session, &message(1, u32::MAX, 1)), (false, vec![]));
}

#[test]
fn half_a_message_ends_the_connection() {
    let session = session(VhostUserProtocolFeatures::empty());
    let (mut front_end, socket) = UnixStream::pair().unwrap();
    front_end.write_all(&message(1, 0, 1)[..16]).unwrap();
    let header = Header::peek(&socket).unwrap().unwrap();
    drop(front_end);
    let error = serve(&socket, header, &session).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(!lock(&session).is_enabled(0).unwrap());
}

#[test]
fn only_a_request_of_the_right_shape_is_taken_for_one() {
    let (mut front_end, socket) = UnixStream::pair().unwrap();
    for (header, taken) in [
        ([ENABLE, 1, 8], true),
        ([ENABLE, NEED_REPLY, 8], true),
        ([ENABLE, 1 | 4, 8], false),
        ([ENABLE, 1, 4], false),
        ([ENABLE, 1, u32::MAX], false),
        ([ENABLE + 1, 1, 8], false),
    ] {
        front_end.write_all(header.map(u32::to_ne_bytes).as_flattened()).unwrap();
        assert_eq!(Header::peek(&socket).unwrap().unwrap().enables_ring(), taken, "{header:?}");
        let mut socket = &socket;
        socket.read_exact(&mut [0; HEADER]).unwrap();
    }
}
