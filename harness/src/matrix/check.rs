//! Whether what a matrix asks for can be run. Each limit of a load is checked when it is read.

use std::ops::RangeInclusive;

use anyhow::{Context, Error, Result, bail, ensure};
use ringmark::backend::{self, Knobs};

use super::external::{External, check_name};
use super::types::{Arm, Interleaved, Latency, Matrix, Memory, Scale, WORK, Workload};
use crate::load::result::{Arrival, Close};
use crate::machine::path::PathKind;

/// Worker threads and ports that a server may have.
const WORKERS: RangeInclusive<u16> = 1..=4096;

/// Bytes of the largest packet: those that IPv4 needs at least (RFC 791), and those that its header
/// can tell, with the header of loopback.
const MTU: RangeInclusive<u32> = 68..=65_536;

/// More than this fits into no machine's ports and memory that anyone would test with.
const MOST_CONNECTIONS: usize = 10_000_000;

impl Matrix {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<()> {
        self.check_externals()?;
        self.check_arms()?;
        ensure!(WORKERS.contains(&self.workers), "workers must be from 1 to 4096");
        if let Some(ports) = self.ports {
            ensure!(WORKERS.contains(&ports), "ports must be from 1 to 4096");
            ensure!(
                ports.is_multiple_of(self.workers) || self.backends.iter().all(Arm::shares_ports),
                "ports must be a multiple of workers: else some would have more than others; \
                 `set = [\"listeners=reuseport\"]` for all backends has each worker listen on each"
            );
        }
        self.check_passes()?;
        for (index, workload) in self.workloads.iter().enumerate() {
            let name = &workload.name;
            let check = || self.check_workload(workload);
            check().with_context(|| format!("workload '{name}'"))?;
            let twice = self.workloads[..index].iter().any(|other| other.name == *name);
            ensure!(!twice, "workload '{name}' stands twice");
        }
        Ok(())
    }

    fn check_externals(&self) -> Result<()> {
        let workers = self.workloads.iter().filter_map(|workload| workload.workers);
        let most = workers.chain([self.workers]).max().unwrap_or_default();
        for (index, external) in self.externals.iter().enumerate() {
            let name = &external.name;
            external.check().with_context(|| format!("external '{name}'"))?;
            let twice = self.externals[..index].iter().any(|other| other.name == *name);
            ensure!(!twice, "external '{name}' stands twice");
            ensure!(
                most == 1 || external.takes_workers(),
                "external '{name}': there is no {{workers}} in its command, but {most} are asked \
                 for"
            );
        }
        Ok(())
    }

    fn check_arms(&self) -> Result<()> {
        ensure!(!self.backends.is_empty(), "backends is empty: name at least one");
        let names: Vec<_> = self.backends.iter().map(Arm::name).collect();
        for (index, (arm, name)) in self.backends.iter().zip(&names).enumerate() {
            if let Some(External { name: external, .. }) = self.external(&arm.backend) {
                ensure!(
                    arm.set.is_empty(),
                    "'{name}': external '{external}' has no knobs; leave `set` out"
                );
            } else {
                let entry = backend::find(&arm.backend).map_err(Error::msg)?;
                Knobs::parse(entry, &arm.set).map_err(Error::msg)?;
                ensure!(
                    entry.echoes,
                    "{} does not echo; memory passes measure it by themselves",
                    entry.name
                );
            }
            ensure!(
                !names[..index].contains(name),
                "backend '{name}' stands twice; another `set` would make it another arm"
            );
            let Some(over) = &arm.over else { continue };
            ensure!(name != over, "'{name}' is over itself");
            ensure!(
                names.contains(over),
                "'{name}' is over '{over}', which is not among the backends; there are: {}",
                names.join(", ")
            );
        }
        ensure!(
            names.contains(&self.baseline),
            "baseline '{}' is not among the backends; there are: {}",
            self.baseline,
            names.join(", ")
        );
        Ok(())
    }

    fn check_passes(&self) -> Result<()> {
        let Self { latency, syscalls, hardware, instructions, memory, scale, workloads, .. } = self;
        if let Some(latency) = latency {
            latency.check()?;
        }
        if let Some(syscalls) = syscalls {
            ensure!(syscalls.echoes > 0, "syscalls.echoes is 0: nothing would be counted");
        }
        if let Some(memory) = memory {
            memory.check()?;
        }
        if let Some(scale) = scale {
            scale.check()?;
        }
        if let Some(hardware) = hardware {
            ensure!(hardware.echoes > 0, "hardware.echoes is 0: nothing would be counted");
        }
        if let Some(instructions) = instructions {
            ensure!(instructions.echoes > 0, "instructions.echoes is 0: nothing would be counted");
            ensure!(instructions.seeds > 0, "instructions.seeds is 0: nothing would be counted");
            ensure!(instructions.boots > 0, "instructions.boots is 0: nothing would be counted");
        }
        let counts = syscalls.is_some() || hardware.is_some() || instructions.is_some();
        let needs_workloads = latency.is_some() || counts;
        ensure!(
            needs_workloads || memory.is_some() || scale.is_some(),
            "no pass: give [latency], [syscalls], [hardware], [instructions], [memory] or [scale]"
        );
        ensure!(
            !needs_workloads || !workloads.is_empty(),
            "no [[workload]] for the passes that need one"
        );
        Ok(())
    }

