#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::rows::{NEVER_USED, USED_THEN_IDLE};
use crate::verdict::memory::subtract_null;

/// Returns the number of an arm's trial: its first letter.
fn number(arm: &str) -> u32 {
    u32::from(arm.as_bytes()[0])
}

/// A slope in the middle of its interval.
fn row(arm: &str, object: &str, bytes: f64, half_width: f64) -> MemoryRow {
    MemoryRow {
        run_id: number(arm),
        arm: arm.to_owned(),
        backend: arm.to_owned(),
        state: NEVER_USED.to_owned(),
        space: if object == USER_SUM { "user" } else { "kernel" }.to_owned(),
        object: object.to_owned(),
        aliases: String::new(),
        bytes_per_connection: bytes,
        low: Some(bytes - half_width),
        high: Some(bytes + half_width),
        intercept_bytes: 0.0,
        down_bytes_per_connection: Some(bytes),
        over_null_bytes_per_connection: None,
        over_null_low: None,
        over_null_high: None,
        status: Status::Ok,
    }
}

/// A walk of two objects and the server's own pages.
fn walk(arm: &str, endpoints: f64, others: f64, half_width: f64) -> Vec<MemoryRow> {
    vec![
        row(arm, "TCP", endpoints, half_width),
        row(arm, "filp", others, half_width),
        row(arm, KERNEL_SUM, endpoints + others, half_width),
        row(arm, USER_SUM, 16.0, 0.0),
    ]
}

fn quiet() -> Vec<MemoryRow> {
    let arms = [("null", 400.0), ("poll", 408.0), ("epoll-et", 635.0), ("uring", 1270.0)];
    arms.into_iter().flat_map(|(arm, others)| walk(arm, 7460.0, others, 10.0)).collect()
}

/// Returns each arm's kernel objects over `null`, and the remarks.
fn judged(mut memory: Vec<MemoryRow>, points: &[MemoryPointRow]) -> (Vec<Option<f64>>, String) {
    subtract_null(&mut memory);
    let flaws = judge(&mut memory, points, &trials());
    let sums = memory.iter().filter(|row| row.object == KERNEL_SUM && row.backend != "null");
    let over = sums
        .map(|row| row.over_null_bytes_per_connection.filter(|_| row.status == Status::Ok))
        .collect();
    let said: Vec<_> =
        flaws.iter().map(|flaw| format!("{} {}: {}", flaw.arm, flaw.state, flaw.why)).collect();
    (over, said.join("\n"))
}

fn trials() -> Vec<TrialRow> {
    let trial = |arm: &str| TrialRow {
        run_id: number(arm),
        arm: arm.to_owned(),
        pass: Some(Pass::Syscalls),
        ..TrialRow::default()
    };
    ["null", "poll", "epoll-et", "uring"].map(trial).into()
}

const NOTHING: [Option<f64>; 3] = [None; 3];

#[test]
fn nothing_speaks_against_quiet_walks() {
    assert_eq!(judged(quiet(), &[]), (vec![Some(8.0), Some(235.0), Some(870.0)], String::new()));
}

#[test]
fn a_floor_that_is_no_line_is_none() {
    let mut memory = quiet();
    memory[2] = MemoryRow {
        low: Some(7868.0),
        high: Some(13_100.0),
        ..row("null", KERNEL_SUM, 10_958.0, 0.0)
    };
    let (over, said) = judged(memory, &[]);
    assert_eq!(over, NOTHING);
    assert!(
        said.starts_with("null never-used: the kernel's objects had not come to rest: "),
        "{said}"
    );
}

#[test]
fn a_floor_above_or_below_all_others_is_none_however_narrow_its_interval() {
    // Files that something else opened or closed all the time, or its sockets.
    for (floor, words) in [
        (walk("null", 7460.0, 3490.0, 1.0), "3 of 3 walks have less of 'all kernel objects'"),
        (walk("null", 7460.0, 700.0, 1.0), "2 of 3 walks have less of 'all kernel objects'"),
        (walk("null", 4600.0, 400.0, 1.0), "all 3 walks have more of 'TCP'"),
        (
            vec![row("null", "TCP", 7460.0, 1.0), row("null", KERNEL_SUM, 5000.0, 1.0)],
            "do not come to their sum",
        ),
    ] {
        let others = quiet().into_iter().filter(|row| row.arm != "null");
        let (over, said) = judged(floor.into_iter().chain(others).collect(), &[]);
        assert_eq!(over, NOTHING, "{words}");
        assert!(said.starts_with("null never-used: ") && said.contains(words), "{said}");
    }
}

#[test]
fn one_walk_below_the_floor_is_that_walks_flaw() {
    let mut memory = quiet();
    memory[4..8].clone_from_slice(&walk("poll", 7460.0, 300.0, 5.0));
    let (over, said) = judged(memory, &[]);
    assert_eq!(over, [None, Some(235.0), Some(870.0)]);
    assert!(said.starts_with("poll never-used: it has less of 'all kernel objects'"), "{said}");
}

#[test]
fn what_is_not_told_from_nothing_is_no_figure_unless_it_is_known_to_be_small() {
    let with = |bytes: f64, low: f64, high: f64| {
        let mut memory = quiet();
        memory[10] = MemoryRow {
            low: Some(low + 7860.0),
            high: Some(high + 7860.0),
            ..row("epoll-et", KERNEL_SUM, bytes + 7860.0, 0.0)
        };
        judged(memory, &[])
    };
    let (over, said) = with(585.0, -100.0, 600.0);
    assert_eq!(over, [Some(8.0), None, Some(870.0)]);
    assert!(
        said.starts_with(
            "epoll-et never-used: all kernel objects: the readings bound it within 720 bytes"
        ),
        "{said}"
    );
    assert_eq!(with(30.0, 1.0, 200.0).0[1], None, "wider than it is large");
    assert_eq!(with(8.0, -2.0, 41.0).0[1], Some(8.0));
    assert_eq!(with(5600.0, 5400.0, 5800.0).0[1], Some(5600.0));
}

