//! From how many descriptors on does the document's walk hurt, and what does an index over the same
//! blocks, or a slab, give?
//!
//! A table that was filled up to so many descriptors is asked
//! - for the last of them, the longest walk (`highest`),
//! - for descriptors drawn from all of them (`random`),
//! - for the last, when other memory has driven the table out of the core's own caches (`cold`).
//!
//! The first two are repeated without a pause, from the nearest cache. A server makes system calls
//! between two lookups, so that one of its own costs something between `highest` and `cold`. In
//! `cold` each lookup is timed by itself, and what reading the clock takes is in it: some 30 ns,
//! which `slab` shows.
//!
//! The contestants:
//! - `walk` and `index`: the lookups of `epoll-document`. The address of an event is what is looked
//!   up. The events themselves stay untouched, so that a million of them, 1 GiB, take up little
//!   memory.
//! - `slab`: what a tuned server does, `epoll-et` among them. It registers the descriptor instead
//!   of an address, so that nothing must stay where it is, and keeps no buffer for a connection:
//!   one array of small entries, by descriptor. A `Vec` is that array: the kernel's choice of the
//!   lowest free number already does the work of a crate.

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use fastrand::Rng;
use ringmark::backend::document::event_table::{EventTable, Lookup};
use std::ffi::c_int;
use std::hint::black_box;
use std::ptr;
use std::time::{Duration, Instant};

/// Descriptors up to which a table is filled.
const SIZES: [c_int; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Lookups after which the same descriptors are asked for again. A CPU's branch predictor learns a
/// sequence of some thousands by heart, and then follows links before it knows how many there are
/// to follow.
const SEQUENCE: usize = 1 << 18;

const SEED: u64 = 1;

/// More than the caches of one core hold, in bytes.
const OTHER_MEMORY: usize = 4 << 20;

const CACHE_LINE: usize = 64;

/// As much as `epoll-et` keeps for a connection: a pointer to what is owed, and flags.
type Entry = [usize; 2];

/// The contestants, filled up to `size` descriptors.
struct Tables {
    walk: EventTable,
    index: EventTable,
    slab: Vec<Entry>,
}

impl Tables {
    fn new(size: c_int) -> Self {
        let [walk, index] = [Lookup::Walk, Lookup::Index].map(|lookup| {
            let mut table = EventTable::new(lookup).expect("memory for a block");
            table.find_event(size - 1).expect("memory for all blocks");
            table
        });
        Self { walk, index, slab: vec![[0; 2]; size as usize] }
    }
}

/// The tables of each size, made when the first lookup is measured. As in a server, none is freed
/// before the end: an allocator that gets large blocks back may put later ones among the links, and
/// the links far from each other.
type AllTables = Option<[Tables; SIZES.len()]>;

/// The descriptors that are looked up.
enum Asked {
    /// These, one after the other, for ever.
    InTurn(Vec<c_int>),
    /// This one, each time after something else was done.
    Cold(c_int),
}

fn event_table(criterion: &mut Criterion) {
    let mut tables = None;
    contest(criterion, &mut tables, "highest", |size| Asked::InTurn(vec![size - 1; SEQUENCE]));
    contest(criterion, &mut tables, "random", |size| {
        let mut rng = Rng::with_seed(SEED);
        Asked::InTurn((0..SEQUENCE).map(|_| rng.i32(0..size)).collect())
    });
    contest(criterion, &mut tables, "cold", |size| Asked::Cold(size - 1));
}

/// Each lookup in tables of each size.
fn contest(
    criterion: &mut Criterion,
    tables: &mut AllTables,
    name: &str,
    asked: fn(c_int) -> Asked,
) {
    fn address(table: &mut EventTable, fd: c_int) -> usize {
        ptr::from_mut(table.find_event(fd).expect("the table is large enough")).addr()
    }
    let mut group = criterion.benchmark_group(format!("event_table/{name}"));
    group.throughput(Throughput::Elements(1));
    for place in 0..SIZES.len() {
        measure(&mut group, "walk", tables, place, asked, |tables, fd| {
            address(&mut tables.walk, fd)
        });
        measure(&mut group, "index", tables, place, asked, |tables, fd| {
            address(&mut tables.index, fd)
        });
        measure(&mut group, "slab", tables, place, asked, |tables, fd| {
            ptr::from_ref(&tables.slab[fd as usize]).addr()
        });
    }
    group.finish();
}

/// Measures `find`, which returns an address, in the tables of one size.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    tables: &mut AllTables,
    place: usize,
    asked: fn(c_int) -> Asked,
    mut find: impl FnMut(&mut Tables, c_int) -> usize,
) {
    let mut memory = None;
    group.bench_function(BenchmarkId::new(name, SIZES[place]), |bencher| {
        let tables = &mut tables.get_or_insert_with(|| SIZES.map(Tables::new))[place];
        let (asked, other_memory) =
            memory.get_or_insert_with(|| (asked(SIZES[place]), vec![0_u8; OTHER_MEMORY]));
        match asked {
            Asked::InTurn(fds) => {
                let (nothing, mut turn, mut address) = (black_box(0), 0, 0);
                bencher.iter(|| {
                    turn = (turn + 1) % SEQUENCE;
                    // 0, but that is not known before the last address is: as in a server, no
                    // lookup begins earlier.
                    let after_the_last = (address & nothing) as c_int;
                    address = find(tables, fds[turn] + after_the_last);
                    address
                });
            }
            Asked::Cold(fd) => bencher.iter_custom(|lookups| {
                let mut time = Duration::ZERO;
                for _ in 0..lookups {
                    other_memory
                        .iter_mut()
                        .step_by(CACHE_LINE)
                        .for_each(|byte| *byte = byte.wrapping_add(1));
                    black_box(&mut *other_memory);
                    let fd = black_box(*fd);
                    let begun = Instant::now();
                    black_box(find(tables, fd));
                    time += begun.elapsed();
                }
                time
            }),
        }
    });
}

criterion_group! {
    name = benches;
    // All of it within a minute.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(50)
        .nresamples(5_000);
    targets = event_table
}
criterion_main!(benches);