    fn check_workload(&self, workload: &Workload) -> Result<()> {
        check_name(&workload.name)?;
        ensure!(
            (1..=MOST_CONNECTIONS).contains(&workload.connections),
            "connections must be from 1 to {MOST_CONNECTIONS}"
        );
        ensure!(
            workload.idle_connections <= MOST_CONNECTIONS,
            "idle_connections must be at most {MOST_CONNECTIONS}"
        );
        for (key, is_given) in [
            ("idle_connections", workload.idle_connections > 0),
            ("idle_spinner", workload.idle_spinner),
            ("sweep", !workload.sweep.is_empty()),
        ] {
            ensure!(
                !is_given || self.latency.is_some(),
                "{key} is for the pass [latency], which is not asked for"
            );
        }
        ensure!(
            workload.workers.is_none_or(|workers| WORKERS.contains(&workers)),
            "workers must be from 1 to 4096"
        );
        workload.check_loop()?;
        self.check_path(workload)?;
        self.check_service(workload)?;
        self.check_work(workload)
    }

    /// Refuses a path that an arm cannot be on, and names that are none.
    fn check_path(&self, workload: &Workload) -> Result<()> {
        if let Some(name) = &workload.congestion {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            ensure!(
                !name.is_empty() && name.bytes().all(is_name),
                "congestion \"{name}\" is no name; give one such as cubic, reno or bbr"
            );
        }
        ensure!(
            workload.mtu.is_none_or(|bytes| MTU.contains(&bytes)),
            "mtu must be from {} to {} bytes",
            MTU.start(),
            MTU.end()
        );
        if workload.path == PathKind::Unix {
            self.check_unix(workload)?;
        }
        let is_elsewhere = workload.path != PathKind::Loopback;
        if let Some(external) = self.externals.first().filter(|_| is_elsewhere) {
            bail!(
                "external '{}' listens on 127.0.0.1, and path \"{}\" has another address; leave \
                 one of them out",
                external.name,
                workload.path.name()
            );
        }
        Ok(())
    }

    /// Refuses what a Unix socket has not.
    fn check_unix(&self, workload: &Workload) -> Result<()> {
        let workers = workload.workers.unwrap_or(self.workers);
        for (key, is_given, why) in [
            ("mtu", workload.mtu.is_some(), "it has no packets"),
            ("congestion", workload.congestion.is_some(), "it has no network"),
            ("close = \"reset\"", workload.close == Some(Close::Reset), "it has no resets"),
            ("workers", workers > 1, "each worker listens by itself, and its path is one"),
            ("ports", self.ports.is_some_and(|ports| ports > 1), "it has no ports"),
            ("listeners", self.backends.iter().any(Arm::shares_ports), "it has no ports"),
        ] {
            ensure!(!is_given, "path \"unix\" has no use for {key}: {why}");
        }
        Ok(())
    }

    /// Refuses sizes that make no sense, and a service that some arm does not offer.
    fn check_service(&self, workload: &Workload) -> Result<()> {
        // The matrix names the same things as the options, without their dashes.
        let message = workload.message().map_err(|error| {
            Error::msg(error.to_string().replace("--", "").replace("-bytes", "_bytes"))
        })?;
        let service = workload.service;
        let is_open = workload.rate_per_s.is_some() || !workload.sweep.is_empty();
        for (key, is_given, is_refused, why) in [
            (
                "pipeline",
                workload.pipeline.get() > 1,
                !message.is_answered(),
                "it waits for nothing",
            ),
            ("churn", workload.churn.is_some(), !message.is_answered(), "its connections stay"),
            ("an open loop", is_open, message.is_source(), "the server decides when it sends"),
        ] {
            ensure!(!(is_given && is_refused), "the service {service} has no use for {key}: {why}");
        }
        if let Some(external) = self.externals.first().filter(|_| !message.is_echo()) {
            bail!(
                "external '{}' is an echo server, and the service is {service}; leave one of them \
                 out",
                external.name
            );
        }
        Ok(())
    }

