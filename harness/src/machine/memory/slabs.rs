//! The kernel's object caches: /proc/slabinfo, with the names that /sys/kernel/slab knows.
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

use serde::Serialize;

use super::Unavailable;
use crate::machine::rights::{READ, Rights};

const SYSFS: &str = "/sys/kernel/slab";

/// Of the names of a merged cache, the one that a reader of ours looks for. What stands first is
/// preferred.
const WELL_KNOWN: [&str; 24] = [
    "eventpoll_epi",
    "eventpoll_pwq",
    "ep_head",
    "io_kiocb",
    "TCP",
    "sock_inode_cache",
    "dentry",
    "filp",
    "lsm_inode_cache",
    "lsm_file_cache",
    "request_sock_TCP",
    "tw_sock_TCP",
    "tcp_bind_bucket",
    "tcp_bind2_bucket",
    "skbuff_head_cache",
    "skbuff_fclone_cache",
    "skbuff_small_head",
    "task_struct",
    "signal_cache",
    "vm_area_struct",
    "maple_node",
    "files_cache",
    "cred",
    "pid",
];

/// Beginnings of the names of file systems' objects. They come and go with any file that anyone on
/// the machine looks at, among them /proc as the harness itself reads it, and no connection has
/// any.
const FILESYSTEM: [&str; 24] = [
    "proc_inode_cache",
    "pde_opener",
    "ext4_",
    "jbd2_",
    "extent_status",
    "pending_reservation",
    "mb_cache_entry",
    "buffer_head",
    "xfs_",
    "btrfs_",
    "f2fs_",
    "nfs_",
    "erofs_",
    "ovl_",
    "fuse_",
    "squashfs_",
    "shmem_inode_cache",
    "tracefs_inode_cache",
    "debugfs_inode_cache",
    "kernfs_",
    "bdev_cache",
    "bio-",
    "bio_",
    "biovec-",
];

/// One kernel cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slab {
    /// The best known of its names.
    pub name: String,
    /// All of its names, sorted: objects of each are among those counted.
    pub aliases: Vec<String>,
    /// Objects in use, those of /proc left out of `dentry` and `lsm_inode_cache`. Exact after a
    /// shrink, except that each CPU that has begun a slab since counts as using all of it.
    pub objects: u64,
    /// What one takes in its slab, alignment included.
    pub object_bytes: u64,
    /// The pages of the cache, unused objects included.
    pub slab_bytes: u64,
    /// Whether the cache holds nothing but a file system's objects, which no connection has.
    pub filesystem: bool,
}

impl Slab {
    /// The bytes of the objects in use.
    pub fn bytes(&self) -> u64 {
        self.objects * self.object_bytes
    }
}

/// What one cache is called.
#[derive(Clone)]
struct Names {
    best: String,
    aliases: Vec<String>,
}

impl Names {
    fn new(mut aliases: Vec<String>) -> Option<Self> {
        aliases.sort_unstable();
        let known = WELL_KNOWN.into_iter().find(|known| aliases.iter().any(|alias| alias == known));
        Some(Self { best: known.or(aliases.first().map(String::as_str))?.to_owned(), aliases })
    }

    fn filesystem(&self) -> bool {
        self.aliases
            .iter()
            .all(|alias| FILESYSTEM.iter().any(|beginning| alias.starts_with(beginning)))
    }
}

/// Reads and shrinks all caches.
pub(super) struct Slabs {
    info: File,
    caches: Vec<Names>,
    shrinkers: Vec<File>,
    page_bytes: u64,
}

impl Slabs {
    pub(super) fn open() -> Result<Self, Unavailable> {
        let info = File::open("/proc/slabinfo").map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                Unavailable::new("the kernel's objects can be read by root only (/proc/slabinfo)")
                    .advising(Rights::read().how_to_get(READ))
            }
            _ => Unavailable::new(format!(
                "this kernel does not list its objects (/proc/slabinfo, CONFIG_SLUB_DEBUG): {error}"
            )),
        })?;
        let caches = caches(Path::new(SYSFS)).unwrap_or_default();
        let shrinkers: io::Result<_> = caches
            .iter()
            .map(|names| {
                File::options().write(true).open(Path::new(SYSFS).join(&names.best).join("shrink"))
            })
            .collect();
        // SAFETY: sysconf takes no pointers.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned();
        Ok(Self { info, caches, shrinkers: shrinkers.unwrap_or_default(), page_bytes })
    }

    /// Gives back what the CPUs hold of each cache, after which the kernel's counts are exact (some
    /// 10 ms for all). False if the kernel does not allow it.
    pub(super) fn shrink(&self) -> bool {
        self.shrinks() && self.shrinkers.iter().all(|file| file.write_all_at(b"1", 0).is_ok())
    }

    /// Whether the kernel lets this user ask for it.
    pub(super) fn shrinks(&self) -> bool {
        !self.shrinkers.is_empty()
    }

    /// The caches that hold objects, by name.
    pub(super) fn read(&self) -> io::Result<Vec<Slab>> {
        let mut slabs =
            parse(&crate::machine::memory::read(&self.info)?, &self.caches, self.page_bytes)?;
        leave_out_proc(&mut slabs);
        slabs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(slabs)
    }
}

