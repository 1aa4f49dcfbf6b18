//! The guest's first file system: an archive of the kind "newc", as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst describes it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being made.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file, and the folders that it stands in.
    pub fn file(&mut self, path: &Path, contents: &[u8]) {
        self.folders_of(path);
        self.entry(&relative(path), PROGRAM, (0, 0), contents);
    }

    /// Adds an empty folder.
    pub fn folder(&mut self, path: &Path) {
        self.folders_of(&path.join("in it"));
    }

    /// Adds the console, without which the first program has no output.
    pub fn console(&mut self) {
        self.folder(Path::new("/dev"));
        self.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    }

    /// Ends it.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn folders_of(&mut self, path: &Path) {
        let mut above: Vec<String> = path.ancestors().skip(1).map(relative).collect();
        above.reverse();
        for folder in above.into_iter().filter(|folder| !folder.is_empty()) {
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, FOLDER, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let size = contents.len() as u32;
        let fields = [
            self.entries, // inode
            mode,         // kind and rights
            0,            // owner
            0,            // group
            1,            // links
            0,            // time
            size,         // bytes
            0,            // its own device: major, minor
            0,
            device.0, // the device that it stands for: major, minor
            device.1,
            name.len() as u32 + 1, // of the name, with its zero
            0,                     // no sum
        ];
        let mut header = String::from("070701");
        for field in fields {
            // Writing to a string does not fail.
            let _ = write!(header, "{field:08x}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn relative(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_they_hold_and_once() {
        let mut archive = Archive::default();
        archive.file(Path::new("/bin/a"), b"12345");
        archive.file(Path::new("/bin/b"), b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<_> = ["bin\0", "bin/a\0", "bin/b\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).expect("an entry"))
            .collect();
        assert!(places.is_sorted());
        assert_eq!(text.matches("070701").count(), 4);
    }
}
