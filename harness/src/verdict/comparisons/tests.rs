use super::super::memory::subtract_null;
use super::*;
use crate::rows::{Bounds, KERNEL_SUM, MemoryRow, NEVER_USED, Status};

fn row(block: u32, arm: &str, cpu: f64, status: Status) -> TrialRow {
    TrialRow {
        pass: Some(Pass::Latency),
        workload: "w".to_owned(),
        block,
        arm: arm.to_owned(),
        server_cpu_ns_per_echo: Some(cpu),
        achieved_per_s: Some(1e9 / cpu),
        status,
        ..TrialRow::default()
    }
}

fn block(number: u32, base: f64, again: f64, other: f64, status: Status) -> [TrialRow; 3] {
    [
        row(number, "epoll-et", base, Status::Ok),
        row(number, "epoll-et (again)", again, Status::Ok),
        row(number, "epoll-document", other, status),
    ]
}

fn matrix() -> Matrix {
    let text = r#"
        question = "q"
        baseline = "epoll-et"
        backends = [
            { backend = "epoll-document" },
            { backend = "epoll-et", over = "epoll-document" },
            { backend = "uring-multishot", over = "epoll-document" },
        ]
    "#;
    toml::from_str(text).expect("a matrix")
}

fn of(rows: &[TrialRow], metric: &str, arm: &str, baseline: &str) -> Option<ComparisonRow> {
    let mut all = compare(Measured::of(rows), &matrix()).into_iter();
    all.find(|row| row.metric == metric && row.arm == arm && row.baseline == baseline)
}

fn cpu(rows: &[TrialRow]) -> Option<ComparisonRow> {
    of(rows, "server_cpu_ns_per_echo", "epoll-document", "epoll-et")
}

#[test]
fn ratios_are_taken_inside_of_blocks() {
    // The machine is twice as slow in the second block; the ratio is 2 in one and 8 in the
    // other.
    let rows =
        [block(1, 80.0, 125.0, 200.0, Status::Ok), block(2, 250.0, 160.0, 1600.0, Status::Ok)]
            .concat();
    let found = cpu(&rows).expect("compared");
    // The baseline's two readings have a geometric mean of 100 and of 200.
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}: {found:?}");
    close(found.ratio, 4.0);
    close(found.ratio_low, 2.0);
    close(found.ratio_high, 8.0);
    close(found.difference, 750.0);
    close(found.difference_low, 100.0);
    close(found.difference_high, 1400.0);
    assert_eq!((found.bounds, found.blocks), (Bounds::Range, 2));
    assert_eq!(found.verdict, Verdict::FewBlocks);
}

#[test]
fn an_arm_that_has_a_figure_in_no_block_leaves_the_others_theirs() {
    let mut rows =
        [block(1, 100.0, 100.0, 200.0, Status::Ok), block(2, 100.0, 100.0, 200.0, Status::Ok)]
            .concat();
    for number in [1, 2] {
        let mut uring = row(number, "uring-multishot", 1.0, Status::Ok);
        uring.server_cpu_ns_per_echo = None;
        rows.push(uring);
    }
    assert_eq!(cpu(&rows).expect("compared").blocks, 2);
    // One that has it in some blocks takes the others out: which they are may be no accident.
    rows.last_mut().expect("there is one").server_cpu_ns_per_echo = Some(100.0);
    assert_eq!(cpu(&rows).expect("compared").blocks, 1);
}

/// Blocks in which the arm takes `ratio` times the CPU of the baseline, give or take 1 %, and
/// the baseline's second reading `again` times, give or take 1 %.
fn blocks(count: u32, ratio: f64, again: f64) -> Vec<TrialRow> {
    let wobble = |number: u32, step: u32| 0.99 + 0.02 * f64::from(number * step % 5) / 4.0;
    let of = |number| {
        let base = 100.0 + f64::from(number);
        block(
            number,
            base,
            base * again * wobble(number, 1),
            base * ratio * wobble(number, 2),
            Status::Ok,
        )
    };
    (1..=count).flat_map(of).collect()
}

