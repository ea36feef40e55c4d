//! Front-ends in great number, polite and not: the process serves each of them, and keeps nothing of
//! any.

use atoll_driver::Abuse;

use crate::disk::{Driver, Image};

#[test]
fn hostile_front_ends_cost_a_sentence_at_most() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    Driver::attach(&image).assert_serves();
    let abuses = Abuse::all().unwrap();
    let mut before = None;
    for _ in 0..2 {
        for abuse in &abuses {
            abuse.commit(&image.socket()).unwrap_or_else(|e| panic!("{}: {e:?}", abuse.name));
        }
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        // The first time, the allocator takes what it then keeps.
        let now = process.footprint().unwrap();
        let before = before.get_or_insert(now);
        assert!(!before.is_exceeded_by(&now), "{before:?} became {now:?}");
    }
    let (status, stderr) = process.terminate().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.lines().count() <= 2 * abuses.len(), "{stderr}");
}

#[test]
fn a_thousand_front_ends_leave_nothing_behind() {
    let image = Image::new();
    let mut process = image.serve(&[]);
    let mut before = None;
    for _ in 0..10 {
        for _ in 0..100 {
            drop(Driver::attach(&image));
        }
        let mut driver = Driver::attach(&image);
        driver.assert_serves();
        let now = process.footprint().unwrap();
        let before = before.get_or_insert(now);
        assert!(!before.is_exceeded_by(&now), "{before:?} became {now:?}");
    }
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
