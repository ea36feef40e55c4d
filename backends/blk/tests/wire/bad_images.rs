//! Images that are not served, each refused in one sentence that names it.

use std::fs;
use std::path::Path;

use crate::qcow2::{Folder, MIB, assert_clean, fill, qemu_img};

#[test]
fn no_format_is_guessed() {
    let folder = Folder::new();
    let image = folder.create("disk.qcow2", &[]);
    let said = folder.refusal(&image, &[]);
    assert!(said.contains("--format=qcow2") && said.contains("--format=raw"), "{said}");
    fs::File::options().write(true).open(&image).unwrap().set_len(MIB).unwrap();
    let mut process = folder.serve(&image, &["--format=raw"]);
    assert!(folder.driver().read(0, 512).1.starts_with(b"QFI\xfb"));
    process.terminate().unwrap();
}

#[test]
fn bad_chains_are_refused_in_one_sentence() {
    let folder = Folder::new();
    let refusal = |image: &Path| folder.refusal(image, &["--format=qcow2"]);
    let behind = |name: &str, base: &str, format: &str| {
        let image = folder.create(name, &[]);
        let path = image.to_str().unwrap();
        qemu_img(&["rebase", "-u", "-f", "qcow2", "-F", format, "-b", base, path]);
        image
    };
    let elsewhere = Folder::new();
    let outside = elsewhere.create("base.qcow2", &[]);
    let image = behind("outside.qcow2", outside.to_str().unwrap(), "qcow2");
    assert!(refusal(&image).contains("--backing-dir="));
    let permitted = format!("--backing-dir={}", elsewhere.path("").display());
    folder.serve(&image, &["--format=qcow2", &permitted]).terminate().unwrap();
    assert_clean(&image);

    assert!(refusal(&behind("missing.qcow2", "nowhere.qcow2", "qcow2")).contains("nowhere.qcow2"));
    behind("two.qcow2", "one.qcow2", "qcow2");
    assert!(refusal(&behind("one.qcow2", "two.qcow2", "qcow2")).contains("behind it"));
    assert!(refusal(&behind("self.qcow2", "self.qcow2", "qcow2")).contains("behind it"));
    assert!(refusal(&behind("vmdk.qcow2", "one.vmdk", "vmdk")).contains("format \"vmdk\""));
    assert!(refusal(&behind("net.qcow2", "nbd://host/x", "raw")).contains("only files"));
}

#[test]
fn damaged_and_unsupported_images_are_refused_in_one_sentence() {
    let folder = Folder::new();
    let image = folder.create("disk.qcow2", &[]);
    let mut process = folder.serve(&image, &["--format=qcow2"]);
    fill(&mut folder.driver(), 1);
    process.terminate().unwrap();
    let sound = fs::read(&image).unwrap();
    let long = |at: usize| u64::from_be_bytes(sound[at..at + 8].try_into().unwrap()) as usize;
    let refblock = long(long(48));
    let l2 = long(long(40)) & 0x00ff_ffff_ffff_fe00;
    let l1_entry = (1 << 63 | long(40) as u64).to_be_bytes();
    for (at, bytes, words) in [
        (0, &b"QFJ"[..], "--format=raw"),
        (4, &[0, 0, 0, 9], "version 9"),
        (24, &[0x7f, 0xff], "disk's size"),
        (35, &[2], "encrypted"),
        (36, &[0x7f], "L1 table"),
        (60, &[0, 0, 0, 2], "2 internal snapshots"),
        (79, &[2], "marked corrupt"),
        (75, &[1], "bit 32"),
        (refblock, &[0; 64], "wrong reference counts"),
        (l2, &[0xbf, 0, 0, 0, 0, 0, 0, 0], "an entry of an L2 table"),
        (l2, &[0x80, 0xff, 0, 0, 0, 0, 0, 0], "truncated: a data cluster"),
        // The guest could write to the table of its own clusters.
        (l2, &l1_entry, "wrong reference counts"),
    ] {
        let mut bad = sound.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&image, bad).unwrap();
        let said = folder.refusal(&image, &["--format=qcow2"]);
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    for len in [0, 3, 80, 5000, 1 << 16, 3 << 16, 5 << 16] {
        fs::write(&image, &sound[..len]).unwrap();
        folder.refusal(&image, &["--format=qcow2"]);
    }
}

#[test]
fn what_writing_would_make_wrong_is_only_read() {
    for (args, words) in [
        (&["snapshot", "-c", "one"][..], "1 internal snapshots"),
        (&["bitmap", "--add"], "persistent bitmaps"),
    ] {
        let folder = Folder::new();
        let image = folder.create("disk.qcow2", &[]);
        let path = image.to_str().unwrap();
        let more = if args[0] == "bitmap" { &[path, "changes"][..] } else { &[path] };
        qemu_img(&[args, more].concat());
        let before = fs::read(&image).unwrap();
        let said = folder.refusal(&image, &["--format=qcow2"]);
        assert!(said.contains(words), "{said}");
        for option in ["--read-only", "--snapshot"] {
            let mut process = folder.serve(&image, &["--format=qcow2", option]);
            assert_eq!(folder.driver().read(0, 512), (0, vec![0; 512]));
            assert!(process.terminate().unwrap().0.success());
        }
        assert!(fs::read(&image).unwrap() == before);
    }
}
