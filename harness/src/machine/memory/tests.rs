#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use super::*;

/// 8,000 descriptors.
const PAIRS: usize = 4000;

/// Pairs that this process may open with room for the rest of the tests.
fn affordable_pairs() -> usize {
    let limit = ringmark::process::raise_open_files_limit().unwrap();
    PAIRS.min(usize::try_from(limit).unwrap().saturating_sub(1000) / 2)
}

/// The reading, or none with the reason printed if this machine or its user does not allow an exact
/// one.
fn settled(instrument: &MemoryInstrument) -> Option<MemoryReading> {
    if let Some(why) = instrument.slabs_unavailable() {
        eprintln!("skipped: {why}");
        return None;
    }
    if !instrument.slabs.as_ref().is_ok_and(Slabs::can_shrink) {
        eprintln!("skipped: the caches cannot be shrunk, and so not be counted exactly");
        return None;
    }
    Some(instrument.settle(Duration::from_secs(3)).unwrap())
}

/// Returns how many objects of the named cache came with each of `count` things, and the bytes of
/// one.
fn each(before: &MemoryReading, after: &MemoryReading, name: &str, count: usize) -> (f64, u64) {
    let find = |reading: &MemoryReading| {
        let slab = reading
            .slabs
            .iter()
            .flatten()
            .find(|slab| slab.aliases.iter().any(|alias| alias == name))?;
        Some((slab.objects as f64, slab.object_bytes))
    };
    let (earlier, later) = (find(before), find(after));
    let objects = |found: Option<(f64, u64)>| found.map_or(0.0, |(objects, _)| objects);
    (
        (objects(later) - objects(earlier)) / count as f64,
        later.or(earlier).map_or(0, |(_, bytes)| bytes),
    )
}

/// The objects of which there are not so many more for each of `count` things, within 1 %: of 4,000
/// that is 40, about one slab that a CPU has begun since the shrink.
fn deviations(
    before: &MemoryReading,
    after: &MemoryReading,
    names: &[&str],
    count: usize,
    each_of: f64,
) -> Vec<String> {
    names
        .iter()
        .map(|name| (name, each(before, after, name, count).0))
        .filter(|(_, found)| (found - each_of).abs() > 0.01)
        .map(|(name, found)| format!("{name}: {found} objects each, not {each_of}"))
        .collect()
}

/// Others on this machine open sockets and files too, the other tests of this program among them:
/// an attempt that they disturbed is made again, for longer than those take.
#[test]
fn a_connection_and_an_epoll_item_cost_what_the_kernel_allocates() {
    if affordable_pairs() < PAIRS {
        return eprintln!("skipped: {PAIRS} pairs need more descriptors than `ulimit -Hn` allows");
    }
    let mut disturbed = Vec::new();
    for _attempt in 0..25 {
        match open_add_and_close() {
            Some(found) if !found.is_empty() => disturbed.push(found),
            _ => return,
        }
    }
    panic!("no attempt was exact: {disturbed:#?}");
}

/// Opens pairs, adds one end of each to an epoll, closes all. Returns the deviations; none if they
/// cannot be told.
fn open_add_and_close() -> Option<Vec<String>> {
    const OF_AN_END: [&str; 4] = ["TCP", "sock_inode_cache", "dentry", "filp"];
    const OF_AN_ITEM: [&str; 3] = ["eventpoll_epi", "eventpoll_pwq", "ep_head"];
    let instrument = MemoryInstrument::new(std::process::id()).unwrap();
    let before = settled(&instrument)?;
    let mut ends = Vec::with_capacity(2 * PAIRS);
    for _chunk in 0..4 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..PAIRS / 4 {
            ends.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            ends.push(listener.accept().unwrap().0);
        }
    }
    let connected = settled(&instrument)?;

    let epoll = ringmark::sys::epoll_create().unwrap();
    for end in ends.iter().step_by(2) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: both descriptors are open, and the event is a local that lives through the call.
        let added = unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, end.as_raw_fd(), &mut event)
        };
        assert_eq!(added, 0, "{}", io::Error::last_os_error());
    }
    let waiting = settled(&instrument)?;

    drop(epoll);
    for end in ends.iter().step_by(2) {
        // A reset leaves no TIME_WAIT behind.
        socket2::SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(ends);
    let closed = settled(&instrument)?;

    print(&before, &connected, 2 * PAIRS, "endpoint");
    print(&connected, &waiting, PAIRS, "epoll item");
    print(&before, &closed, 2 * PAIRS, "closed endpoint");
    let mut found = deviations(&before, &connected, &OF_AN_END, 2 * PAIRS, 1.0);
    found.extend(deviations(&connected, &waiting, &OF_AN_ITEM, PAIRS, 1.0));
    found.extend(deviations(&before, &closed, &OF_AN_END, 2 * PAIRS, 0.0));
    Some(found)
}

/// Prints the readings for `--nocapture`.
fn print(before: &MemoryReading, after: &MemoryReading, count: usize, what: &str) {
    for slab in after.slabs.iter().flatten() {
        let (objects, bytes) = each(before, after, &slab.name, count);
        if objects.abs() >= 0.001 {
            println!("per {what}: {objects:8.4} x {bytes:4} {}", slab.aliases.join(" "));
        }
    }
    let kernel_bytes = after.kernel_bytes().unwrap() as f64 - before.kernel_bytes().unwrap() as f64;
    println!(
        "per {what}: {:.1} kernel bytes, settled {}",
        kernel_bytes / count as f64,
        after.settled
    );
}

#[test]
fn user_pages_and_page_tables_of_a_process_grow_as_it_touches_memory() {
    const BYTES: usize = 64 << 20;
    let instrument = MemoryInstrument::new(std::process::id()).unwrap();
    let before = instrument.read().unwrap();
    let touched = vec![1u8; BYTES];
    let after = instrument.read().unwrap();
    drop(touched);
    let grown = after.private_bytes - before.private_bytes;
    // Other tests run in this process, and need a few MiB at most.
    assert!(grown.abs_diff(BYTES as u64) < 16 << 20, "{grown}");
    assert!(
        after.page_tables_bytes > before.page_tables_bytes,
        "huge pages still need tables of their own"
    );
    assert!(
        after.machine.available_bytes > 0
            && after.machine.page_tables_bytes >= after.page_tables_bytes
    );
}
