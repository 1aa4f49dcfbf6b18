//! Deals the CPUs to the server and the client.

use std::path::Path;

use anyhow::{Context, Result};
use itertools::Itertools;
use ringmark::cpus::CpuList;

use crate::machine::placement::Placement;
use crate::machine::topology::{SYS, Topology};
use crate::results::sides::{Side, Sides};

/// Deals the CPUs that this process may use, or those that a side's command leaves it: one of each
/// core, or with `hyperthreads` all of them.
pub fn deal(workers: u16, hyperthreads: bool, sides: Option<&Sides>) -> Result<Placement> {
    let allowed = CpuList::allowed().context("CPUs that this process may use")?;
    let topology = Topology::read(Path::new(SYS), allowed.cpus());
    Ok(out_of(&allowed, &topology, workers, hyperthreads, sides))
}

/// Deals one CPU to each worker, but half of them at most; the rest to the client. A side on
/// another machine is not pinned, nor is one whose CPUs are not known.
fn out_of(
    allowed: &CpuList,
    topology: &Topology,
    workers: u16,
    hyperthreads: bool,
    sides: Option<&Sides>,
) -> Placement {
    let server_has = SideCpus::of(sides.map(|sides| &sides.server), allowed, topology);
    let loads: Vec<SideCpus> = match sides {
        Some(sides) => {
            sides.loads().map(|load| SideCpus::of(Some(load), allowed, topology)).collect()
        }
        None => vec![SideCpus::of(None, allowed, topology)],
    };
    let client_has = SideCpus::together(&loads);
    let one_machine = sides.is_none_or(|sides| sides.one_machine);
    let (server, client) = divide(workers, &server_has, &client_has, one_machine, hyperthreads);
    // A side that is not pinned may run on all that it has.
    let at_server = if server_has.is_here { &server } else { &server_has.cpus };
    let at_client = if client_has.is_here { &client } else { &client_has.cpus };
    let are_apart = !at_client.is_empty() && !at_server.iter().any(|cpu| at_client.contains(cpu));
    let pinned_server = if server_has.is_here { &server[..] } else { &[] };
    let pinned_client = if client_has.is_here { &client[..] } else { &[] };
    let (at, there) = (&server_has.topology, &client_has.topology);
    let shared_cores = [
        at.share_a_core(pinned_server, pinned_server),
        there.share_a_core(pinned_client, pinned_client),
        if one_machine { at.share_a_core(at_server, at_client) } else { Some(false) },
    ];
    let of_loads = deal_to_loads(pinned_client, &loads);
    let loads_share_cpu = of_loads.share || sides.is_some_and(share_elsewhere);
    let is_spread = one_machine && server_has.is_here && client_has.is_here;
    Placement {
        server: pinned_server.iter().join(","),
        client: pinned_client.iter().join(","),
        client_threads: of_loads.threads(&client, &loads),
        loads: of_loads.lists.iter().map(|cpus| cpus.iter().join(",")).collect(),
        loads_share_cpu,
        shared_cpu: loads_share_cpu
            || at_server.len() < usize::from(workers)
            || one_machine && !are_apart,
        shared_core: any(&shared_cores),
        packages: at.packages_of(&[pinned_server, pinned_client].concat()).filter(|_| is_spread),
        server_cpus_elsewhere: Some(server_has.cpus.len())
            .filter(|&cpus| !server_has.is_here && cpus > 0),
    }
}

/// The CPUs that a side may use.
struct SideCpus {
    cpus: Vec<usize>,
    topology: Topology,
    is_here: bool,
}

impl SideCpus {
    /// Returns those of a side, or all if the run has no command for a side.
    fn of(side: Option<&Side>, allowed: &CpuList, topology: &Topology) -> Self {
        let Some(side) = side else {
            return Self {
                cpus: allowed.cpus().to_vec(),
                topology: topology.clone(),
                is_here: true,
            };
        };
        let cpus = side.cpus.as_ref().map_or_else(Vec::new, |cpus| cpus.cpus().to_vec());
        Self { cpus, topology: side.topology(), is_here: side.is_here }
    }

