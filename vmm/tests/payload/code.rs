//! Machine code for 32-bit mode, as much as payloads need. No SSE, no `int n`: not every KVM can.

/// Writes a byte to a port: `mov dx, port; mov al, value; out dx, al`.
pub(crate) fn out8(port: u16, value: u8) -> Vec<u8> {
    [&[0x66, 0xba], &port.to_le_bytes()[..], &[0xb0, value, 0xee]].concat()
}

/// Writes EAX to a port: `mov dx, port; out dx, eax`.
pub(crate) fn out_eax(port: u16) -> Vec<u8> {
    [&[0x66, 0xba], &port.to_le_bytes()[..], &[0xef]].concat()
}

/// Reads a word from a port into AX: `mov dx, port; in ax, dx`.
pub(crate) fn in_ax(port: u16) -> Vec<u8> {
    [&[0x66, 0xba], &port.to_le_bytes()[..], &[0x66, 0xed]].concat()
}

/// `mov eax, value`
pub(crate) fn set_eax(value: u32) -> Vec<u8> {
    [&[0xb8], &value.to_le_bytes()[..]].concat()
}

/// `mov dword [address], value`
pub(crate) fn store(address: u32, value: u32) -> Vec<u8> {
    [&[0xc7, 0x05], &address.to_le_bytes()[..], &value.to_le_bytes()[..]].concat()
}

/// `mov [address], eax`
pub(crate) fn store_eax(address: u32) -> Vec<u8> {
    [&[0xa3], &address.to_le_bytes()[..]].concat()
}

/// `mov eax, [address]`
pub(crate) fn load_eax(address: u32) -> Vec<u8> {
    [&[0xa1], &address.to_le_bytes()[..]].concat()
}

/// Writes bytes of memory to a port: `mov esi, from; mov ecx, count; mov dx, port; rep outs`, by
/// words of 16 bits where `words`, else by bytes.
pub(crate) fn rep_out(port: u16, from: u32, count: u32, words: bool) -> Vec<u8> {
    let outs: &[u8] = if words { &[0x66, 0xf3, 0x6f] } else { &[0xf3, 0x6e] };
    let registers = [&[0xbe], &from.to_le_bytes()[..], &[0xb9], &count.to_le_bytes()[..]].concat();
    [&registers[..], &[0x66, 0xba], &port.to_le_bytes()[..], outs].concat()
}

/// Adds one to a counter in memory for ever: `inc dword [address]; jmp`.
pub(crate) fn count_for_ever(address: u32) -> Vec<u8> {
    [&[0xff, 0x05], &address.to_le_bytes()[..], &[0xeb, 0xf8]].concat()
}

/// Takes interrupts for ever: `sti; hlt; jmp`.
pub(crate) fn wait_for_interrupts() -> Vec<u8> {
    vec![0xfb, 0xf4, 0xeb, 0xfd]
}

/// Waits for ever, without interrupts: `cli; hlt; jmp`.
pub(crate) fn stop() -> Vec<u8> {
    vec![0xfa, 0xf4, 0xeb, 0xfd]
}

/// An instruction that no processor has: `ud2`.
pub(crate) fn undefined() -> Vec<u8> {
    vec![0x0f, 0x0b]
}

/// `mov esp, top`
pub(crate) fn set_stack(top: u32) -> Vec<u8> {
    [&[0xbc], &top.to_le_bytes()[..]].concat()
}

/// `lidt [address]`
pub(crate) fn load_idt(address: u32) -> Vec<u8> {
    [&[0x0f, 0x01, 0x1d], &address.to_le_bytes()[..]].concat()
}