#[test]
fn a_verdict_takes_six_blocks() {
    let verdict =
        |count, ratio, again| cpu(&blocks(count, ratio, again)).expect("compared").verdict;
    assert_eq!(verdict(5, 2.0, 1.0), Verdict::FewBlocks);
    assert_eq!(verdict(6, 2.0, 1.0), Verdict::Higher);
    assert_eq!(verdict(10, 0.5, 1.0), Verdict::Lower);
    assert_eq!(verdict(10, 1.0, 1.0), Verdict::Alike);
    assert_eq!(verdict(10, 1.02, 1.0), Verdict::Higher, "within the margin, and shown");
}

#[test]
fn a_baseline_that_differs_from_itself_gives_no_verdict() {
    let rows = blocks(10, 2.0, 1.1);
    let check = of(&rows, "server_cpu_ns_per_echo", "epoll-et (again)", "epoll-et");
    assert_eq!(check.expect("a check").verdict, Verdict::CheckFailed);
    assert_eq!(cpu(&rows).expect("compared").verdict, Verdict::Restless);
    // Nor of any other figure of that workload.
    let all = compare(Measured::of(&rows), &matrix());
    assert!(all.iter().all(|row| !row.verdict.is_judged()), "{all:?}");
}

#[test]
fn a_baseline_that_scatters_gives_no_verdict() {
    let scattered = |number: u32| {
        let again = if number.is_multiple_of(2) { 150.0 } else { 66.0 };
        block(number, 100.0, again, 1000.0, Status::Ok)
    };
    let rows: Vec<_> = (1..=10).flat_map(scattered).collect();
    let check = of(&rows, "server_cpu_ns_per_echo", "epoll-et (again)", "epoll-et");
    assert_eq!(check.expect("a check").verdict, Verdict::CheckPassed);
    assert_eq!(cpu(&rows).expect("compared").verdict, Verdict::Restless);
}

#[test]
fn it_does_not_matter_which_reading_is_called_again() {
    let rows = blocks(10, 1.03, 1.01);
    let exchanged = rows.iter().cloned().map(|mut row| {
        row.arm = match row.arm.as_str() {
            "epoll-et" => "epoll-et (again)".to_owned(),
            "epoll-et (again)" => "epoll-et".to_owned(),
            other => other.to_owned(),
        };
        row
    });
    let (before, after) = (cpu(&rows), cpu(&exchanged.collect::<Vec<_>>()));
    assert_eq!(before.map(|row| row.verdict), after.map(|row| row.verdict));
}

#[test]
fn from_six_blocks_on_there_are_both_intervals() {
    // Ratios and intervals are those of the test of differences, by scipy.
    let ratios = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
    let of = |(index, ratio): (usize, f64)| {
        let base = 1000.0 * (index + 1) as f64;
        block(index as u32 + 1, base, base, base * ratio, Status::Ok)
    };
    let rows: Vec<_> = ratios.into_iter().enumerate().flat_map(of).collect();
    let found = cpu(&rows).expect("compared");
    assert_eq!((found.bounds, found.blocks), (Bounds::Interval95, 10));
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}: {found:?}");
    close(found.ratio.ln(), -0.18034148266813566);
    close(found.ratio_low.ln(), -0.23101772979827934);
    close(found.ratio_high.ln(), -0.12809170269620496);
    close(found.mean_ratio, 0.8352821);
    close(found.mean_ratio_low.expect("ten blocks"), 0.7958693);
    close(found.mean_ratio_high.expect("ten blocks"), 0.8766468);
    assert_eq!(found.p_value, Some(0.001953125));
}

#[test]
fn precision_is_that_of_the_widest_interval() {
    let ratios = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
    let of = |(index, ratio): (usize, f64)| {
        let mut rows = block(index as u32 + 1, 100.0, 100.0, 100.0 * ratio, Status::Ok).to_vec();
        // This one is always the same: its interval has no width.
        rows.push(row(index as u32 + 1, "uring-multishot", 70.0, Status::Ok));
        rows
    };
    let rows: Vec<_> = ratios.into_iter().enumerate().flat_map(of).collect();
    // The wider of both intervals of these ratios, by the signed ranks.
    let found = precision_percent(Measured::of(&rows), "w", &matrix()).expect("ten blocks");
    let half: f64 = (0.23101772979827934 - 0.12809170269620496) / 2.0;
    assert!((found - 100.0 * half.exp_m1()).abs() < 1e-6, "{found}");
    assert_eq!(precision_percent(Measured::of(&rows[..20]), "w", &matrix()), None, "five blocks");
}

