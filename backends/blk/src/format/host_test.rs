use std::thread;

use atoll_backend::DirectAlignment;
use imago::StorageExt;

use super::*;

const SECTOR: usize = 512;
const WRITERS: u64 = 4;

/// A file of the host's whose blocks hold eight sectors.
fn host() -> Host {
    let direct = Some(DirectAlignment { memory: 512, offset: 4096 });
    let file = tempfile::tempfile().unwrap();
    Host::unordered(ImageFile::with_alignment(file, direct)).unwrap()
}

#[test]
fn who_writes_to_the_same_block_at_once_does_not_undo_what_others_wrote() {
    let host = host();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let host = &host;
            scope.spawn(move || {
                for round in 0..500_u32 {
                    let bytes = round.to_le_bytes().repeat(SECTOR / 4);
                    StorageExt::write(host, bytes.as_slice(), writer * SECTOR as u64).unwrap();
                    let mut found = vec![0; SECTOR];
                    host.read(found.as_mut_slice(), writer * SECTOR as u64).unwrap();
                    assert!(found == bytes, "writer {writer}, round {round}");
                }
            });
        }
    });
}
