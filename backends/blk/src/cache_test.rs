use super::{Cache, Caching};

#[test]
fn writes_are_durable_where_nobody_will_ask() {
    for (cache, with_flush, without) in [
        (Cache::None, false, true),
        (Cache::Writeback, false, true),
        (Cache::Writethrough, true, true),
        (Cache::Unsafe, false, false),
    ] {
        let caching = Caching::new(cache);
        assert_eq!(caching.writes_durably(true), with_flush, "{cache:?}");
        assert_eq!(caching.writes_durably(false), without, "{cache:?}");
    }
}

#[test]
fn the_driver_switches_until_it_is_reset() {
    let caching = Caching::new(Cache::Writeback);
    caching.set_writeback(false);
    assert!(caching.writes_durably(true));
    caching.reset();
    assert!(!caching.writes_durably(true));
    let caching = Caching::new(Cache::Writethrough);
    caching.set_writeback(true);
    assert!(!caching.writes_durably(true));
    caching.reset();
    assert!(caching.writes_durably(true));
}
