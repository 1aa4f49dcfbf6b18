//! The sections of a report.

use super::about::about;
use super::section::{Body, GATES_TITLE, Section};
use super::{grid, hardware, instructions, kernels, ladder, memory, scale, tables};
use crate::results::Run;

/// Returns every section, in the order of the terminal.
pub fn all(run: &Run, folder: &str) -> Vec<Section> {
    let sections: [(&str, &str, Body); 24] = [
        ("verdicts", "Verdicts", grid::tables(run)),
        ("run", "The run", about(run, folder)),
        ("questions", "What each workload answers", tables::questions(run)),
        ("syscalls", "System calls per echo, counted", tables::syscalls(run)),
        ("events", "io_uring events per echo, by tracepoints io_uring_*", tables::events(run)),
        (
            "hardware",
            "Instructions, cycles and misses per echo, by the CPUs' own counters",
            hardware::table(run),
        ),
        ("instructions", "Instructions per echo, counted", instructions::counts(run)),
        (
            "instructions-kernels",
            "Instructions per echo by kernel, and over the baseline",
            kernels::instructions(run),
        ),
        (
            "cpu",
            "Server CPU per echo, and against the baseline in the same block",
            tables::cpu(run),
        ),
        (
            "latency",
            "Closed loop: capacity, and latency at that capacity",
            tables::closed_loop(run),
        ),
        (
            "open-loop",
            "Open loop: latency at a given rate, from when a message was due",
            tables::open_loop(run),
        ),
        ("streams", "Streams: what goes one way, and what a MiB of it costs", tables::streams(run)),
        ("capacity", "Capacity at the latency objective", tables::capacity(run)),
        ("churn", "Connections that are replaced all the time", tables::churn(run)),
        (
            "fairness",
            "Fairness: echoes of each connection and worker over the mean, and Jain's index \
             (1: all equal)",
            tables::fairness(run),
        ),
        ("memory", "Bytes per idle connection over two bare TCP endpoints", memory::slopes(run)),
        (
            "memory-account",
            "Where the machine's pages went, in bytes per connection, both ends and the load's own",
            memory::account(run),
        ),
        (
            "memory-kernels",
            "Bytes per idle connection by kernel: all kernel objects over two bare TCP endpoints",
            kernels::memory(run),
        ),
        (
            "memory-fit",
            "What a server needs for its ends alone, in bytes per connection that was used and \
             rests",
            memory::fit(run),
        ),
        ("scale-opening", "Opening and closing ever more connections", scale::opening(run)),
        ("scale-loads", "One load beside ever more connections that are idle", scale::loads(run)),
        ("scale-crowd", "One load beside the largest crowd, over none", scale::crowd(run)),
        ("ladder", "What each rung changes, and what that does", ladder::tables(run, folder)),
        ("gates", GATES_TITLE, tables::gates(run)),
    ];
    sections.into_iter().map(|(name, title, body)| Section { name, title, body }).collect()
}
