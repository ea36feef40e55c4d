//! Which modules go in.

use super::*;

const LIST: &str = "kernel/a/virtio-rng.ko: kernel/b/virtio.ko kernel/b/virtio_ring.ko
kernel/b/virtio.ko: kernel/b/virtio_ring.ko
kernel/b/virtio_ring.ko:
kernel/c/tun.ko:
";

#[test]
fn a_module_brings_what_it_depends_on_once() {
    assert_eq!(
        closure(LIST, &["virtio-rng", "virtio"]).unwrap(),
        ["kernel/a/virtio-rng.ko", "kernel/b/virtio.ko", "kernel/b/virtio_ring.ko"]
    );
}

#[test]
fn a_module_the_kernel_lacks_is_named() {
    let error = closure(LIST, &["virtio_fs"]).unwrap_err().to_string();
    assert!(error.contains("virtio_fs"), "{error}");
}
