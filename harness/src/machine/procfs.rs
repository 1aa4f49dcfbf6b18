//! Reads files of /proc, many of which are lines of `name: value`. Errors name the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Reads the whole file; an error names its path.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
    })
}

/// Finds the text after `name:` on the first line that begins so (`status`, `meminfo`,
/// `smaps_rollup`).
pub fn text<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Finds the number after `name:` and ignores its unit.
pub fn number(file: &str, name: &str) -> io::Result<u64> {
    text(file, name)
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| missing(name))
}

/// Finds the bytes after `name:`, which the kernel prints in `kB` of 1024 bytes.
pub fn kibibytes(file: &str, name: &str) -> io::Result<u64> {
    Ok(number(file, name)? * 1024)
}

/// Returns the error of a file that lacks an expected line.
pub fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this kernel's /proc shows no `{what}`"))
}

/// An open file of /proc. It is read again and again in place, because opening it anew would itself
/// make kernel objects.
pub struct ProcFile(File);

impl ProcFile {
    /// Opens the file; an error names its path.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        File::open(path).map(Self).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))
        })
    }

    /// Reads the whole file, which the kernel writes anew. It gives some pages at a time.
    pub fn read(&self) -> io::Result<String> {
        let mut text = vec![0; 64 * 1024];
        let mut length = 0;
        loop {
            match self.0.read_at(&mut text[length..], length as u64)? {
                0 => break,
                more => length += more,
            }
            if length == text.len() {
                text.resize(2 * length, 0);
            }
        }
        text.truncate(length);
        String::from_utf8(text).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tserver\nVmPTE:\t      52 kB\nThreads:\t3\nThreadsOther:\t9\n";

    #[test]
    fn finds_whole_names_only() {
        assert_eq!(text(STATUS, "Name"), Some("server"));
        assert_eq!(number(STATUS, "Threads").ok(), Some(3));
        assert_eq!(kibibytes(STATUS, "VmPTE").ok(), Some(52 * 1024));
        assert_eq!(number(STATUS, "VmPT").map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = read("/proc/self/no-such-file").map_err(|e| e.to_string());
        assert!(error.is_err_and(|text| text.contains("/proc/self/no-such-file")));
    }
}
