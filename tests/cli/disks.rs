//! Disk images that cannot be served, by `atoll-blk` alone and as a disk of `atoll run`.

use std::fs;
use std::path::Path;

use atoll_tests::backend::Backend;
use atoll_tests::image::Image;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{AnyKvm, Program, Root};
use atoll_tests::scratch::Scratch;

use crate::refusal::{FAILURE, Run, assert_command_refuses, assert_refuses, without_privileges};

/// `atoll-blk` refuses the image at `path`, and so does an `atoll run` with it as a disk.
#[track_caller]
fn assert_no_disk(path: &Path, words: &[&str]) {
    let scratch = Scratch::new();
    let socket = format!("--socket-path={}", scratch.join("vhost0").display());
    let file = format!("--blk-file={}", path.display());
    let name = path.to_str().expect("scratch paths are text");
    let words: Vec<_> = words.iter().copied().chain([name]).collect();
    assert_refuses("atoll-blk", [&socket, &file], FAILURE, &words);
    if AnyKvm.lacking().is_none() {
        let run = Run::new().with("--disk").with(&format!("path={name}"));
        run.is_refused(FAILURE, &words);
    }
}

#[test]
fn an_image_that_is_missing_a_directory_empty_or_of_an_odd_size_is_named() {
    let scratch = Scratch::new();
    assert_no_disk(&scratch.join("missing"), &["No such file"]);
    assert_no_disk(scratch.path(), &["directory"]);
    assert_no_disk(&scratch.write("empty", ""), &["empty"]);
    assert_no_disk(&scratch.write("odd", [0; 513]), &["513", "512"]);
}

#[test]
fn an_image_that_may_not_be_written_is_named_with_the_way_out() {
    require!(Root, Program("setpriv"));
    let scratch = Scratch::new();
    let path = scratch.write("image", [0; 4096]);
    let mut read_only = fs::metadata(&path).expect("stat").permissions();
    read_only.set_readonly(true);
    fs::set_permissions(&path, read_only).expect("chmod");
    let mut command = without_privileges("atoll-blk");
    command.arg(format!("--socket-path={}", scratch.join("vhost0").display()));
    command.arg(format!("--blk-file={}", path.display()));
    let name = path.to_string_lossy();
    assert_command_refuses("atoll-blk", command, FAILURE, &[&name, "--read-only"]);
}

#[test]
fn an_image_in_use_is_refused_and_stays_with_its_holder() {
    let image = Image::patterned(4096);
    let sum = image.md5();
    let mut holder = Backend::blk(&image, &[]);
    let pid = holder.process().pid().to_string();
    assert_no_disk(image.path(), &["in use", &pid]);
    assert!(holder.process().is_running());
    assert_eq!(holder.stop().code, 0);
    assert_eq!(image.md5(), sum);
    // The lock goes with its holder.
    assert_eq!(Backend::blk(&image, &[]).stop().code, 0);
}

#[test]
fn readers_share_an_image_and_keep_writers_out() {
    let image = Image::blank(4096);
    let (_one, _two) =
        (Backend::blk(&image, &["--read-only"]), Backend::blk(&image, &["--read-only"]));
    assert_no_disk(image.path(), &["in use"]);
}
