//! Deals the CPUs to the server and the client.

use std::path::Path;

use anyhow::{Context, Result};
use itertools::Itertools;
use ringmark::cpus::CpuList;
use ringmark::whereabouts::Whereabouts;

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
    let loads = LoadCpus::of(sides, allowed, topology);
    let client_has = SideCpus::together(&loads);
    // A load that is not here is not dealt any, and the server's are not taken from it.
    let one_machine = match loads.as_slice() {
        [load] => load.with_server,
        _ => server_has.is_here && client_has.is_here,
    };
    let (server, client) = divide(workers, &server_has, &client_has, one_machine, hyperthreads);
    // A side that is not pinned may run on all that it has.
    let at_server = if server_has.is_here { &server } else { &server_has.cpus };
    let pinned_server = if server_has.is_here { &server[..] } else { &[] };
    let pinned = deal_to_loads(if client_has.is_here { &client } else { &[] }, &loads);
    let pinned_client: Vec<usize> = pinned.iter().flatten().copied().unique().collect();
    let at_loads: Vec<&[usize]> = (loads.iter().zip(&pinned))
        .map(|(load, pinned)| if load.has.is_here { &pinned[..] } else { &load.has.cpus })
        .collect();
    let server_shares_cpu = at_server.len() < usize::from(workers)
        || loads
            .iter()
            .zip(&at_loads)
            .any(|(load, at)| load.with_server && may_meet(at_server, at));
    let loads_share_cpu = (loads.iter().zip(&at_loads))
        .tuple_combinations()
        .any(|((one, at), (other, at_other))| one.is_with(other) && may_meet(at, at_other));
    let (at, there) = (&server_has.topology, &client_has.topology);
    let at_client: Vec<usize> = (loads.iter().zip(&at_loads))
        .filter(|(load, _)| load.with_server)
        .flat_map(|(_, at)| at.iter().copied())
        .collect();
    let is_any_with_server = loads.iter().any(|load| load.with_server);
    let shared_cores = [
        at.share_a_core(pinned_server, pinned_server),
        there.share_a_core(&pinned_client, &pinned_client),
        if is_any_with_server { at.share_a_core(at_server, &at_client) } else { Some(false) },
    ];
    let is_spread = one_machine && server_has.is_here && client_has.is_here;
    let of_loads = if loads.len() > 1 && !pinned_client.is_empty() { &pinned[..] } else { &[] };
    Placement {
        server: pinned_server.iter().join(","),
        client: pinned_client.iter().join(","),
        client_threads: threads_of_each(&client, &loads, &at_loads),
        loads: of_loads.iter().map(|cpus| cpus.iter().join(",")).collect(),
        loads_share_cpu,
        server_shares_cpu,
        shared_cpu: server_shares_cpu || loads_share_cpu,
        shared_core: any(&shared_cores),
        packages: at.packages_of(&[pinned_server, &pinned_client].concat()).filter(|_| is_spread),
        server_cpus_elsewhere: Some(server_has.cpus.len())
            .filter(|&cpus| !server_has.is_here && cpus > 0),
    }
}

/// Returns whether two programs on one machine may run on the same CPU: each on one of these, or on
/// any if none is known.
fn may_meet(one: &[usize], other: &[usize]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|cpu| other.contains(cpu))
}

/// The CPUs that a load may use.
struct LoadCpus {
    has: SideCpus,
    /// Whether it is on the server's machine.
    with_server: bool,
    whereabouts: Whereabouts,
}

impl LoadCpus {
    /// Returns those of each load.
    fn of(sides: Option<&Sides>, allowed: &CpuList, topology: &Topology) -> Vec<Self> {
        let Some(sides) = sides else {
            let has = SideCpus::of(None, allowed, topology);
            return vec![Self { has, with_server: true, whereabouts: Whereabouts::default() }];
        };
        let server = &sides.server.whereabouts;
        let of_load = |load: &Side| Self {
            has: SideCpus::of(Some(load), allowed, topology),
            with_server: sides.one_machine || server.is_on_machine_of(&load.whereabouts),
            whereabouts: load.whereabouts.clone(),
        };
        sides.loads().map(of_load).collect()
    }

