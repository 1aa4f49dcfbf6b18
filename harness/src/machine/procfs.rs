//! Reading /proc: text files of `name: value` lines, with errors that name the file.

use std::io;
use std::path::Path;

/// The whole file; an error names its path.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
    })
}

/// What stands after `name:` on the first line that begins so (`status`, `meminfo`,
/// `smaps_rollup`).
pub fn text<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The number after `name:`, its unit ignored.
pub fn number(file: &str, name: &str) -> io::Result<u64> {
    text(file, name)
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| missing(name))
}

/// The bytes after `name:`, which the kernel prints in `kB` and means as 1024 bytes.
pub fn kibibytes(file: &str, name: &str) -> io::Result<u64> {
    Ok(number(file, name)? * 1024)
}

/// The error of a file that lacks an expected line.
pub fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this kernel's /proc shows no `{what}`"))
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
