//! Reads the kernel's object caches: /proc/slabinfo, with the names that /sys/kernel/slab knows.
//!
//! SLUB merges caches of like objects and lists them under the name that came first:
//! `eventpoll_epi` may be counted under `tcp_bind_bucket`. In /sys/kernel/slab each name is a link
//! to the merged cache.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::procfs::ProcFile;
use super::rights::{READ, Rights};
use super::unavailable::Unavailable;

const SYSFS: &str = "/sys/kernel/slab";

/// The names that readers look for among those of a merged cache, the preferred ones first.
#[rustfmt::skip]
const WELL_KNOWN: [&str; 24] = [
    "eventpoll_epi", "eventpoll_pwq", "ep_head", "io_kiocb", "TCP", "sock_inode_cache", "dentry",
    "filp", "lsm_inode_cache", "lsm_file_cache", "request_sock_TCP", "tw_sock_TCP",
    "tcp_bind_bucket", "tcp_bind2_bucket", "skbuff_head_cache", "skbuff_fclone_cache",
    "skbuff_small_head", "task_struct", "signal_cache", "vm_area_struct", "maple_node",
    "files_cache", "cred", "pid",
];

/// Beginnings of the names of file systems' objects. They come and go with any file that anyone on
/// the machine looks at, /proc as the harness reads it among them. No connection has any.
#[rustfmt::skip]
const FILESYSTEM: [&str; 24] = [
    "proc_inode_cache", "pde_opener", "ext4_", "jbd2_", "extent_status", "pending_reservation",
    "mb_cache_entry", "buffer_head", "xfs_", "btrfs_", "f2fs_", "nfs_", "erofs_", "ovl_", "fuse_",
    "squashfs_", "shmem_inode_cache", "tracefs_inode_cache", "debugfs_inode_cache", "kernfs_",
    "bdev_cache", "bio-", "bio_", "biovec-",
];

/// One kernel cache.
#[derive(Clone, Debug)]
pub struct Slab {
    /// The best known of its names.
    pub name: String,
    /// All of its names, sorted: objects of each are among those counted.
    pub aliases: Vec<String>,
    /// Objects in use, without those of /proc in `dentry` and `lsm_inode_cache`. The count is exact
    /// after a shrink, except that a slab that a CPU has begun since counts as fully used.
    pub objects: u64,
    /// The bytes of one in its slab, alignment included.
    pub object_bytes: u64,
    /// Whether the cache holds nothing but a file system's objects, which no connection has.
    pub filesystem: bool,
}

impl Slab {
    /// Returns the bytes of the objects in use.
    pub fn bytes(&self) -> u64 {
        self.objects * self.object_bytes
    }
}

/// The names of one cache.
#[derive(Clone)]
struct SlabNames {
    best: String,
    aliases: Vec<String>,
}

impl SlabNames {
    fn new(mut aliases: Vec<String>) -> Option<Self> {
        aliases.sort_unstable();
        let known = WELL_KNOWN.into_iter().find(|known| aliases.iter().any(|alias| alias == known));
        Some(Self { best: known.or(aliases.first().map(String::as_str))?.to_owned(), aliases })
    }

    fn are_of_filesystems(&self) -> bool {
        self.aliases
            .iter()
            .all(|alias| FILESYSTEM.iter().any(|beginning| alias.starts_with(beginning)))
    }
}

/// Reads and shrinks all caches.
pub struct Slabs {
    info: ProcFile,
    caches: Vec<SlabNames>,
    shrinkers: Vec<File>,
}

impl Slabs {
    /// Opens all files.
    pub fn open() -> Result<Self, Unavailable> {
        let info = ProcFile::open("/proc/slabinfo").map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Unavailable::new("the kernel's objects can be read by root only (/proc/slabinfo)")
                    .advising(Rights::read().how_to_get(READ))
            }
            _ => Unavailable::new(format!(
                "this kernel does not list its objects (CONFIG_SLUB_DEBUG): {error}"
            )),
        })?;
        let caches = caches(Path::new(SYSFS)).unwrap_or_default();
        let shrinkers: io::Result<_> = caches
            .iter()
            .map(|names| {
                File::options().write(true).open(Path::new(SYSFS).join(&names.best).join("shrink"))
            })
            .collect();
        Ok(Self { info, caches, shrinkers: shrinkers.unwrap_or_default() })
    }

    /// Tells whether this user may shrink the caches.
    pub fn can_shrink(&self) -> bool {
        !self.shrinkers.is_empty()
    }

    /// Reads the caches that hold objects, by name. Before, it gives back what the CPUs hold of
    /// each cache, if the kernel allows it, which takes some 10 ms. Without that each count is too
    /// high by the free objects in the slabs that the CPUs keep: tens to some hundreds.
    pub fn shrink_and_read(&self) -> io::Result<Vec<Slab>> {
        // The first that is refused ends it: the others would be refused too.
        let _ = self.shrinkers.iter().try_for_each(|file| file.write_all_at(b"1", 0));
        let mut slabs = parse(&self.info.read()?, &self.caches)?;
        leave_out_proc(&mut slabs);
        slabs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(slabs)
    }
}

