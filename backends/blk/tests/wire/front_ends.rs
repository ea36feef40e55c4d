//! Front-ends in great number, polite and not: the process serves each of them, and keeps nothing of
//! any.

use atoll_driver::{Abuse, assert_steady};

use crate::disk::{Driver, Image};

#[test]
fn hostile_front_ends_cost_a_sentence_at_most() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    Driver::attach(&image).assert_serves();
    let mut abuses = 0;
    assert_steady(2, || {
        abuses += Abuse::commit_all(&image.socket()).unwrap();
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        process.footprint().unwrap()
    });
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.lines().count() <= abuses, "{stderr}");
}

#[test]
fn a_thousand_front_ends_leave_nothing_behind() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    assert_steady(10, || {
        (0..100).for_each(|_| drop(Driver::attach(&image)));
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        process.footprint().unwrap()
    });
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