#[test]
fn a_shared_cpu_gives_figures_and_no_verdict() {
    let mut rows = blocks(10, 2.0, 1.0);
    for row in rows.iter_mut().filter(|row| row.arm == "epoll-document") {
        row.shared_cpu = true;
    }
    let found = cpu(&rows).expect("compared");
    assert_eq!(found.verdict, Verdict::SharedCpu);
    assert!((found.ratio - 2.0).abs() < 0.02, "{found:?}");
    // Nor has what is compared with it.
    let over = of(&rows, "server_cpu_ns_per_echo", "epoll-et", "epoll-document").expect("compared");
    assert_eq!(over.verdict, Verdict::SharedCpu);
}

#[test]
fn a_shared_core_gives_a_verdict_only_where_that_is_asked_for() {
    let mut rows = blocks(10, 2.0, 1.0);
    for row in &mut rows {
        row.shared_core = Some(true);
    }
    let found = cpu(&rows).expect("compared");
    assert_eq!(found.verdict, Verdict::SharedCore);
    assert!((found.ratio - 2.0).abs() < 0.02, "{found:?}");
    assert_eq!(found.verdict.words(), "shared-core, no verdict");
    let asked = Matrix { hyperthreads: true, ..matrix() };
    let found = compare(Measured::of(&rows), &asked);
    let found = found.iter().find(|row| row.arm == "epoll-document").expect("compared");
    assert_eq!(found.verdict, Verdict::Higher);
    for core in [None, Some(false)] {
        rows.iter_mut().for_each(|row| row.shared_core = core);
        assert_eq!(cpu(&rows).expect("compared").verdict, Verdict::Higher, "{core:?}");
    }
}

/// Ten blocks of an open loop: the p99 of the arm and of the baseline, of both the lag and the
/// latency, in µs, give or take 1 % from block to block. The p50 is half of it, of the lag a
/// fifth.
fn open_loop(lag: [f64; 2], latency: [f64; 2]) -> Vec<TrialRow> {
    let of = |number: u32| {
        let row = |arm: &str, index: usize, step: u32| {
            let wobble = 0.99 + 0.02 * f64::from(number * step % 5) / 4.0;
            TrialRow {
                latency_p50_us: Some(latency[index] / 2.0 * wobble),
                latency_p99_us: Some(latency[index] * wobble),
                service_p99_us: Some((latency[index] - lag[index]) * wobble),
                send_lag_p50_us: Some(lag[index] / 5.0 * wobble),
                send_lag_p99_us: Some(lag[index] * wobble),
                ..row(number, arm, 100.0 * (index + 1) as f64, Status::Ok)
            }
        };
        [row("epoll-document", 0, 2), row("epoll-et", 1, 3), row("epoll-et (again)", 1, 1)]
    };
    (1..=10).flat_map(of).collect()
}

#[test]
fn a_latency_that_differs_as_the_client_lags_gets_no_verdict() {
    let verdict = |rows: &[TrialRow], metric| {
        of(rows, metric, "epoll-document", "epoll-et").map(|row| row.verdict)
    };
    let p99 = |lag, latency| verdict(&open_loop(lag, latency), "latency_p99_us");
    assert_eq!(p99([20.0, 20.0], [200.0, 100.0]), Some(Verdict::Higher));
    // 30 of 100 µs, and 30 of 400 µs.
    assert_eq!(p99([50.0, 20.0], [200.0, 100.0]), Some(Verdict::SendLag));
    assert_eq!(p99([20.0, 50.0], [100.0, 200.0]), Some(Verdict::SendLag));
    assert_eq!(p99([50.0, 20.0], [500.0, 100.0]), Some(Verdict::Higher));
    // Without the greater lag it would be lower still.
    assert_eq!(p99([50.0, 20.0], [100.0, 200.0]), Some(Verdict::Lower));
    // Lags that differ by no more than they do from block to block.
    assert_eq!(p99([20.0, 20.05], [100.0, 100.1]), Some(Verdict::Alike));

    let rows = open_loop([50.0, 20.0], [200.0, 100.0]);
    // The lag's median takes 6 µs of the median's 50.
    assert_eq!(verdict(&rows, "latency_p50_us"), Some(Verdict::SendLag));
    // The lag is no part of these.
    assert_eq!(verdict(&rows, "service_p99_us"), Some(Verdict::Higher));
    assert_eq!(verdict(&rows, "server_cpu_ns_per_echo"), Some(Verdict::Lower));
    // Rows of a closed loop, or from before there was a column for it.
    let without = |row| TrialRow { send_lag_p50_us: None, send_lag_p99_us: None, ..row };
    let rows: Vec<_> = rows.into_iter().map(without).collect();
    assert_eq!(verdict(&rows, "latency_p99_us"), Some(Verdict::Higher));
}

