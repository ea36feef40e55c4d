use std::os::unix::fs::symlink;

use super::*;

fn options(more: &[&str]) -> Options {
    let arguments = ["atoll-blk", "--socket-path=s", "--blk-file=f"].iter().chain(more);
    <Options as clap::Parser>::parse_from(arguments)
}

fn image_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn an_image_has_the_length_of_its_file() {
    let file = image_of(&[0; 1536]);
    let image = Image::open(file.path(), &options(&[])).unwrap();
    assert_eq!((image.len(), image.is_read_only()), (1536, false));
    image.storage().flush().unwrap();
}

#[test]
fn a_link_to_an_image_is_one() {
    let file = image_of(&[0; 512]);
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    symlink(file.path(), &link).unwrap();
    assert_eq!(Image::open(&link, &options(&["--read-only"])).unwrap().len(), 512);
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let refused =
        |path: &Path| Image::open(path, &options(&["--read-only"])).unwrap_err().to_string();
    assert!(refused("/nonexistent".as_ref()).contains("cannot open the disk image /nonexistent"));
    assert_eq!(refused("/tmp".as_ref()), "/tmp is a directory, not a disk image");
    assert_eq!(refused("/dev/null".as_ref()), "/dev/null is a character device, not a disk image");
    assert!(refused(image_of(&[]).path()).contains("is empty"));
    assert!(refused(image_of(&[0; 511]).path()).contains("511 bytes"));
}

#[test]
fn a_lock_that_no_process_is_known_to_hold_is_waited_for() {
    let file = image_of(&[0; 512]);
    let image = Arc::new(Image::open(file.path(), &options(&[])).unwrap());
    // Nobody looks for the holder in the process itself.
    let other = open_file(file.path(), false).unwrap();
    lock::lock(&other, file.path(), false).unwrap();
    let leaves = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        drop(other);
    });
    image.claim().unwrap();
    leaves.join().unwrap();
}
