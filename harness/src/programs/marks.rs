//! Marks: long nops, by which a program tells the emulator of `ringmark count` what it is. A
//! processor does nothing at them, and no other emulator hears them.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A statement of a program about itself. The plugin of the emulator knows the same numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// This process, and all that it makes, is the server.
    Server = 1,
    /// The same of the load.
    Load = 2,
    /// The window begins: all counts are zero.
    Begin = 16,
    /// The window ends: the counts are written.
    End = 17,
}

impl Mark {
    /// Returns the mark of a program.
    pub fn of(program: &str) -> Option<Self> {
        match program {
            "server" => Some(Self::Server),
            "load" => Some(Self::Load),
            _ => None,
        }
    }

    /// Executes it.
    #[inline(never)]
    pub fn set(self) {
        match self {
            Self::Server => nop::<{ Self::Server as u32 }>(),
            Self::Load => nop::<{ Self::Load as u32 }>(),
            Self::Begin => nop::<{ Self::Begin as u32 }>(),
            Self::End => nop::<{ Self::End as u32 }>(),
        }
    }

    /// Lets the process of a command begin with it.
    pub fn set_in(self, command: &mut Command) {
        let begin = move || {
            self.set();
            Ok(())
        };
        // SAFETY: between fork and exec a nop is executed, and nothing else.
        unsafe { command.pre_exec(begin) };
    }
}

/// `nopl 0x524d…(%rax,%rax,1)`: "RM", and the number of the mark.
#[cfg(target_arch = "x86_64")]
fn nop<const NUMBER: u32>() {
    // SAFETY: the bytes are one instruction, which reads and writes nothing.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x84, 0x00",
            ".long 0x524d0000 + {number}",
            number = const NUMBER,
            options(nomem, nostack, preserves_flags)
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn nop<const NUMBER: u32>() {}