    /// Returns what several loads have together, as far as they are on one machine.
    fn together(loads: &[Self]) -> Self {
        let mut cpus: Vec<usize> = loads.iter().flat_map(|load| &load.cpus).copied().collect();
        cpus.sort_unstable();
        cpus.dedup();
        let topology = loads.first().map_or_else(Topology::default, |load| load.topology.clone());
        Self { cpus, topology, is_here: loads.iter().all(|load| load.is_here) }
    }

    /// Returns one CPU of each core that has none of `taken`, in the order of their nearness. If
    /// there is no such core, it returns the other CPUs of cores that have; if there is none, all.
    fn without(&self, taken: &[usize], hyperthreads: bool) -> Vec<usize> {
        let mut left = self.topology.nearest(&self.cpus);
        if left.iter().any(|cpu| !taken.contains(cpu)) {
            left.retain(|cpu| !taken.contains(cpu));
        }
        if hyperthreads {
            return left;
        }
        let is_near = |cpu: usize| taken.iter().any(|&taken| self.topology.is_one_core(taken, cpu));
        if left.iter().any(|&cpu| !is_near(cpu)) {
            left.retain(|&cpu| !is_near(cpu));
        }
        self.topology.one_of_each_core(&left)
    }
}

/// The CPUs of each of several loads.
struct OfLoads {
    /// None if there is one load, or they are not pinned from here.
    lists: Vec<Vec<usize>>,
    /// Whether there are too few for one each.
    share: bool,
}

impl OfLoads {
    /// Returns how many threads each load gets: as many as the one with the fewest CPUs has, since
    /// all have equally many.
    fn threads(&self, client: &[usize], loads: &[SideCpus]) -> usize {
        let threads = match (self.lists.is_empty(), loads) {
            (false, _) => self.lists.iter().map(Vec::len).min(),
            (true, [_]) => Some(client.len()),
            (true, loads) => loads.iter().map(|load| load.without(&[], false).len()).min(),
        };
        threads.unwrap_or(1).max(1)
    }
}

/// Deals the client's CPUs to several loads, each out of those that it may use: to the one that has
/// the fewest so far. If one gets none, each gets all that it may use.
fn deal_to_loads(client: &[usize], loads: &[SideCpus]) -> OfLoads {
    if loads.len() < 2 || client.is_empty() {
        return OfLoads { lists: Vec::new(), share: false };
    }
    let mut lists = vec![Vec::new(); loads.len()];
    for cpu in client {
        let may = (0..loads.len()).filter(|&index| loads[index].cpus.contains(cpu));
        if let Some(index) = may.min_by_key(|&index| lists[index].len()) {
            lists[index].push(*cpu);
        }
    }
    let share = lists.iter().any(Vec::is_empty);
    if share {
        let all_of = |load: &SideCpus| {
            client.iter().copied().filter(|cpu| load.cpus.contains(cpu)).collect()
        };
        lists = loads.iter().map(all_of).collect();
    }
    OfLoads { lists, share }
}

/// Returns whether two loads that are not pinned from here are on one machine, and may run on the
/// same CPU.
fn share_elsewhere(sides: &Sides) -> bool {
    let meet = |(one, other): (&Side, &Side)| {
        let both = one.cpus.as_ref().zip(other.cpus.as_ref());
        one.whereabouts.is_on_machine_of(&other.whereabouts)
            && both
                .is_none_or(|(one, other)| one.cpus().iter().any(|cpu| other.cpus().contains(cpu)))
    };
    !sides.are_loads_here()
        && sides.loads().collect_vec().into_iter().tuple_combinations().any(meet)
}