    /// Refuses work that some arm does not take, or that is set twice.
    fn check_work(&self, workload: &Workload) -> Result<()> {
        for arm in self.backends.iter().filter(|_| workload.work_ns.is_some()) {
            let name = arm.name();
            ensure!(
                self.external(&arm.backend).is_none(),
                "{WORK} is a knob of our servers, and external '{name}' would do no such work"
            );
            let mut keys = arm.set.iter().map(|setting| setting.split('=').next());
            ensure!(
                !keys.any(|key| key == Some(WORK)),
                "{WORK} is set by it and by '{name}'; one must do"
            );
            let entry = backend::find(&arm.backend).map_err(Error::msg)?;
            Knobs::parse(entry, &workload.settings(arm)).map_err(Error::msg)?;
        }
        Ok(())
    }
}

impl Workload {
    /// Refuses what contradicts a closed or an open loop.
    fn check_loop(&self) -> Result<()> {
        let is_open = self.rate_per_s.is_some() || !self.sweep.is_empty();
        ensure!(
            self.sweep.is_empty() || self.rate_per_s.is_none(),
            "sweep finds its rates itself; leave rate_per_s out"
        );
        ensure!(
            self.sweep.iter().all(|share| (0.001..=10.0).contains(share))
                && self.sweep.is_sorted_by(|a, b| a < b),
            "sweep must rise, from 0.001 to 10 times the capacity"
        );
        ensure!(self.sweep_of.is_none(), "sweep_of is written by a run, not given");
        ensure!(self.pipeline.get() == 1 || !is_open, "an open loop has no pipeline; leave it out");
        ensure!(
            self.arrival.is_none() || is_open,
            "arrival is for an open loop; give rate_per_s or sweep too"
        );
        ensure!(
            self.arrival != Some(Arrival::Closed),
            "arrival 'closed' is what a workload without rate_per_s or sweep has"
        );
        ensure!(
            self.close.is_none() || self.churn.is_some(),
            "close is how churn ends a connection; give churn too"
        );
        if self.churn.is_some() {
            ensure!(
                self.idle_connections == 0,
                "with churn the server's connections are counted one by one; leave \
                 idle_connections out"
            );
            ensure!(
                self.rate_per_s.is_none(),
                "churn is for a closed loop, and rate_per_s makes an open one"
            );
        }
        Ok(())
    }
}

impl Latency {
    fn check(&self) -> Result<()> {
        ensure!((1..=1000).contains(&self.blocks), "latency.blocks must be from 1 to 1000");
        if let Some(Interleaved { sets, set, window, .. }) = &self.interleaved {
            ensure!((1..=1000).contains(sets), "latency.interleaved.sets must be from 1 to 1000");
            ensure!(
                window.get() <= set.get() / 2,
                "latency.interleaved.window must fit into `set` for every arm, several times"
            );
        }
        for (key, value) in [
            ("precision_percent", self.precision_percent),
            ("objective_p99_us", self.objective_p99_us),
        ] {
            ensure!(value.is_none_or(|value| value > 0.0), "latency.{key} must be above 0");
        }
        Ok(())
    }
}

impl Memory {
    fn check(&self) -> Result<()> {
        for (key, counts) in [("connections", &self.connections), ("active", &self.active)] {
            let may_be_left_out = key == "active" && counts.is_empty();
            ensure!(
                counts.len() >= 2 || may_be_left_out,
                "memory.{key} needs two counts or more: a slope needs two points"
            );
            check_counts(&format!("memory.{key}"), counts)?;
        }
        Ok(())
    }
}

impl Scale {
    fn check(&self) -> Result<()> {
        let Some(&least) = self.connections.first() else {
            bail!("scale.connections is empty: give at least one count")
        };
        check_counts("scale.connections", &self.connections)?;
        ensure!(
            (1..=least).contains(&self.active),
            "scale.active must be from 1 to the smallest of scale.connections, {least}"
        );
        ensure!(
            self.active_shares.iter().all(|share| (0.0..=1.0).contains(share))
                && self.active_shares.is_sorted_by(|a, b| a < b),
            "scale.active_shares must rise, from 0 to 1"
        );
        ensure!((1..=100).contains(&self.repeats), "scale.repeats must be from 1 to 100");
        Ok(())
    }
}

fn check_counts(key: &str, counts: &[usize]) -> Result<()> {
    let rises = counts.first().is_none_or(|&first| first > 0) && counts.is_sorted_by(|a, b| a < b);
    ensure!(rises, "{key} must rise, from 1 on");
    ensure!(
        counts.last().is_none_or(|&most| most <= MOST_CONNECTIONS),
        "{key} must be at most {MOST_CONNECTIONS}"
    );
    Ok(())
}
