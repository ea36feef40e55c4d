//! A load on a guest's disk that says in the end whether every byte was right: Debian's fio, from a
//! root file system that the guest need not have booted.

use std::path::Path;

use crate::guest::Guest;
use crate::wait_for;

/// Makes the Debian system on `/dev/vda` ready for [`Fio`].
#[track_caller]
pub fn prepare(guest: &mut Guest) {
    guest.check(
        "mount -t ext4 -o ro,noload /dev/vda /mnt && mount -o bind /dev /mnt/dev && \
         mount -o bind /proc /mnt/proc && mount -o bind /tmp /mnt/tmp",
    );
}

/// fio, writing and reading at random with checksums, again and again until it is told to end.
pub struct Fio {
    device: String,
}

impl Fio {
    /// Starts on `device` with `jobs` at a time, each `depth` requests deep.
    #[track_caller]
    pub fn start(guest: &mut Guest, device: &str, jobs: u32, depth: u32) -> Self {
        guest.check("rm -f /tmp/stop /tmp/over /tmp/failed /tmp/rounds");
        let fio = format!(
            "busybox chroot /mnt fio --name=verify --filename={device} --rw=randrw --bs=4k \
             --size=2M --offset_increment=4M --numjobs={jobs} --iodepth={depth} --ioengine=libaio \
             --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --group_reporting \
             --randseed=$n"
        );
        guest.check(&format!(
            "(n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); \
             {fio} > /tmp/fio 2>&1 || {{ cp /tmp/fio /tmp/failed; break; }}; \
             echo $n > /tmp/rounds; done; touch /tmp/over) > /dev/null 2>&1 &"
        ));
        Self { device: device.to_owned() }
    }

    /// Lets it finish what it has begun.
    ///
    /// # Panics
    /// When it met an error or a wrong byte, or has not done anything.
    #[track_caller]
    pub fn finish(self, guest: &mut Guest) -> u32 {
        guest.check("touch /tmp/stop");
        wait_for(&format!("fio's end on {}", self.device), || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            (guest.run("[ -e /tmp/over ]").status == 0).then_some(())
        });
        let failed = guest.run("cat /tmp/failed");
        assert_ne!(failed.status, 0, "fio: {}", failed.stdout);
        guest.check("cat /tmp/rounds").parse().expect("a number of rounds")
    }
}

/// Whether the guest's kernel has complained about any device.
#[track_caller]
pub fn complaints(guest: &mut Guest) -> String {
    guest.run("dmesg | grep -iE 'I/O error|timed out|hung|blocked for more'").stdout
}

/// The option with which a guest gets the Debian system as its first disk, for reading only.
pub fn tools(root: &Path) -> String {
    format!("path={},readonly=on,id=tools", root.display())
}

/// How many bytes a test moves each way through what is fast elsewhere: a whole number of MiB.
/// `ATOLL_TRANSFER_MIB` has more of them than a run of all tests has time for.
pub fn transfer() -> usize {
    let asked = std::env::var("ATOLL_TRANSFER_MIB").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(2usize) << 20
}
