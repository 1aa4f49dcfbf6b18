//! The version of the running kernel.

use std::ffi::CStr;

/// The first two numbers of a kernel's release.
pub type Version = (u32, u32);

/// The running kernel's; zeros if its release does not begin with two.
pub fn version() -> Version {
    // SAFETY: an all-zero utsname is a valid value of that plain structure.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in `names`, and can fail only for a bad address.
    unsafe { libc::uname(&mut names) };
    // SAFETY: the release ends with a zero within its array, whether the kernel wrote it or it was
    // zero before.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    parse_version(&release.to_string_lossy()).unwrap_or_default()
}

/// The version in a release such as `6.18.44-cloud`, or `6.1-rc3`.
pub fn parse_version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_two_numbers() {
        for (release, version) in [
            ("6.18.44-fc-v769", Some((6, 18))),
            ("6.1.0-56-cloud-amd64", Some((6, 1))),
            ("7.0-rc3", Some((7, 0))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("unknown", None),
        ] {
            assert_eq!(parse_version(release), version, "{release}");
        }
        assert!(version() >= (3, 2));
    }
}