#[test]
fn what_connections_do_not_give_back_twice_was_not_theirs() {
    let sum = |up: f64, down: f64| MemoryRow {
        down_bytes_per_connection: Some(down),
        ..row("epoll-et", KERNEL_SUM, up, 10.0)
    };
    // Requests of io_uring and idle threads are kept.
    for (up, down) in [(7860.0, 7874.0), (8733.0, 8467.0), (13_458.0, 7860.0)] {
        assert_eq!(disturbance(&sum(up, down)), None, "{up} {down}");
    }
    assert!(
        disturbance(&sum(6860.0, 8860.0))
            .unwrap()
            .contains("took 6860 bytes each and gave back 8860")
    );
    assert!(disturbance(&row("null", KERNEL_SUM, -20.0, 1.0)).is_some());
    let active =
        MemoryRow { state: ACTIVE.to_owned(), ..row("epoll-et", KERNEL_SUM, 8900.0, 900.0) };
    assert_eq!(disturbance(&active), None, "what is on its way comes and goes");
}

/// Slopes and readings of walks without an interval, each reading off its line by so many bytes, up
/// and down in turn.
fn few(count: u64, off: f64) -> (Vec<MemoryRow>, Vec<MemoryPointRow>) {
    let mut memory = quiet();
    memory.iter_mut().for_each(|row| (row.low, row.high) = (None, None));
    let point = |row: &MemoryRow, step: u64| MemoryPointRow {
        run_id: row.run_id,
        arm: row.arm.clone(),
        state: row.state.clone(),
        direction: "up".to_owned(),
        connections: 1000 * step,
        space: row.space.clone(),
        object: row.object.clone(),
        bytes: (row.bytes_per_connection * 1000.0 * step as f64
            + if step.is_multiple_of(2) { off } else { -off }) as u64,
        ..MemoryPointRow::default()
    };
    let points =
        memory.iter().flat_map(|row| (1..=count).map(move |step| point(row, step))).collect();
    (memory, points)
}

#[test]
fn few_readings_are_bounded_by_all_of_their_slopes() {
    for (count, off, told) in
        [(3, 1000.0, true), (4, 1000.0, true), (3, 300_000.0, false), (2, 0.0, false)]
    {
        let (memory, points) = few(count, off);
        let (over, said) = judged(memory, &points);
        assert_eq!(over.iter().all(Option::is_some), told, "{count} {off}: {over:?} {said}");
        assert_eq!(said.is_empty(), told, "{said}");
    }
}

#[test]
fn a_walk_of_which_rows_are_lost_is_not_used_and_it_is_said_which() {
    let (mut memory, points) = few(4, 0.0);
    memory.retain(|row| !(row.arm == "epoll-et" && row.object == "filp"));
    let (over, said) = judged(memory.clone(), &points);
    assert_eq!(over, [Some(8.0), None, Some(870.0)]);
    assert!(
        said.starts_with("epoll-et never-used: memory.csv has no rows of 'filp' of trial 101"),
        "{said}"
    );

    let memory_trial = |arm: &str| TrialRow {
        pass: Some(Pass::Memory),
        status: Status::Ok,
        arm: arm.to_owned(),
        run_id: number(arm),
        ..TrialRow::default()
    };
    let mut without: Vec<_> = memory.iter().filter(|row| row.arm != "uring").cloned().collect();
    let flaws =
        judge(&mut without, &points, &["null", "poll", "epoll-et", "uring"].map(memory_trial));
    assert!(
        flaws.iter().any(|flaw| flaw.arm == "uring" && flaw.why.contains("no rows of trial 117")),
        "{flaws:?}"
    );
    let flaws = judge(&mut memory, &points, &[]);
    assert!(
        flaws.iter().any(|flaw| flaw.why.starts_with("trials.csv has no trial 101")),
        "{flaws:?}"
    );
    assert!(
        memory.iter().all(|row| row.status == Status::Rejected),
        "nobody says that they passed the gates"
    );
}

#[test]
fn own_pages_need_no_floor_and_walks_of_one_state_leave_the_other() {
    let mut memory = quiet();
    let used: Vec<_> = walk("epoll-et", 7460.0, 640.0, 900.0)
        .into_iter()
        .map(|row| MemoryRow { state: USED_THEN_IDLE.to_owned(), ..row })
        .collect();
    memory.extend(used);
    let (over, said) = judged(memory.clone(), &[]);
    assert_eq!(over, [Some(8.0), Some(235.0), Some(870.0), None]);
    assert!(
        said.starts_with("epoll-et used-then-idle: the kernel's objects had not come to rest"),
        "{said}"
    );

    memory.iter_mut().filter(|row| row.arm == FLOOR).for_each(|row| row.status = Status::Rejected);
    subtract_null(&mut memory);
    judge(&mut memory, &[], &trials());
    let own = memory.iter().filter(|row| row.object == USER_SUM && row.arm == "uring");
    assert_eq!(own.map(|row| row.over_null_bytes_per_connection).collect::<Vec<_>>(), [Some(16.0)]);
}