#[test]
fn an_arm_that_was_owed_messages_in_one_block_has_no_verdict_on_what_lies_among_them() {
    let verdict = |rows: &[TrialRow], metric| {
        of(rows, metric, "epoll-document", "epoll-et").map(|row| row.verdict)
    };
    let mut rows = open_loop([20.0, 20.0], [200.0, 100.0]);
    let owing = rows.iter_mut().find(|row| row.arm == "epoll-document").expect("a row");
    (owing.owed, owing.latency_p99_us) = (Some(400), None);
    assert_eq!(
        verdict(&rows, "latency_p99_us"),
        None,
        "nine blocks in which it happened to be fast"
    );
    assert_eq!(verdict(&rows, "latency_p50_us"), Some(Verdict::Higher), "the median is exact");
    assert_eq!(verdict(&rows, "server_cpu_ns_per_echo"), Some(Verdict::Lower));
    // The others lose no block by it.
    let noise = |rows: &[TrialRow]| blocks_with(rows, "w", p99()).len();
    assert_eq!(noise(&rows), 10);
}

fn p99() -> &'static Metric {
    &metric::P99
}

#[test]
fn an_arm_is_compared_with_what_it_stands_on_in_the_same_blocks() {
    let mut rows = blocks(10, 4.0, 1.0);
    rows.extend(
        (1..=10)
            .map(|number| row(number, "uring-multishot", 100.0 + f64::from(number), Status::Ok)),
    );
    let metric = "server_cpu_ns_per_echo";
    let over = of(&rows, metric, "uring-multishot", "epoll-document").expect("compared");
    let against = of(&rows, metric, "uring-multishot", "epoll-et").expect("compared");
    assert!(
        (over.ratio - 0.25).abs() < 0.005 && (against.ratio - 1.0).abs() < 0.005,
        "{over:?} {against:?}"
    );
    assert_eq!((over.verdict, against.verdict), (Verdict::Lower, Verdict::Alike));
    let baseline = of(&rows, metric, "epoll-et", "epoll-document").expect("compared");
    assert_eq!(baseline.verdict, Verdict::Lower);
}

#[test]
fn a_rejected_trial_takes_its_block_out() {
    let rows = [
        block(1, 100.0, 100.0, 200.0, Status::Ok),
        block(2, 100.0, 100.0, 900.0, Status::Rejected),
    ]
    .concat();
    let found = cpu(&rows).expect("compared");
    assert!((found.ratio - 2.0).abs() < 1e-9, "{found:?}");
    assert_eq!(found.blocks, 1);
    let rows = block(1, 100.0, 100.0, 200.0, Status::Failed);
    assert_eq!(cpu(&rows), None);
    // So does one that did not come to run.
    let rows = [
        &block(1, 100.0, 100.0, 200.0, Status::Ok)[..],
        &block(2, 100.0, 100.0, 0.0, Status::Ok)[..2],
    ];
    assert_eq!(cpu(&rows.concat()).expect("compared").blocks, 1);
}

#[test]
fn an_arm_that_stands_in_fewer_than_three_of_four_blocks_takes_none_of_the_others_out() {
    let with = |lost: u32| -> Vec<TrialRow> {
        let status = |number| if number <= lost { Status::Rejected } else { Status::Ok };
        let of_three = |number| block(number, 100.0, 100.0, 200.0, status(number));
        let another = |number| row(number, "uring-multishot", 150.0, Status::Ok);
        (1..=8).flat_map(|number| [&of_three(number)[..], &[another(number)]].concat()).collect()
    };
    let blocks_of = |rows: &[TrialRow], arm| {
        of(rows, "server_cpu_ns_per_echo", arm, "epoll-et").map(|row| row.blocks)
    };
    let arms =
        |rows: &[TrialRow]| ["epoll-document", "uring-multishot"].map(|arm| blocks_of(rows, arm));
    assert_eq!(arms(&with(2)), [Some(6), Some(6)], "two of eight take their blocks out");
    assert_eq!(arms(&with(3)), [None, Some(8)], "three of eight are left out");
}

