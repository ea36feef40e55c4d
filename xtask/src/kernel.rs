//! Takes the ELF kernel out of a bzImage, for boot protocols that want it. Reads nothing else of
//! the image.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Offsets in the setup header, from the Linux/x86 boot protocol ("The Real-Mode Kernel Header").
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Writes the ELF file that `image` carries to `vmlinux`.
pub(crate) fn extract(image: &Path, vmlinux: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let payload = payload(&bytes).with_context(|| format!("{} is no bzImage", image.display()))?;
    let elf = decompress(payload)
        .with_context(|| format!("cannot unpack the kernel in {}", image.display()))?;
    if !elf.starts_with(b"\x7fELF") {
        bail!("what {} carries is not an ELF file", image.display());
    }
    fs::write(vmlinux, elf).with_context(|| format!("cannot write {}", vmlinux.display()))
}

/// The compressed kernel inside the image.
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // "If setup_sects is 0, the real value is 4"; one more sector holds the boot code.
    let sectors = match *image.get(SETUP_SECTS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(PAYLOAD_OFFSET)?;
    image.get(start..start.checked_add(word(PAYLOAD_LENGTH)?)?)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>> {
    let (program, sized) = match payload {
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", true),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", true),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", true),
        [0x1f, 0x8b, ..] => ("gzip", false),
        _ => bail!("it is compressed in a way this task does not know"),
    };
    // The kernel's build appends the unpacked size to all but gzip, which carries its own.
    let stream = match payload.split_last_chunk::<4>() {
        Some((stream, _)) if sized => stream,
        _ => payload,
    };
    let mut child = Command::new(program)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(stream)));
        child.wait_with_output()
    })
    .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