/// Returns whether any of them is true; none if none is known to be, and some are not known.
fn any(parts: &[Option<bool>]) -> Option<bool> {
    if parts.contains(&Some(true)) {
        return Some(true);
    }
    (!parts.contains(&None)).then_some(false)
}

/// Returns the CPUs of the server and of the client, each out of those that it may use.
fn divide(
    workers: u16,
    server: &SideCpus,
    client: &SideCpus,
    one_machine: bool,
    hyperthreads: bool,
) -> (Vec<usize>, Vec<usize>) {
    let workers = usize::from(workers);
    let others = if one_machine && server.cpus != client.cpus { &client.cpus[..] } else { &[] };
    let mut for_server = server.without(others, hyperthreads);
    let most = if one_machine && server.cpus == client.cpus {
        workers.min((for_server.len() / 2).max(1))
    } else {
        workers
    };
    for_server.truncate(most);
    let taken = if one_machine { &for_server[..] } else { &[] };
    let for_client = client.without(taken, hyperthreads);
    (for_server, for_client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::topology::tests::{two_packages, with_offline};

    #[test]
    fn cpus_are_dealt_out_of_those_that_each_side_may_use() {
        for (workers, server, client, one_machine, of_server, of_client) in [
            (1, &[0, 1][..], &[0, 1][..], true, &[0][..], &[1][..]),
            (2, &[0, 1], &[0, 1], true, &[0], &[1]),
            (3, &[0, 1, 2, 5], &[0, 1, 2, 5], true, &[0, 1], &[2, 5]),
            (1, &[3], &[3], true, &[3], &[3]),
            // `taskset` on one side, and on both.
            (1, &[1], &[0, 1], true, &[1], &[0]),
            (1, &[0, 1], &[0], true, &[1], &[0]),
            (2, &[0, 1], &[0, 1, 2], true, &[0, 1], &[2]),
            (1, &[0, 1], &[2, 3], true, &[0], &[2, 3]),
            (2, &[0, 1, 2], &[0, 1], false, &[0, 1], &[0, 1]),
        ] {
            let expected = (of_server.to_vec(), of_client.to_vec());
            let has = |cpus: &[usize]| SideCpus {
                cpus: cpus.to_vec(),
                topology: Topology::default(),
                is_here: true,
            };
            let dealt = divide(workers, &has(server), &has(client), one_machine, false);
            assert_eq!(dealt, expected, "{server:?} {client:?}");
        }
    }

    #[test]
    fn a_cpu_is_free_that_neither_side_has() {
        let placement = Placement {
            server: "0,1".to_owned(),
            client: "2".to_owned(),
            client_threads: 1,
            shared_core: Some(false),
            packages: Some(1),
            ..Placement::default()
        };
        let free = |cpus: &[usize]| placement.free_of(&cpus.iter().copied().collect());
        assert_eq!((free(&[0]), free(&[0, 2]), free(&[3]), free(&[0, 3, 4])), (0, 0, 1, 2));
        assert_eq!(placement.cpus().expect("a list").cpus(), [0, 1, 2]);
        // One that is not pinned may run on any.
        let unpinned = Placement { server: String::new(), ..placement };
        assert_eq!(unpinned.cpus().expect("a list"), CpuList::allowed().expect("a list"));
    }

    fn list(text: &str) -> CpuList {
        text.parse().expect("a list")
    }

    /// Out of these CPUs, of which nothing more is known.
    fn out_of(cpus: &str, workers: u16, sides: Option<&Sides>) -> Placement {
        super::out_of(&list(cpus), &Topology::default(), workers, false, sides)
    }

    /// Sides that may use these CPUs, if they tell.
    fn sides(one_machine: bool, server: (bool, Option<&str>), load: (bool, Option<&str>)) -> Sides {
        let side = |(is_here, cpus): (bool, Option<&str>)| Side {
            is_here,
            cpus: cpus.map(list),
            ..Side::default()
        };
        Sides {
            server_address: std::net::Ipv4Addr::LOCALHOST.into(),
            over_loopback: one_machine,
            one_machine,
            has_remote_bin: false,
            server: side(server),
            load: side(load),
            other_loads: Vec::new(),
        }
    }

    #[test]
    fn several_loads_get_cpus_of_their_own_as_far_as_there_are_some() {
        const HERE: bool = true;
        let deal = |cpus: &str, loads: &[(bool, Option<&str>)]| {
            let mut all = sides(true, (HERE, Some(cpus)), loads[0]);
            let other = |&(is_here, cpus): &(bool, Option<&str>)| Side {
                is_here,
                cpus: cpus.map(list),
                ..Side::default()
            };
            all.other_loads = loads[1..].iter().map(other).collect();
            out_of(cpus, 1, Some(&all))
        };
        // The server has CPU 0, and each load as many of the others as the next.
        let dealt = deal("0-6", &[(HERE, Some("0-6")); 3]);
        assert_eq!((&*dealt.server, dealt.client_threads), ("0", 2));
        assert_eq!(dealt.loads, ["1,4", "2,5", "3,6"]);
        assert!(!dealt.shared_cpu && !dealt.loads_share_cpu && dealt.is_client_apart());
        // A load whose command leaves it one CPU has that one, and all have as many threads.
        let dealt = deal("0-3", &[(HERE, Some("0-3")), (HERE, Some("3"))]);
        assert_eq!((&dealt.loads[1][..], dealt.client_threads), ("3", 1));
        assert!(!dealt.loads_share_cpu);
        // Too few.
        let dealt = deal("0,1", &[(HERE, Some("0,1")); 2]);
        assert_eq!((&*dealt.server, dealt.loads), ("0", vec!["1".to_owned(); 2]));
        assert!(dealt.shared_cpu && dealt.loads_share_cpu && dealt.client_threads == 1);
        // Elsewhere nothing is pinned from here.
        let dealt = deal("0-3", &[(false, Some("0-3")); 2]);
        assert!(dealt.loads.is_empty() && dealt.client.is_empty());
    }

    #[test]
    fn two_sides_share_a_cpu_unless_they_are_known_to_be_kept_apart() {
        const HERE: bool = true;
        const ELSEWHERE: bool = false;
        let deal = |workers, sides: &Sides| {
            let placement = out_of("0-3", workers, Some(sides));
            (
                placement.server.clone(),
                placement.client.clone(),
                placement.client_threads,
                placement.shared_cpu,
            )
        };
        let dealt = |server: &str, client: &str, threads, shared| {
            (server.to_owned(), client.to_owned(), threads, shared)
        };
        for (workers, one_machine, server, load, expected) in [
            // `taskset` on one of them, and on both.
            (1, true, (HERE, Some("3")), (HERE, Some("0-3")), dealt("3", "0,1,2", 3, false)),
            (1, true, (HERE, Some("3")), (HERE, Some("3")), dealt("3", "3", 1, true)),
            (2, true, (HERE, Some("3")), (HERE, Some("1")), dealt("3", "1", 1, true)),
            // Both on another machine: nothing but their commands keeps them apart.
            (1, true, (ELSEWHERE, Some("0-3")), (ELSEWHERE, Some("0-3")), dealt("", "", 3, true)),
            (1, true, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("1-3")), dealt("", "", 3, true)),
            (2, true, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("2-3")), dealt("", "", 2, false)),
            (3, true, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("2-3")), dealt("", "", 2, true)),
            (2, false, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("0-1")), dealt("", "", 2, false)),
            (
                2,
                false,
                (ELSEWHERE, Some("0-1")),
                (HERE, Some("0-3")),
                dealt("", "0,1,2,3", 4, false),
            ),
            // The other side's CPUs are unknown.
            (1, false, (ELSEWHERE, None), (HERE, Some("0-3")), dealt("", "0,1,2,3", 4, true)),
            (1, false, (HERE, Some("0-3")), (ELSEWHERE, None), dealt("0", "", 1, false)),
            (1, true, (ELSEWHERE, Some("0-3")), (ELSEWHERE, None), dealt("", "", 1, true)),
            (1, true, (ELSEWHERE, None), (ELSEWHERE, Some("7")), dealt("", "", 1, true)),
            (1, true, (HERE, None), (HERE, None), dealt("", "", 1, true)),
        ] {
            let sides = sides(one_machine, server, load);
            assert_eq!(
                deal(workers, &sides),
                expected,
                "{workers} {one_machine} {server:?} {load:?}"
            );
        }
        let elsewhere = |server| {
            let sides = sides(false, (ELSEWHERE, server), (HERE, Some("0-3")));
            out_of("0-3", 1, Some(&sides)).server_cpus()
        };
        assert_eq!((elsewhere(Some("0-7")), elsewhere(None)), (Some(8), None));
    }

    #[test]
    fn without_a_command_the_allowed_cpus_are_dealt() {
        let placement = out_of("4-7", 2, None);
        assert_eq!(
            (&*placement.server, &*placement.client, placement.shared_cpu),
            ("4,5", "6,7", false)
        );
        assert_eq!(placement.server_cpus_elsewhere, None);
        assert!(!placement.is_one_cpu() && placement.is_client_apart());
        // Three workers on one CPU, beside a client on another.
        let crowded = out_of("0-1", 3, None);
        assert!(crowded.shared_cpu && crowded.is_client_apart());
    }

    #[test]
    fn one_cpu_of_many_may_be_that_of_both() {
        for sides in [None, Some(sides(true, (true, Some("3")), (true, Some("3"))))] {
            let allowed = if sides.is_none() { "3" } else { "0-3" };
            let placement = out_of(allowed, 1, sides.as_ref());
            assert!(placement.is_one_cpu() && placement.shared_cpu, "{placement:?}");
            assert!(!placement.is_client_apart());
            assert_eq!(placement.cpus().expect("a list"), list("3"));
            assert_eq!(placement.free_of(&[3].into()), 0);
        }
        let apart = out_of("0-3", 1, Some(&sides(true, (true, Some("3")), (true, Some("1")))));
        assert!(!apart.is_one_cpu() && !apart.shared_cpu);
        assert_eq!(apart.cpus().expect("a list"), list("1,3"));
    }

    /// Two packages of 16 cores each, with two hyperthreads a core.
    fn large() -> Topology {
        two_packages().read("0-63")
    }

    fn dealt(cpus: &str, topology: &Topology, workers: u16, hyperthreads: bool) -> Placement {
        super::out_of(&list(cpus), topology, workers, hyperthreads, None)
    }

    #[test]
    fn the_hyperthreads_beside_server_and_client_stay_empty() {
        let one = dealt("0-63", &large(), 1, false);
        assert_eq!((&*one.server, one.client_threads), ("0", 31));
        assert_eq!((one.shared_cpu, one.shared_core, one.packages), (false, Some(false), Some(2)));
        // The server's workers in one package, and of the client as many as fit beside them.
        let four = dealt("0-63", &large(), 4, false);
        assert_eq!(four.server, "0,2,4,6");
        assert!(four.client.starts_with("8,10,") && four.client.ends_with(",29,31"), "{four:?}");
        assert_eq!(list(&four.client).cpus().iter().filter(|&&cpu| cpu >= 32).count(), 0);
        // A cpuset, with holes in it: the siblings of 3 are whole, of 4 and 40 is one each.
        let some = dealt("3,4,35,40", &large(), 1, false);
        assert_eq!((&*some.server, &*some.client, some.shared_core), ("4", "40,3", Some(false)));
        // All in one package.
        assert_eq!(dealt("0,2,32,34", &large(), 1, false).packages, Some(1));
    }

    #[test]
    fn machines_of_all_sizes_keep_each_worker_and_the_client_on_cores_of_their_own() {
        for (cpus, offline) in [
            (8, &[][..]),
            (8, &[1, 6]),
            (64, &[]),
            (64, &[0, 3, 33, 63]),
            (256, &[]),
            (256, &[2, 130, 131, 200, 255]),
        ] {
            let online = (0..cpus).filter(|cpu| !offline.contains(cpu)).join(",");
            let topology = with_offline(cpus, offline).read(&online);
            for workers in [1, 2, 4, 8] {
                let placement = dealt(&online, &topology, workers, false);
                let (server, client) = (list(&placement.server), list(&placement.client));
                let what = format!("{workers} workers on {cpus} CPUs without {offline:?}");
                let (server, client) = (server.cpus(), client.cpus());
                let all = [server, client].concat();
                assert!(all.iter().all(|cpu| !offline.contains(cpu)), "{what}: {placement:?}");
                assert_eq!(
                    topology.one_of_each_core(&all).len(),
                    all.len(),
                    "{what}: {placement:?}"
                );
                assert_eq!(placement.shared_core, Some(false), "{what}");
                let cores = topology.cores.as_ref().map_or(0, Vec::len);
                assert_eq!(server.len(), usize::from(workers).min(cores / 2), "{what}");
                assert_eq!(server.len() + client.len(), cores, "{what}");
                if server.len() < cores / 4 {
                    assert_eq!(topology.packages_of(server), Some(1), "{what}: {server:?}");
                }
            }
        }
    }

    #[test]
    fn hyperthreads_are_shared_if_that_is_asked_for_or_there_is_one_core() {
        let asked = dealt("0-63", &large(), 40, true);
        assert_eq!((list(&asked.server).cpus().len(), asked.client_threads), (32, 32));
        assert_eq!(asked.shared_core, Some(true), "of two workers");
        let asked = dealt("0-63", &large(), 1, true);
        assert_eq!((asked.client_threads, asked.shared_core), (63, Some(true)));
        for hyperthreads in [true, false] {
            let one = dealt("5,37", &large(), 1, hyperthreads);
            assert_eq!((&*one.server, &*one.client), ("5", "37"));
            assert_eq!((one.shared_cpu, one.shared_core), (false, Some(true)));
        }
        let unknown = out_of("0-3", 1, None);
        assert_eq!(
            (unknown.client_threads, unknown.shared_core, unknown.packages),
            (3, None, None)
        );
    }

    #[test]
    fn sides_with_cpus_of_their_own_get_cores_of_their_own() {
        let deal = |one_machine, server, load| {
            let mut sides = sides(one_machine, server, load);
            let topology = serde_json::to_value(large()).expect("JSON");
            for side in [&mut sides.server, &mut sides.load] {
                side.machine = serde_json::json!({ "topology": topology });
            }
            let placement = out_of("0-63", 1, Some(&sides));
            (placement.server, placement.client, placement.shared_core)
        };
        let expected =
            |server: &str, client: &str, shared| (server.to_owned(), client.to_owned(), shared);
        for (one_machine, server, load, dealt) in [
            (true, (true, Some("7")), (true, Some("6-8,38-40")), expected("7", "6,8", Some(false))),
            (true, (true, Some("7")), (true, Some("39")), expected("7", "39", Some(true))),
            (true, (true, Some("7,39")), (true, Some("7")), expected("39", "7", Some(true))),
            (true, (false, Some("7")), (false, Some("39")), expected("", "", Some(true))),
            (true, (false, Some("7,39")), (false, Some("8,40")), expected("", "", Some(false))),
            (false, (false, Some("7")), (true, Some("7,39")), expected("", "7", Some(false))),
        ] {
            assert_eq!(deal(one_machine, server, load), dealt, "{one_machine} {server:?} {load:?}");
        }
    }
}
