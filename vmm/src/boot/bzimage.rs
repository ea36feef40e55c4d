//! A bzImage, entered by the 64-bit boot protocol (the kernel's Documentation/arch/x86/boot.rst,
//! whose words for fields and sections are used here).

use linux_loader::bootparam::setup_header;
use vm_memory::ByteValued;

use super::image::Image;
use super::{BootError, check_place};
use crate::arch::layout;
use crate::memory::GuestRam;

/// Where the setup header begins, how far the jump in it leads, and the most that it can fill.
const HEADER: usize = 0x1f1;
const JUMP_LENGTH: usize = 0x201;
const HEADER_END: u64 = 0x202 + 0xff;
/// "HdrS", and the first two bytes behind the boot sector's code.
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_FLAG: u16 = 0xaa55;
/// The first version of the protocol with `xloadflags`.
const VERSION: u16 = 0x20c;
/// `loadflags`: the kernel is loaded above 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;
/// Where that is, from the beginning of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;

/// A bzImage with a 64-bit entry point, all of it there.
#[derive(Debug)]
pub(super) struct BzImage {
    /// As it is in the file.
    header: setup_header,
}

impl BzImage {
    /// Reads the header. `None` if it is not a bzImage.
    pub(super) fn parse(image: &Image) -> Result<Option<Self>, BootError> {
        let head = image.head(HEADER_END)?;
        // The header ends where the jump over it leads; what is behind it is code.
        let Some(&jump) = head.get(JUMP_LENGTH) else { return Ok(None) };
        let end = JUMP_LENGTH.saturating_add(1).saturating_add(jump.into()).min(head.len());
        let mut header = setup_header::default();
        let fields = header.as_mut_slice().iter_mut();
        for (field, byte) in fields.zip(head.get(HEADER..end).unwrap_or_default()) {
            *field = *byte;
        }
        if header.header != MAGIC || header.boot_flag != BOOT_FLAG {
            return Ok(None);
        }
        let kernel = Self { header };
        // The protected-mode kernel is so many paragraphs of 16 bytes.
        let kernel_len = u64::from(kernel.header.syssize).checked_mul(16);
        image.has(kernel_len.and_then(|len| len.checked_add(kernel.setup_len())))?;
        image.has(Some(HEADER_END))?;
        let entered_in_64_bits = kernel.header.version >= VERSION
            && kernel.header.loadflags & LOADED_HIGH != 0
            && kernel.header.xloadflags & XLF_KERNEL_64 != 0;
        if !entered_in_64_bits {
            return Err(BootError::No64BitEntry { path: image.path().into() });
        }
        Ok(Some(kernel))
    }

    /// The header, to be handed to the kernel.
    pub(super) fn header(&self) -> setup_header {
        self.header
    }

    /// The most bytes of command line, without the zero at its end.
    pub(super) fn command_line_limit(&self) -> usize {
        let room = layout::COMMAND_LINE_END.saturating_sub(layout::COMMAND_LINE).saturating_sub(1);
        usize::try_from(u64::from(self.header.cmdline_size).min(room)).unwrap_or(0)
    }

    /// Where an initrd must end.
    pub(super) fn initrd_end(&self) -> u64 {
        u64::from(self.header.initrd_addr_max).saturating_add(1)
    }

    /// The 64-bit entry point.
    pub(super) fn entry(&self) -> u64 {
        self.header.pref_address.saturating_add(ENTRY_64)
    }

    /// Copies the protected-mode kernel to the address it prefers, from where it need not move
    /// itself, and says where the memory that it needs to unpack itself ends.
    pub(super) fn load(&self, image: &Image, ram: &GuestRam) -> Result<u64, BootError> {
        let (address, setup_len) = (self.header.pref_address, self.setup_len());
        let len = image.size().saturating_sub(setup_len);
        let needed = u64::from(self.header.init_size).max(len);
        let end = check_place(image, ram, address, needed)?;
        // Only what is copied: where the kernel unpacks itself to, it chooses at random.
        ram.will_use(address..address.saturating_add(len));
        image.copy_to(ram, address, setup_len, len)?;
        Ok(end)
    }

    /// The boot sector and the real-mode code, which is not for us.
    fn setup_len(&self) -> u64 {
        // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
        let sectors = match self.header.setup_sects {
            0 => 4,
            sectors => u64::from(sectors),
        };
        sectors.saturating_add(1).saturating_mul(SECTOR)
    }
}
