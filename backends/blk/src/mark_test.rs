use std::path::Path;

use super::*;
use crate::file::ImageFile;

fn layer(path: &Path) -> Layer {
    let file = ImageFile::new(File::open(path).unwrap(), false).unwrap();
    Layer { file, path: path.into(), header: None }
}

fn set(marked: &Arc<Marked>, layer: &Layer, record: u64) -> Result<Mark, LockError> {
    Mark::set(marked, layer, record, Instant::now())
}

#[test]
fn a_mark_keeps_those_away_who_go_on_with_the_same_record_and_nobody_else() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // Each as if of a process of its own.
    let [one, other] = [layer(file.path()), layer(file.path())];
    let [ours, theirs] = [Arc::default(), Arc::default()];
    // All queues of a device have the same mark.
    let first = set(&ours, &one, 7).unwrap();
    let second = set(&ours, &one, 7).unwrap();
    set(&theirs, &other, 8).unwrap();
    set(&theirs, &other, 7).unwrap_err();
    drop(first);
    set(&theirs, &other, 7).unwrap_err();
    drop(second);
    set(&theirs, &other, 7).unwrap();
}

#[test]
fn what_is_left_of_a_process_is_waited_for() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let [one, other] = [layer(file.path()), layer(file.path())];
    let left = set(&Arc::default(), &one, 7).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(60);
            Mark::set(&Arc::default(), &other, 7, deadline).map(drop)
        });
        thread::sleep(10 * PAUSE);
        assert!(!waiting.is_finished());
        drop(left);
        waiting.join().unwrap().unwrap();
    });
}