/// Lists the caches of /sys/kernel/slab: a merged one is a directory such as `:A-0000064`, with a
/// link for each name.
fn caches(sysfs: &Path) -> io::Result<Vec<SlabNames>> {
    let mut by_directory: HashMap<OsString, Vec<String>> = HashMap::new();
    for entry in fs::read_dir(sysfs)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with(':') {
            let directory =
                fs::read_link(entry.path()).map_or_else(|_| entry.file_name(), OsString::from);
            by_directory.entry(directory).or_default().push(name);
        }
    }
    Ok(by_directory.into_values().filter_map(SlabNames::new).collect())
}

fn parse(slabinfo: &str, caches: &[SlabNames]) -> io::Result<Vec<Slab>> {
    let lines =
        slabinfo.lines().filter(|line| !line.starts_with("slabinfo") && !line.starts_with('#'));
    lines.filter_map(|line| parse_line(line, caches).transpose()).collect()
}

/// Reads a line of slabinfo(5): name active_objs num_objs objsize objperslab pagesperslab :
/// tunables … : slabdata active num shared. A cache without slabs is none.
fn parse_line(line: &str, caches: &[SlabNames]) -> io::Result<Option<Slab>> {
    let unread = || {
        let message = format!("/proc/slabinfo has the line `{line}`");
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| {
        let number = words.get(index).and_then(|word| word.parse::<u64>().ok());
        number.ok_or_else(unread)
    };
    let listed = *words.first().ok_or_else(unread)?;
    let (objects, object_bytes, slabs) = (number(1)?, number(3)?, number(14)?);
    if slabs == 0 {
        return Ok(None);
    }
    let names = caches.iter().find(|names| names.aliases.iter().any(|alias| alias == listed));
    let names = names.cloned().or_else(|| SlabNames::new(vec![listed.to_owned()]));
    let names = names.ok_or_else(unread)?;
    Ok(Some(Slab {
        filesystem: names.are_of_filesystems(),
        name: names.best,
        aliases: names.aliases,
        objects,
        object_bytes,
    }))
}

/// Takes the objects of /proc off the caches that it shares with sockets. An inode of /proc has one
/// dentry, and one blob of the security modules. A supervisor that lists /proc/PID/fd makes them
/// for each descriptor of a server.
fn leave_out_proc(slabs: &mut [Slab]) {
    let proc_inodes =
        slabs.iter().find(|slab| slab.name == "proc_inode_cache").map_or(0, |slab| slab.objects);
    for slab in slabs {
        if ["dentry", "lsm_inode_cache"].contains(&slab.name.as_str()) {
            slab.objects = slab.objects.saturating_sub(proc_inodes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::symlink;

    const SLABINFO: &str = "slabinfo - version: 2.1
# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> \
<batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
tcp_bind_bucket 40 64 128 32 1 : tunables 0 0 0 : slabdata 2 2 0
ext4_io_end 384 704 64 64 1 : tunables 0 0 0 : slabdata 11 11 0
new_module 3 13 2368 13 8 : tunables 0 0 0 : slabdata 1 1 0
empty 0 0 16 256 1 : tunables 0 0 0 : slabdata 0 0 0
";

    #[test]
    fn merged_caches_get_their_best_known_name_and_keep_the_others() {
        let sysfs = tempfile::tempdir().unwrap();
        for directory in [":A-0000128", ":0000064", "TCP"] {
            fs::create_dir(sysfs.path().join(directory)).unwrap();
        }
        for (name, directory) in [
            ("tcp_bind_bucket", ":A-0000128"),
            ("eventpoll_epi", ":A-0000128"),
            ("uid_cache", ":A-0000128"),
            ("ext4_io_end", ":0000064"),
            ("jbd2_inode", ":0000064"),
        ] {
            symlink(directory, sysfs.path().join(name)).unwrap();
        }
        let slabs = parse(SLABINFO, &caches(sysfs.path()).unwrap()).unwrap();
        let [bind, ext4, module] = slabs.as_slice() else { panic!("{slabs:?}") };
        assert_eq!(bind.name, "eventpoll_epi");
        assert_eq!(bind.aliases, ["eventpoll_epi", "tcp_bind_bucket", "uid_cache"]);
        assert_eq!((bind.bytes(), bind.filesystem), (40 * 128, false));
        assert_eq!((ext4.name.as_str(), ext4.filesystem), ("ext4_io_end", true));
        assert_eq!(module.name, "new_module");
    }

    #[test]
    fn a_cache_that_is_merged_with_a_file_systems_is_kept() {
        let names = |aliases: &[&str]| {
            SlabNames::new(aliases.iter().map(|&alias| alias.to_owned()).collect())
        };
        assert!(names(&["ext4_io_end", "jbd2_inode"]).unwrap().are_of_filesystems());
        assert!(!names(&["ext4_io_end", "mm_slot"]).unwrap().are_of_filesystems());
        assert!(!names(&["dentry"]).unwrap().are_of_filesystems());
    }

    #[test]
    fn dentries_of_proc_are_left_out() {
        let slabinfo = "proc_inode_cache 30 46 696 23 4 : tunables 0 0 0 : slabdata 2 2 0
dentry 100 105 192 21 1 : tunables 0 0 0 : slabdata 5 5 0
filp 100 105 192 21 1 : tunables 0 0 0 : slabdata 5 5 0
";
        let mut slabs = parse(slabinfo, &[]).unwrap();
        leave_out_proc(&mut slabs);
        assert_eq!(slabs.iter().map(|slab| slab.objects).collect::<Vec<_>>(), [30, 70, 100]);
    }

    #[test]
    fn another_format_is_an_error() {
        assert!(parse("TCP 1 2 3\n", &[]).is_err());
    }
}
