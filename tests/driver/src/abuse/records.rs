//! Records of what is in flight: too small, too large, of another version, full of nonsense, in
//! files that end before them or are none.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::handshake::{GET_INFLIGHT_FD, Handshake, QUEUE_SIZE, RECORD, SET_INFLIGHT_FD, inflight};
use super::{Abuse, file, strange_files};
use crate::Error;

/// Size, offset, queues, size of the queues.
type Shape = (u64, u64, u16, u16);

const SHAPES: [(&str, Shape); 12] = [
    ("of no size", (0, 0, 1, QUEUE_SIZE)),
    ("a byte too small", (RECORD - 1, 0, 1, QUEUE_SIZE)),
    ("larger than its file", (1 << 30, 0, 255, 1024)),
    ("as large as a number can say", (u64::MAX, 0, 1, QUEUE_SIZE)),
    ("behind its file", (RECORD, 1 << 40, 1, QUEUE_SIZE)),
    ("at an offset within a page", (RECORD, 8, 1, QUEUE_SIZE)),
    ("at an offset that wraps around", (RECORD, u64::MAX, 1, QUEUE_SIZE)),
    ("for no queues", (RECORD, 0, 0, QUEUE_SIZE)),
    ("for queues of no size", (RECORD, 0, 1, 0)),
    ("for smaller queues", (RECORD, 0, 1, 4)),
    ("for queues of an odd size", (RECORD, 0, 1, 63)),
    ("for all queues there can be", (u64::MAX, 0, u16::MAX, u16::MAX)),
];

pub(super) fn all(handshake: &Handshake) -> Result<Vec<Abuse>, Error> {
    let mut all = Vec::new();
    for (what, (size, offset, queues, queue_size)) in SHAPES {
        for request in [GET_INFLIGHT_FD, SET_INFLIGHT_FD] {
            let payload = inflight(size, offset, queues, queue_size);
            all.push(handshake.with(
                format!("record {what}, request {request}"),
                request,
                |told| told.with_payload(payload.clone()),
            ));
        }
    }
    let files = [
        ("of version 2", record(&[(8, &[2, 0])])?),
        ("full of ones", record(&[(0, &[0xff; RECORD as usize])])?),
        ("of version 1 and ones", record(&[(0, &[0xff; RECORD as usize]), (8, &[1, 0])])?),
        // All in flight, and the batch a loop.
        ("all in flight", record(&[(16, &[1; RECORD as usize - 16]), (8, &[1, 0, 64, 0])])?),
        ("whose file is empty", file(0)?),
    ];
    for (what, file) in files.into_iter().chain(strange_files()?) {
        all.push(handshake.with(format!("record {what}"), SET_INFLIGHT_FD, |told| {
            told.with_fds(vec![file.clone()])
        }));
    }
    Ok(all)
}

/// A record with these bytes at these places.
fn record(contents: &[(u64, &[u8])]) -> Result<Arc<File>, Error> {
    let file = file(RECORD)?;
    for (at, bytes) in contents {
        file.write_all_at(bytes, *at)
            .map_err(|source| Error::system("writing a record", source))?;
    }
    Ok(file)
}
