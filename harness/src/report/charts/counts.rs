//! Charts of counts: system calls of an echo, bytes of a connection.

use std::collections::BTreeMap;

use ringmark::backend::FLOOR;

use super::cpu::pictures;
use super::kit::{Found, nothing_of, say_missing};
use crate::matrix::Workload;
use crate::report::chart::rows::{self, ChartRow, Drawn, Group, StackPart};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::{Colour, PALETTE, of_call, of_object};
use crate::report::query::{SHOWN_BYTES, counted_trial};
use crate::results::Run;
use crate::rows::{
    ACTIVE, KERNEL_SUM, MACHINE_SUM, MemoryRow, NEVER_USED, Pass, Status, USED_THEN_IDLE, USER_SUM,
};
use crate::text::{integer, significant};
use crate::verdict::slopes::Flaw;

/// Less than this of a call for an echo is not drawn.
const SHOWN_CALLS: f64 = 0.005;

/// Calls by name, one after the other, and how much one wait brings.
pub fn syscalls(run: &Run) -> Found {
    let row = |workload: &Workload, arm: String| -> Option<ChartRow> {
        let trial = counted_trial(run, &workload.name, &arm)?;
        let mut calls: Vec<_> = run
            .syscalls
            .iter()
            .filter(|call| call.run_id == trial.run_id && call.calls_per_echo >= SHOWN_CALLS)
            .collect();
        calls.sort_by(|a, b| a.syscall.cmp(&b.syscall));
        let part =
            |name: &str, size| StackPart { name: name.to_owned(), colour: of_call(name), size };
        let parts: Vec<StackPart> =
            calls.iter().map(|call| part(&call.syscall, call.calls_per_echo)).collect();
        let waits = trial
            .events_per_wait
            .map_or(String::new(), |events| format!(", {} a wait", significant(events)));
        let source = trial.syscalls_source.split(':').next().unwrap_or_default();
        let source = if source == "tracepoints" { String::new() } else { format!(", {source}") };
        Some(ChartRow {
            figures: format!("{}{waits}{source}", significant(trial.syscalls_per_echo?)),
            label: arm,
            drawn: Drawn::Stack(parts),
        })
    };
    let group = |workload: &Workload| {
        let arms = run.matrix.arms();
        let rows: Vec<ChartRow> = arms.filter_map(|arm| row(workload, arm)).collect();
        (!rows.is_empty()).then(|| Group { heading: workload.name.clone(), rows, band: None })
    };
    let groups: Vec<(&Workload, Group)> = run
        .matrix
        .workloads
        .iter()
        .filter_map(|workload| Some((workload, group(workload)?)))
        .collect();
    let charts = pictures(
        run,
        "syscalls",
        "Which system calls does an echo take?",
        groups,
        |canvas, groups| {
            rows::draw(canvas, groups, "system calls per echo; one trial of each, counted", false);
            canvas.note("Beside the sum: events or completions that one wait brings.");
        },
    );
    let charts = charts.into_iter().map(|(mut canvas, workloads)| {
        say_missing(&mut canvas, run, Pass::Syscalls, &workloads);
        canvas.finish()
    });
    let charts: Vec<Chart> = charts.collect();
    if charts.is_empty() { Err(nothing_of(run, Pass::Syscalls)) } else { Ok(charts) }
}

/// The name of all objects without a colour.
const OTHERS: &str = "other kernel objects";

/// The colour of the server's own pages.
const OWN: Colour = Colour::Vermillion;

/// Bytes of a connection over two bare endpoints, object by object, in each state.
pub fn memory(run: &Run) -> Found {
    let usable: Vec<&MemoryRow> =
        run.memory.iter().filter(|row| row.status == Status::Ok && row.backend != FLOOR).collect();
    if usable.is_empty() {
        return Err(nothing_of(run, Pass::Memory));
    }
    let is_told =
        |row: &&MemoryRow| row.object == KERNEL_SUM && row.over_null_bytes_per_connection.is_some();
    if !usable.iter().any(is_told) {
        return Err(
            "of no server the kernel's objects are told from those of 'null'; the reasons stand \
                    under the table of memory"
                .to_owned(),
        );
    }
    let colours = colours(&usable);
    let states =
        [(NEVER_USED, "never used"), (USED_THEN_IDLE, "used, then idle"), (ACTIVE, "active")];
    let group = |(state, words): (&str, &str)| {
        let arms = run.matrix.arms();
        let of_arm = |arm: String| {
            let rows = usable.iter().copied().filter(|row| row.arm == arm && row.state == state);
            row(arm.clone(), &rows.collect::<Vec<_>>(), &colours)
        };
        let rows: Vec<ChartRow> = arms.filter_map(of_arm).collect();
        (!rows.is_empty()).then(|| Group { heading: words.to_owned(), rows, band: None })
    };
    let mut charts = Vec::new();
    let groups: Vec<Group> = states.into_iter().filter_map(group).collect();
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let title = "How much memory does a connection take over two bare ends of it?";
    let mut picture = |name: &str, title: &str, groups: &[Group]| {
        let mut canvas = Canvas::new(name, title);
        rows::draw(
            &mut canvas,
            groups,
            "bytes per connection: the slope over the number of connections",
            true,
        );
        canvas.note("With the 95 % intervals of the slopes. Own: the server's private pages.");
        say_missing(&mut canvas, run, Pass::Memory, &[]);
        say_flaws(&mut canvas, run);
        charts.push(canvas.finish());
    };
    if rows > super::kit::MOST_ROWS {
        for group in groups {
            let state = group.heading.replace(", ", "-").replace(' ', "-");
            picture(&format!("memory-{state}"), &format!("{title} {}", group.heading), &[group]);
        }
    } else if rows > 0 {
        picture("memory", title, &groups);
    }
    if charts.is_empty() { Err(nothing_of(run, Pass::Memory)) } else { Ok(charts) }
}