/// The caches of /sys/kernel/slab: a merged one is a directory such as `:A-0000064`, with a link
/// for each name.
fn caches(sysfs: &Path) -> io::Result<Vec<Names>> {
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
    Ok(by_directory.into_values().filter_map(Names::new).collect())
}

/// slabinfo(5): name active_objs num_objs objsize objperslab pagesperslab : tunables … : slabdata
/// active num shared.
fn parse(slabinfo: &str, caches: &[Names], page_bytes: u64) -> io::Result<Vec<Slab>> {
    let unexpected = |line: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/slabinfo has the line `{line}`"))
    };
    let mut slabs = Vec::new();
    for line in
        slabinfo.lines().filter(|line| !line.starts_with("slabinfo") && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let (
            Some(&listed),
            Some(objects),
            Some(object_bytes),
            Some(pages_per_slab),
            Some(slab_count),
        ) = (words.first(), number(1), number(3), number(5), number(14))
        else {
            return Err(unexpected(line));
        };
        if slab_count == 0 {
            continue;
        }
        let names =
            caches.iter().find(|names| names.aliases.iter().any(|alias| alias == listed)).cloned();
        let Some(names) = names.or_else(|| Names::new(vec![listed.to_owned()])) else {
            return Err(unexpected(line));
        };
        slabs.push(Slab {
            filesystem: names.filesystem(),
            name: names.best,
            aliases: names.aliases,
            objects,
            object_bytes,
            slab_bytes: slab_count * pages_per_slab * page_bytes,
        });
    }
    Ok(slabs)
}

/// Takes the objects of /proc off the caches that it shares with sockets. An inode of /proc has one
/// dentry, and one blob of the security modules. A supervisor that lists /proc/PID/fd makes them
/// for each descriptor of a server.
fn leave_out_proc(slabs: &mut [Slab]) {
    let of_proc =
        slabs.iter().find(|slab| slab.name == "proc_inode_cache").map_or(0, |slab| slab.objects);
    for slab in
        slabs.iter_mut().filter(|slab| ["dentry", "lsm_inode_cache"].contains(&slab.name.as_str()))
    {
        slab.objects = slab.objects.saturating_sub(of_proc);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::symlink;

    const SLABINFO: &str = "slabinfo - version: 2.1
# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
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
        let slabs = parse(SLABINFO, &caches(sysfs.path()).unwrap(), 4096).unwrap();
        let [bind, ext4, module] = slabs.as_slice() else { panic!("{slabs:?}") };
        assert_eq!(bind.name, "eventpoll_epi");
        assert_eq!(bind.aliases, ["eventpoll_epi", "tcp_bind_bucket", "uid_cache"]);
        assert_eq!((bind.bytes(), bind.slab_bytes, bind.filesystem), (40 * 128, 2 * 4096, false));
        assert_eq!((ext4.name.as_str(), ext4.filesystem), ("ext4_io_end", true));
        assert_eq!((module.name.as_str(), module.slab_bytes), ("new_module", 8 * 4096));
    }

    #[test]
    fn a_cache_that_is_merged_with_a_file_systems_is_kept() {
        let names =
            |aliases: &[&str]| Names::new(aliases.iter().map(|&alias| alias.to_owned()).collect());
        assert!(names(&["ext4_io_end", "jbd2_inode"]).unwrap().filesystem());
        assert!(!names(&["ext4_io_end", "mm_slot"]).unwrap().filesystem());
        assert!(!names(&["dentry"]).unwrap().filesystem());
    }

    #[test]
    fn dentries_of_proc_are_left_out() {
        let slabinfo = "proc_inode_cache 30 46 696 23 4 : tunables 0 0 0 : slabdata 2 2 0
dentry 100 105 192 21 1 : tunables 0 0 0 : slabdata 5 5 0
filp 100 105 192 21 1 : tunables 0 0 0 : slabdata 5 5 0
";
        let mut slabs = parse(slabinfo, &[], 4096).unwrap();
        leave_out_proc(&mut slabs);
        assert_eq!(slabs.iter().map(|slab| slab.objects).collect::<Vec<_>>(), [30, 70, 100]);
    }

    #[test]
    fn another_format_is_an_error() {
        assert!(parse("TCP 1 2 3\n", &[], 4096).is_err());
    }
}
