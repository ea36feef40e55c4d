//! One system call that may be made, and with which arguments. What is done about others is not
//! said here.

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use syscalls::Sysno;

/// A system call, allowed with any arguments or with some.
#[derive(Clone, Debug)]
pub struct SystemCall {
    number: Sysno,
    arguments: Vec<Argument>,
}

#[derive(Clone, Copy, Debug)]
struct Argument {
    index: u8,
    test: Test,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    /// The lower 32 bits are these: those of an `int`.
    Is(u32),
    /// Of the lower 32 bits, those of the mask are these.
    Bits { mask: u32, value: u32 },
    /// The address is this.
    Address(u64),
    /// The address is beyond this.
    Above(u64),
}

impl SystemCall {
    /// With any arguments.
    pub fn any(number: Sysno) -> Self {
        Self { number, arguments: Vec::new() }
    }

    /// And if argument `index`, an `int`, has this value.
    #[must_use]
    pub fn with(self, index: u8, value: impl Into<i128>) -> Self {
        // The sign and what is above the 32 bits are not the kernel's concern either.
        self.also(index, Test::Is(value.into() as u32))
    }

    /// And if those bits of argument `index`, an `int`, that are in `mask` are those of `value`.
    #[must_use]
    pub fn with_bits(self, index: u8, mask: i32, value: i32) -> Self {
        let (mask, value) = (mask.cast_unsigned(), value.cast_unsigned());
        self.also(index, Test::Bits { mask, value })
    }

    pub(super) fn at(self, index: u8, address: u64) -> Self {
        self.also(index, Test::Address(address))
    }

    pub(super) fn above(self, index: u8, address: u64) -> Self {
        self.also(index, Test::Above(address))
    }

    fn also(mut self, index: u8, test: Test) -> Self {
        self.arguments.push(Argument { index, test });
        self
    }

    pub(super) fn number(&self) -> i64 {
        i64::from(self.number.id())
    }

    /// The rule; `None` if any arguments will do.
    pub(super) fn rule(&self) -> Result<Option<SeccompRule>, BackendError> {
        if self.arguments.is_empty() {
            return Ok(None);
        }
        let conditions = self.arguments.iter().map(|&Argument { index, test }| {
            let (length, test, value) = match test {
                Test::Is(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into()),
                Test::Bits { mask, value } => {
                    (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask.into()), value.into())
                }
                Test::Address(value) => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value),
                Test::Above(value) => (SeccompCmpArgLen::Qword, SeccompCmpOp::Gt, value),
            };
            SeccompCondition::new(index, length, test, value)
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?).map(Some)
    }
}