    /// Returns whether another is on its machine.
    fn is_with(&self, other: &Self) -> bool {
        self.with_server && other.with_server
            || self.has.is_here && other.has.is_here
            || self.whereabouts.is_on_machine_of(&other.whereabouts)
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

    /// Returns what the loads that are here have together; if none is, what the first one has.
    fn together(loads: &[LoadCpus]) -> Self {
        let here: Vec<&Self> =
            loads.iter().map(|load| &load.has).filter(|has| has.is_here).collect();
        let all = if here.is_empty() { vec![&loads[0].has] } else { here };
        Self {
            cpus: all.iter().flat_map(|has| has.cpus.iter().copied()).sorted().dedup().collect(),
            topology: all[0].topology.clone(),
            is_here: all[0].is_here,
        }
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

/// Deals the client's CPUs to the loads that are here, each out of those that it may use: to the
/// one that has the fewest so far. If one gets none, each gets all of them that it may use, or all
/// that it may use at all. Others are not pinned, and get none.
fn deal_to_loads(client: &[usize], loads: &[LoadCpus]) -> Vec<Vec<usize>> {
    let mut lists = vec![Vec::new(); loads.len()];
    let may_use = |load: &LoadCpus, cpu| load.has.is_here && load.has.cpus.contains(&cpu);
    for &cpu in client {
        let may = (0..loads.len()).filter(|&index| may_use(&loads[index], cpu));
        if let Some(index) = may.min_by_key(|&index| lists[index].len()) {
            lists[index].push(cpu);
        }
    }
    let has_none = |(list, load): (&Vec<usize>, &LoadCpus)| list.is_empty() && load.has.is_here;
    if client.is_empty() || !lists.iter().zip(loads).any(has_none) {
        return lists;
    }
    let all_of = |load: &LoadCpus| {
        let own: Vec<usize> = client.iter().copied().filter(|&cpu| may_use(load, cpu)).collect();
        match own.is_empty() && load.has.is_here {
            true => load.has.cpus.clone(),
            false => own,
        }
    };
    loads.iter().map(all_of).collect()
}

/// Returns how many threads each load gets: as many as the one with the fewest CPUs has, since all
/// have equally many.
fn threads_of_each(client: &[usize], loads: &[LoadCpus], at_loads: &[&[usize]]) -> usize {
    let threads = match loads {
        [_] => Some(client.len()),
        _ => loads
            .iter()
            .zip(at_loads)
            .map(
                |(load, at)| {
                    if load.has.is_here { at.len() } else { load.has.without(&[], false).len() }
                },
            )
            .min(),
    };
    threads.unwrap_or(1).max(1)
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
        // One that may only use the server's CPU has that, and the server is not alone.
        let dealt = deal("0,1", &[(HERE, Some("1")), (HERE, Some("0"))]);
        assert_eq!(
            (&dealt.loads[..], &*dealt.client),
            (&["1".to_owned(), "0".to_owned()][..], "1,0")
        );
        assert!(dealt.server_shares_cpu && !dealt.loads_share_cpu);
        // Elsewhere nothing is pinned from here.
        let dealt = deal("0-3", &[(false, Some("0-3")); 2]);
        assert!(dealt.loads.is_empty() && dealt.client.is_empty());
    }

    #[test]
    fn loads_on_several_machines_are_kept_apart_from_the_server_on_theirs() {
        // On a machine of that name, on these CPUs.
        let at = |machine: &str, cpus: &str| Side {
            is_here: machine == "here",
            cpus: Some(list(cpus)),
            whereabouts: serde_json::from_value(serde_json::json!({"pid": 1, "boot_id": machine}))
                .expect("whereabouts"),
            ..Side::default()
        };
        let shared = |server: Side, loads: [Side; 2]| {
            let mut all = sides(false, (true, None), (true, None));
            all.server = server;
            let [first, other] = loads;
            (all.load, all.other_loads) = (first, vec![other]);
            let placement = out_of("0-1", 1, Some(&all));
            (placement.server_shares_cpu, placement.loads_share_cpu)
        };
        for turned in [false, true] {
            let turn = |loads: [Side; 2]| {
                let [first, other] = loads;
                if turned { [other, first] } else { [first, other] }
            };
            let far = shared(at("far", "1"), turn([at("here", "0"), at("far", "1")]));
            assert_eq!(far, (true, false));
            let apart = shared(at("far", "1"), turn([at("here", "1"), at("far", "0")]));
            assert_eq!(apart, (false, false));
            let here = shared(at("here", "0"), turn([at("far", "0-1"), at("here", "0")]));
            assert_eq!(here, (true, false));
            let two = shared(at("here", "0-1"), turn([at("far", "0"), at("far", "0-1")]));
            assert_eq!(two, (false, true));
        }
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
