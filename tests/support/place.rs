//! The places where a server listens.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// The folder of this process's Unix sockets.
static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::with_prefix("ringmark-").expect("a temporary folder"));

/// A kind of address.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A free port of 127.0.0.1.
    Ip,
    /// A free port of ::1.
    Ipv6,
    /// A path that is free.
    Unix,
}

impl Place {
    /// An address of this kind where nobody listens.
    pub fn address(self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        match self {
            Self::Ip => "127.0.0.1:0".to_owned(),
            Self::Ipv6 => "[::1]:0".to_owned(),
            Self::Unix => {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                format!("unix:{}/{number}", FOLDER.path().display())
            }
        }
    }

    /// Why this machine has no such address.
    pub fn obstacle(self) -> Option<String> {
        match self {
            Self::Ipv6 => TcpListener::bind("[::1]:0")
                .err()
                .map(|error| format!("this machine has no IPv6: {error}")),
            _ => None,
        }
    }

    /// Removes what was made for Unix sockets. A static is not dropped.
    pub fn clean_up() {
        // A folder that stays holds no more than names.
        let _ = std::fs::remove_dir_all(FOLDER.path());
    }
}
