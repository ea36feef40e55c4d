//! The grammar of structured options.

use super::super::{DiskConfig, MemoryConfig, SerialConfig, Size, SocketConfig};
use super::*;

fn refusal<T: Section + std::fmt::Debug>(text: &str) -> String {
    T::from_text(text).unwrap_err().to_string()
}

#[test]
fn keys_and_values_fill_a_section() {
    let disk = DiskConfig::from_text("path=/a/b.img,readonly=on,serial=S1").unwrap();
    assert_eq!(disk.path.to_str(), Some("/a/b.img"));
    assert!(disk.readonly);
    assert_eq!(disk.serial.as_deref(), Some("S1"));
}

#[test]
fn a_leading_word_is_the_main_key_and_others_are_switches() {
    let memory = MemoryConfig::from_text("1G,hugepages=2M,prefault").unwrap();
    assert_eq!(memory.size, Size(1 << 30));
    assert_eq!(memory.hugepages, Some(Size(2 << 20)));
    assert!(memory.prefault);
    assert_eq!(SerialConfig::from_text("off").unwrap(), SerialConfig::Off);
    assert_eq!(SocketConfig::from_text("rng,socket=/s").unwrap().r#type, "rng");
}

#[test]
fn two_commas_are_one_that_belongs_to_the_value() {
    assert_eq!(DiskConfig::from_text("path=a,,b,readonly").unwrap().path.to_str(), Some("a,b"));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_right_one() {
    assert_eq!(
        refusal::<DiskConfig>("path=a,readolny=on"),
        "--disk: there is no key `readolny`; did you mean `readonly`?"
    );
    assert_eq!(
        refusal::<DiskConfig>("path=a,zzzzzz=on"),
        "--disk: there is no key `zzzzzz`; it takes path, readonly, format, snapshot, cache, on-enospc, serial, queues, sandbox, bps, bps-burst, iops, iops-burst, on-disconnect, id"
    );
}

#[test]
fn bad_missing_and_repeated_values_are_named() {
    assert_eq!(refusal::<DiskConfig>("readonly=on"), "--disk: missing field `path`");
    assert_eq!(
        refusal::<DiskConfig>("path=a,readonly=maybe"),
        "--disk: `maybe` is neither `on` nor `off`"
    );
    assert_eq!(refusal::<DiskConfig>("path=a,path=b"), "--disk: `path` is given twice");
    assert!(refusal::<MemoryConfig>("lots").starts_with("--memory: `lots`: not a size"));
    assert!(refusal::<SocketConfig>("blk,socket=s,queues=70000").starts_with("--device: `70000`:"));
}
