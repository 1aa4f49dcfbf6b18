//! The kernel image that the emulator boots.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};

/// The boot header of an image: see the kernel's Documentation/arch/x86/boot.rst.
mod header {
    use std::ops::Range;

    pub const MAGIC: Range<usize> = 0x202..0x206;
    /// The lowest bit says that it is a kernel of 64 bits.
    pub const FLAGS: usize = 0x236;
}

const HOW_TO_GET_ONE: &str = "give the file of a kernel for x86-64, such as \
    /boot/vmlinuz-6.1.0-49-cloud-amd64; \
    `scripts/kernels.sh` fetches some";

/// Returns the image of the running kernel, where distributions keep it.
pub fn of_this_machine() -> Result<PathBuf> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the release")?;
    let image = PathBuf::from(format!("/boot/vmlinuz-{}", release.trim()));
    match fs::metadata(&image) {
        Ok(_) => Ok(image),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no image of this kernel, {}: {HOW_TO_GET_ONE}", image.display())
        }
        Err(error) => Err(error).context(image.display().to_string()),
    }
}

/// How a kernel is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KernelKind {
    /// By a machine, which is emulated.
    Image,
    /// As a program: User-mode Linux.
    Program,
}

/// Looks whether a file is a kernel, and says how it is run.
pub fn look(file: &Path) -> Result<KernelKind> {
    let bytes = fs::read(file).with_context(|| format!("--kernel {}", file.display()))?;
    kind(&bytes).with_context(|| format!("--kernel {}", file.display()))
}

/// The words by which User-mode Linux knows itself: a parameter of its own.
const USER_MODE: &[u8] = b"umid=";

fn kind(bytes: &[u8]) -> Result<KernelKind> {
    if bytes.get(56..60) == Some(b"ARM\x64") {
        bail!("it is a kernel for AArch64: {HOW_TO_GET_ONE}");
    }
    if bytes.starts_with(b"\x7fELF") {
        if memchr::memmem::find(bytes, USER_MODE).is_some() {
            return Ok(KernelKind::Program);
        }
        bail!("it is not packed as a machine boots it (bzImage): {HOW_TO_GET_ONE}");
    }
    if bytes.get(header::MAGIC) != Some(b"HdrS") {
        bail!("it is no image of a kernel: {HOW_TO_GET_ONE}");
    }
    if bytes.get(header::FLAGS).is_none_or(|flags| flags & 1 == 0) {
        bail!("it is a kernel of 32 bits: {HOW_TO_GET_ONE}");
    }
    Ok(KernelKind::Image)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[header::MAGIC].copy_from_slice(b"HdrS");
        bytes[header::FLAGS] = 1;
        bytes
    }

    fn changed(at: usize, with: &[u8]) -> Vec<u8> {
        let mut bytes = image();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    }

    #[test]
    fn kernels_are_known_by_their_beginnings() {
        assert_eq!(kind(&image()).unwrap(), KernelKind::Image);
        assert_eq!(kind(b"\x7fELF ... umid=name ...").unwrap(), KernelKind::Program);
    }

    #[test]
    fn what_does_not_boot_is_told_apart() {
        let refused = |bytes: &[u8]| kind(bytes).unwrap_err().to_string();
        assert!(refused(&changed(header::FLAGS, &[0])).contains("32 bits"));
        assert!(refused(&changed(header::MAGIC.start, b"none")).contains("no image"));
        assert!(refused(&changed(56, b"ARM\x64")).contains("AArch64"));
        assert!(refused(&changed(0, b"\x7fELF")).contains("bzImage"));
        assert!(refused(b"text").contains("no image"));
    }
}