/// Whose slopes are not used, and why.
fn say_flaws(canvas: &mut Canvas, run: &Run) {
    for Flaw { arm, state, why } in &run.flaws {
        canvas.note(&format!("Missing: {arm} {state}: {why}."));
    }
}

fn is_object(row: &MemoryRow) -> bool {
    row.space == "kernel" && ![KERNEL_SUM, MACHINE_SUM].contains(&row.object.as_str())
}

/// Objects that have a colour; of two of one colour the larger.
fn colours(rows: &[&MemoryRow]) -> BTreeMap<String, Colour> {
    let sized = |row: &&&MemoryRow| {
        is_object(row) && row.over_null_bytes_per_connection >= Some(SHOWN_BYTES)
    };
    let mut largest: Vec<&MemoryRow> = rows.iter().filter(sized).copied().collect();
    largest.sort_by(|a, b| {
        let bytes = |row: &MemoryRow| row.over_null_bytes_per_connection.unwrap_or_default();
        bytes(b).total_cmp(&bytes(a)).then_with(|| a.object.cmp(&b.object))
    });
    let mut colours: BTreeMap<String, Colour> = BTreeMap::new();
    for row in largest {
        if let Some(colour) =
            of_object(&row.object).filter(|of| !colours.values().any(|taken| taken == of))
        {
            colours.insert(row.object.clone(), colour);
        }
    }
    colours
}

fn row(arm: String, rows: &[&MemoryRow], colours: &BTreeMap<String, Colour>) -> Option<ChartRow> {
    let sum = |object: &str| rows.iter().find(|row| row.object == object).copied();
    let kernel = sum(KERNEL_SUM)?;
    let kernel_bytes = kernel.over_null_bytes_per_connection?;
    let mut parts: Vec<StackPart> = Vec::new();
    for row in rows.iter().filter(|row| is_object(row)) {
        let (Some(bytes), Some(&colour)) =
            (row.over_null_bytes_per_connection, colours.get(&row.object))
        else {
            continue;
        };
        if bytes >= 0.5 {
            parts.push(StackPart { name: row.object.clone(), colour, size: bytes });
        }
    }
    // In the same order everywhere: that of the colours.
    parts.sort_by_key(|part| PALETTE.iter().position(|colour| *colour == part.colour));
    let others = kernel_bytes - parts.iter().map(|part| part.size).sum::<f64>();
    if others >= 0.5 {
        parts.push(StackPart { name: OTHERS.to_owned(), colour: Colour::Grey, size: others });
    }
    let own = sum(USER_SUM).and_then(|row| row.over_null_bytes_per_connection);
    if let Some(bytes) = own.filter(|bytes| *bytes >= 0.5) {
        parts.push(StackPart { name: "own".to_owned(), colour: OWN, size: bytes });
    }
    let bounds = |row: &MemoryRow| match (row.over_null_low, row.over_null_high) {
        (Some(low), Some(high)) => format!(" ({}–{})", integer(low), integer(high)),
        _ => String::new(),
    };
    let own_words = match (own, sum(USER_SUM)) {
        (Some(bytes), Some(row)) => format!(", own {}{}", integer(bytes), bounds(row)),
        _ => String::new(),
    };
    let figures = format!("kernel {}{}{own_words}", integer(kernel_bytes), bounds(kernel));
    Some(ChartRow { label: arm, figures, drawn: Drawn::Stack(parts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_one_colour_in_every_picture_and_no_two_share_it() {
        let row = |(object, bytes): (&str, f64)| MemoryRow {
            run_id: 1,
            state: NEVER_USED.to_owned(),
            space: "kernel".to_owned(),
            object: object.to_owned(),
            bytes_per_connection: bytes,
            over_null_bytes_per_connection: Some(bytes),
            status: Status::Ok,
            ..MemoryRow::default()
        };
        let coloured = |objects: &[(&str, f64)]| {
            let rows: Vec<MemoryRow> = objects.iter().copied().map(row).collect();
            colours(&rows.iter().collect::<Vec<_>>())
        };
        let quick = coloured(&[
            ("kmalloc-512", 512.0),
            ("eventpoll_epi", 128.0),
            ("eventpoll_pwq", 64.0),
            ("pid", 900.0),
        ]);
        let names: Vec<_> = quick.iter().map(|(name, colour)| (name.as_str(), *colour)).collect();
        let (epi, pwq) = (("eventpoll_epi", Colour::Purple), ("eventpoll_pwq", Colour::Sky));
        assert_eq!(names, [epi, pwq, ("kmalloc-512", Colour::Blue)]);
        let active = coloured(&[
            ("eventpoll_pwq", 64.0),
            ("skbuff_small_head", 576.0),
            ("eventpoll_pwq", 64.0),
            ("kmalloc-512", 8.0),
        ]);
        assert_eq!(active.get("skbuff_small_head"), Some(&Colour::Sky));
        assert_eq!(active.get("eventpoll_pwq"), None, "it is among the others there");
        assert_eq!(active.get("kmalloc-512"), Some(&Colour::Blue));
    }

    #[test]
    fn what_waits_and_what_moves_bytes_is_told_apart_by_colour() {
        let calls =
            ["epoll_wait", "recvfrom", "sendto", "io_uring_enter", "poll", "pselect6", "epoll_ctl"]
                .map(of_call);
        for (index, colour) in calls.iter().enumerate() {
            assert!(!calls[..index].contains(colour) && *colour != Colour::Grey, "{colour:?}");
        }
    }
}
