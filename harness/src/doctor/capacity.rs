//! Judges what limits the number of connections.

use ringmark::backend;

use super::findings::Findings;
use super::kernel::LESS_SECCOMP;
use super::lines::{CheckResult, limits, ok, ok_if, unknown};
use super::locked;
use crate::matrix::connection_limits::{
    PORTS_A_SOURCE, PORTS_WANTED, SOURCES, bytes_per_connection, connections_per_port,
    connections_per_thread,
};
use crate::text::{grouped, significant};

const CONNECTIONS_UNKNOWN: &str = "the possible number of connections is not known";

/// The open files that the matrices shipped with ringmark need (README.md).
const OPEN_FILES_WANTED: u64 = 20_000;

pub fn open_files(findings: &Findings) -> CheckResult {
    let Some(hard) = findings.machine.open_files_hard else {
        return unknown("RLIMIT_NOFILE", CONNECTIONS_UNKNOWN);
    };
    let each = grouped(connections_per_thread(hard));
    let raised = match findings.machine.open_files_soft {
        Some(soft) if soft < hard => format!(" (soft {} is raised)", grouped(soft)),
        _ => String::new(),
    };
    let found = format!("{}{raised}", grouped(hard));
    if let Some(why) = &findings.file_table_refused {
        return limits(
            format!("{found}, which the threads of a process share: unshare(CLONE_FILES): {why}"),
            format!("{each} connections in all, whatever `workers` says"),
            LESS_SECCOMP,
        );
    }
    if hard < OPEN_FILES_WANTED {
        return limits(
            found,
            format!("{each} connections for each thread of server and load"),
            "`ulimit -Hn 1048576` as root, `docker run --ulimit nofile=1048576`, or more workers",
        );
    }
    ok(format!("{found}: {each} connections x threads"))
}

/// The workers that the largest of the shipped matrices give a server of many connections.
const WORKERS_WANTED: u64 = 100;

pub fn locked_memory(findings: &Findings) -> CheckResult {
    let Some(limit) = findings.locked_memory_bytes else {
        return ok("does not limit rings");
    };
    let each = locked::most_bytes();
    let workers = limit / each;
    let found = format!(
        "{} KiB for all rings of this user: {} workers of {} KiB",
        grouped(limit >> 10),
        grouped(workers),
        grouped(each >> 10)
    );
    ok_if(
        workers >= WORKERS_WANTED,
        found,
        "with more workers or larger queues an io_uring backend is `unsupported`",
        "`ulimit -l unlimited` as root, LimitMEMLOCK= of systemd, `docker run --ulimit memlock=-1`",
    )
}

pub fn ports(findings: &Findings) -> CheckResult {
    let Some((first, last)) = findings.ports.filter(|(first, last)| first <= last) else {
        return unknown("/proc/sys/net/ipv4/ip_local_port_range", CONNECTIONS_UNKNOWN);
    };
    let ports = last - first + 1;
    let found = format!(
        "{} x {SOURCES} source addresses: {} connections x workers",
        grouped(ports),
        grouped(connections_per_port(ports))
    );
    ok_if(
        ports >= PORTS_WANTED,
        found,
        format!(
            "the load opens up to {} connections from each address: slowly if few ports are free, \
             and not at all if none is",
            grouped(PORTS_A_SOURCE)
        ),
        "`sysctl -w net.ipv4.ip_local_port_range='32768 60999'`, where trials run",
    )
}

/// The connections below which the shipped matrices have little memory to spare.
const CONNECTIONS_WANTED: u64 = 20_000;

pub fn memory(findings: &Findings) -> CheckResult {
    let Some(bytes) = findings.memory_bytes() else {
        return unknown("/proc/meminfo", CONNECTIONS_UNKNOWN);
    };
    let tables = backend::ALL.iter().map(|entry| entry.table_bytes_per_connection as u64);
    let each = bytes_per_connection(tables.max().unwrap_or(0));
    let fit = bytes / each;
    let source = if findings.memory_bound_bytes == Some(bytes) {
        "allowed by the control group"
    } else {
        "available"
    };
    let found = format!(
        "{} GiB {source}: {} connections of {} B",
        significant(bytes as f64 / f64::from(1 << 30)),
        significant((fit / 1000 * 1000) as f64),
        grouped(each)
    );
    ok_if(
        fit >= CONNECTIONS_WANTED,
        found,
        "with more connections the kernel kills the server or the load",
        "give it more memory, or keep connection counts below that",
    )
}

pub fn accept_queue(findings: &Findings) -> CheckResult {
    let backlog = u64::from(ringmark::listener::BACKLOG.unsigned_abs());
    let Some(most) = findings.somaxconn else {
        return unknown(
            "/proc/sys/net/core/somaxconn",
            "the number of connections that may wait to be accepted is not known",
        );
    };
    if most >= backlog {
        return ok(format!("somaxconn {}; servers ask for {}", grouped(most), grouped(backlog)));
    }
    limits(
        format!("somaxconn {}, below the {} that servers ask for", grouped(most), grouped(backlog)),
        "when many connect at once, some are dropped and the trial is rejected",
        match findings.namespace_refused {
            Some(_) => format!("`sysctl -w net.core.somaxconn={backlog}`"),
            None => "boot Linux 5.4 or newer, which gives new namespaces 4096".to_owned(),
        },
    )
}
