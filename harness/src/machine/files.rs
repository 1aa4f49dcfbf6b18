//! Reads first lines of files and outputs of commands, and writes times and arguments.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Reads the first line of a file, trimmed; none if it cannot be read or is empty.
pub fn first_line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// Returns the output of a command; none if it is not there, fails or prints nothing.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// Writes a time as RFC 3339 does, to the second, in UTC: `2026-01-31T23:59:59Z`. A time before
/// 1970 or after 9999 becomes the nearest one that can be written.
pub fn utc(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(SystemTime::UNIX_EPOCH, last);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Shortens an absolute path in an argument to its last part, because the rest tells whose machine
/// it was. Other arguments stay as they are.
pub fn without_folders(argument: &str) -> String {
    let (option, value) = match argument.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (format!("{option}="), value),
        _ => (String::new(), argument),
    };
    match value.rsplit_once('/') {
        Some((_, last)) if value.starts_with('/') => format!("{option}…/{last}"),
        _ => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_lose_their_folders() {
        let cases = [
            ("/home/me/ringmark", "…/ringmark"),
            ("--out=/srv/x/run", "--out=…/run"),
            ("a/b.toml", "a/b.toml"),
            ("7", "7"),
        ];
        for (given, kept) in cases {
            assert_eq!(without_folders(given), kept);
        }
    }

    #[test]
    fn times_are_utc() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(utc(at(951_868_799)), "2000-02-29T23:59:59Z");
        assert_eq!(utc(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert_eq!(utc(at(300_000_000_000)), "9999-12-31T23:59:59Z");
    }
}