#[test]
fn an_arm_that_never_stands_is_left_out_and_one_that_is_unsupported_at_once() {
    let count = |rows: &[TrialRow]| complete_blocks(rows, Pass::Latency, "w").len();
    let never = |status| (1..=3).flat_map(move |number| block(number, 100.0, 100.0, 200.0, status));
    let rejected: Vec<_> = never(Status::Rejected).collect();
    assert_eq!(count(&rejected[..6]), 0, "two blocks may be chance");
    assert_eq!(count(&rejected), 3);
    assert_eq!(cpu(&rejected), None);
    let unsupported: Vec<_> = never(Status::Unsupported).collect();
    assert_eq!((count(&unsupported[..3]), count(&unsupported)), (1, 3));
    // Once it has stood, a block without it is one that lost it.
    let sometimes: Vec<_> =
        never(Status::Rejected).chain(block(4, 100.0, 100.0, 200.0, Status::Ok)).collect();
    assert_eq!(count(&sometimes), 1);
}

#[test]
fn a_trial_that_was_run_again_stands_in_for_the_first() {
    let mut rows = block(1, 100.0, 100.0, 900.0, Status::Rejected).to_vec();
    rows.push(row(1, "epoll-document", 200.0, Status::Ok));
    assert!((cpu(&rows).expect("compared").ratio - 2.0).abs() < 1e-9);
    rows.push(row(1, "epoll-document", 200.0, Status::Rejected));
    assert_eq!(cpu(&rows), None, "the last one decides");
}

#[test]
fn a_busy_client_spoils_throughput_but_not_cpu() {
    let rows = block(1, 100.0, 100.0, 200.0, Status::ClientLimited);
    assert!(cpu(&rows).is_some());
    let all = compare(Measured::of(&rows), &matrix());
    assert!(all.iter().all(|row| row.metric != "achieved_per_s"), "{all:?}");
}

#[test]
fn null_is_the_floor() {
    let memory = |backend: &str, object: &str, slope: f64| MemoryRow {
        run_id: 1,
        arm: backend.to_owned(),
        backend: backend.to_owned(),
        state: NEVER_USED.to_owned(),
        space: "kernel".to_owned(),
        object: object.to_owned(),
        aliases: String::new(),
        bytes_per_connection: slope,
        low: None,
        high: None,
        intercept_bytes: 0.0,
        down_bytes_per_connection: None,
        over_null_bytes_per_connection: None,
        over_null_low: None,
        over_null_high: None,
        status: Status::Ok,
    };
    let mut rows = [memory("epoll-et", "TCP", 4736.0), memory("epoll-et", "epi", 128.0)];
    subtract_null(&mut rows);
    assert_eq!(rows[0].over_null_bytes_per_connection, None, "no floor, no difference");
    let mut rows = [rows[0].clone(), rows[1].clone(), memory("null", "TCP", 4700.0)];
    subtract_null(&mut rows);
    let over: Vec<_> = rows.iter().map(|row| row.over_null_bytes_per_connection).collect();
    assert_eq!(over, [Some(36.0), Some(128.0), Some(0.0)]);

    let interval = |low: f64, high: f64| (Some(low), Some(high));
    let sum = |backend: &str, slope: f64| {
        let (low, high) = interval(slope - 1.0, slope + 1.0);
        MemoryRow { low, high, ..memory(backend, KERNEL_SUM, slope) }
    };
    let mut rows = [sum("null", 8000.0), sum("epoll-et", 8200.0), sum("epoll-document", 8300.0)];
    subtract_null(&mut rows);
    let all = compare(Measured { memory: &rows, ..Measured::default() }, &matrix());
    let ratios: Vec<_> =
        all.iter().map(|row| (row.arm.as_str(), row.baseline.as_str(), row.ratio)).collect();
    let (document, edge) = ("epoll-document", "epoll-et");
    assert_eq!(ratios, [(document, edge, 1.5), (edge, document, 200.0 / 300.0)]);
    assert!(all.iter().all(|row| row.verdict == Verdict::OneWalk));
}
