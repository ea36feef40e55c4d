//! Machine code of guests that are a few instructions long, put together byte by byte. What it does is
//! theirs.

const COM1: u16 = 0x3f8;

/// `jz`, `jnz` and `jae` to a place relative to the next instruction.
pub(crate) const JZ: [u8; 2] = [0x0f, 0x84];
pub(crate) const JNZ: [u8; 2] = [0x0f, 0x85];
pub(crate) const JAE: [u8; 2] = [0x0f, 0x83];

/// Machine code for 32-bit mode. No SSE, no `int n`: not every KVM can.
#[derive(Default)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }

    pub(crate) fn here(&self) -> usize {
        self.0.len()
    }

    /// `mov byte [address], value`
    pub(crate) fn store8(&mut self, address: u32, value: u8) {
        self.push(&[&[0xc6, 0x05], &address.to_le_bytes(), &[value]]);
    }

    /// `mov word [address], value`
    pub(crate) fn store16(&mut self, address: u32, value: u16) {
        self.push(&[&[0x66, 0xc7, 0x05], &address.to_le_bytes(), &value.to_le_bytes()]);
    }

    /// `mov dword [address], value`
    pub(crate) fn store32(&mut self, address: u32, value: u32) {
        self.push(&[&[0xc7, 0x05], &address.to_le_bytes(), &value.to_le_bytes()]);
    }

    /// `mov dx, COM1; mov al, byte; out dx, al`
    pub(crate) fn say(&mut self, byte: u8) {
        self.push(&[&[0x66, 0xba], &COM1.to_le_bytes(), &[0xb0, byte, 0xee]]);
    }

    /// `jmp target`
    pub(crate) fn jump(&mut self, target: usize) {
        self.relative(&[0xe9], target);
    }

    pub(crate) fn relative(&mut self, opcode: &[u8], target: usize) {
        let end = self.here() + opcode.len() + 4;
        let position = |at| i32::try_from(at).expect("small code");
        let offset = position(target) - position(end);
        self.push(&[opcode, &offset.to_le_bytes()]);
    }

    /// `jnz` over what `body` does.
    pub(crate) fn if_equal(&mut self, body: impl FnOnce(&mut Self)) {
        self.unless(JNZ, body);
    }

    /// `jz` over what `body` does.
    pub(crate) fn if_any(&mut self, body: impl FnOnce(&mut Self)) {
        self.unless(JZ, body);
    }

    fn unless(&mut self, opcode: [u8; 2], body: impl FnOnce(&mut Self)) {
        let mut skipped = Self(Vec::new());
        body(&mut skipped);
        let length = u32::try_from(skipped.0.len()).expect("small code");
        self.push(&[&opcode, &length.to_le_bytes(), &skipped.0]);
    }

    /// `mov dx, port; mov eax, value; out dx, eax`
    pub(crate) fn out32(&mut self, port: u16, value: u32) {
        self.push(&[&[0x66, 0xba], &port.to_le_bytes(), &[0xb8], &value.to_le_bytes(), &[0xef]]);
    }
}
