//! What does the document's walk over its blocks cost as the table grows?
//!
//! Finding descriptor *n* follows *n* / 1024 links; a hit at the far end of a table for a million
//! descriptors follows 976.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmark::backend::document::event_table::EventTable;
use std::hint::black_box;

fn find_event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event_table/find_event_at_the_end");
    group.throughput(Throughput::Elements(1));
    for descriptors in [10, 1_000, 10_000, 100_000, 1_000_000] {
        let mut table = EventTable::new().expect("memory for one block");
        let last = descriptors - 1;
        table.find_event(last).expect("memory for all blocks");
        group.bench_function(BenchmarkId::from_parameter(descriptors), |bencher| {
            bencher.iter(|| {
                let event = table.find_event(black_box(last)).expect("the table is large enough");
                black_box(std::ptr::from_mut(event))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, find_event);
criterion_main!(benches);
