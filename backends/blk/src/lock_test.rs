use super::*;

fn users(image: &Path, read_only: [bool; 2]) -> [Result<(), LockError>; 2] {
    let [first, second] =
        [(); 2].map(|()| File::options().read(true).write(true).open(image).unwrap());
    let first_result = lock(&first, image, read_only[0]);
    [first_result, lock(&second, image, read_only[1])]
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let image = tempfile::NamedTempFile::new().unwrap();
    for (read_only, shared) in [
        ([true, true], true),
        ([true, false], false),
        ([false, true], false),
        ([false, false], false),
    ] {
        let [first, second] = users(image.path(), read_only);
        first.unwrap();
        assert_eq!(second.is_ok(), shared, "{read_only:?}");
    }
}

#[test]
fn a_lock_ends_with_its_file() {
    let image = tempfile::NamedTempFile::new().unwrap();
    for _ in 0..2 {
        users(image.path(), [false, false])[0].as_ref().unwrap();
    }
}

#[test]
fn the_bytes_are_those_that_qemu_locks() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let ours = File::options().read(true).write(true).open(image.path()).unwrap();
    lock(&ours, image.path(), false).unwrap();
    let other = File::open(image.path()).unwrap();
    let locked = |byte| {
        let mut lock = byte_lock(F_WRLCK, byte);
        fcntl(&other, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
        c_int::from(lock.l_type) != F_UNLCK
    };
    // Consistent read and write are used; write and resize are denied to others.
    let found: Vec<_> = (0..300).filter(|&byte| locked(byte)).collect();
    assert_eq!(found, [100, 101, 201, 203]);
}
