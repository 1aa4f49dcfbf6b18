//! A set of trials of one workload: all servers and loads are alive at once, and take turns in
//! short windows. Arms that are compared are measured within a second of each other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use ringmark::protocol::ServerCounters;

use super::context::TrialContext;
use super::latency::{Readings, idle_connections, idle_spinner, judge, load_options};
use super::rest::{REST, comes_to_rest};
use super::run::{failure, reject_if_suspended};
use super::site::Site;
use super::task::{Task, Trial};
use super::window::{Clocks, RunDelays, Window, run_load, server_cpu_ns};
use crate::load::result::LoadResult;
use crate::load::sum::sum;
use crate::machine::network::NetworkReading;
use crate::machine::process_tree::Tree;
use crate::matrix::{Interleaved, Latency, Workload};
use crate::programs::client::Client;
use crate::programs::idle_spinner::IdleSpinner;
use crate::rows::{Outcome, Status, WindowRow};

/// A server that is not at rest within this time after a turn never rests.
const REST_MAX: Duration = Duration::from_millis(50);

/// More threads of a server than this are not read within a window: it would take too long.
const TASKS_TO_READ: u64 = 8;

/// Runs the trials of a block together. Whatever goes wrong with one stands in its row.
pub fn play_set(trials: &[Trial], context: &TrialContext) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = trials.iter().map(|trial| trial.begun(context)).collect();
    let contexts: Vec<Option<TrialContext>> = (trials.iter().zip(&mut outcomes).zip(0..))
        .map(|((trial, outcome), place)| {
            let own = trial.prepare(context, outcome)?;
            // Without namespaces all servers share the machine's ports.
            let first_port = own.first_port.checked_add(place * own.ports)?;
            Some(TrialContext { first_port, ..own })
        })
        .collect();
    context.interruptions.take_suspended();
    let set = trials.first().map_or(0, |trial| trial.run_id);
    let mut players = Vec::new();
    for ((trial, context), outcome) in trials.iter().zip(&contexts).zip(&mut outcomes) {
        let Some(context) = context else { continue };
        match Player::start(trial, context, set, outcome) {
            Ok(player) => players.push(player),
            Err(error) => fail(outcome, &error, context),
        }
    }
    let played = play(&mut players, &mut StdRng::seed_from_u64(u64::from(set)), context);
    for player in players {
        let outcome = outcomes.iter_mut().find(|outcome| outcome.row.run_id == player.trial.run_id);
        let Some(outcome) = outcome else { continue };
        let context = player.context;
        if let Err(error) = &played {
            fail(outcome, error, context);
        } else if let Err(error) = player.finish(outcome) {
            fail(outcome, &error, context);
        }
    }
    let suspended = context.interruptions.take_suspended();
    outcomes.iter_mut().for_each(|outcome| reject_if_suspended(&mut outcome.row, &suspended));
    outcomes
}

fn fail(outcome: &mut Outcome, error: &anyhow::Error, context: &TrialContext) {
    outcome.windows.clear();
    (outcome.row.status, outcome.row.reason) = failure(error, context);
}

/// Lets them take turns until the time of the set is over, each as often as the others. A server
/// that never rests plays alone, after the others.
fn play(players: &mut [Player<'_>], random: &mut StdRng, context: &TrialContext) -> Result<()> {
    let Some(first) = players.first() else { return Ok(()) };
    let set_time = first.interleaved.set.get();
    let spinner = idle_spinner(context, first.workload)?;
    let mut together: Vec<usize> = (0..players.len()).collect();
    // One turn each shows who never rests; it warms the servers up too, and does not count.
    for &index in &together {
        players[index].turn(0, 0);
    }
    let alone: Vec<usize> =
        together.iter().copied().filter(|&index| !players[index].rests).collect();
    together.retain(|index| !alone.contains(index));
    players.iter_mut().for_each(Player::forget);
    let mut round = 0;
    for mut order in std::iter::once(together).chain(alone.into_iter().map(|index| vec![index])) {
        let end = Instant::now() + set_time;
        while Instant::now() < end && !order.is_empty() && !context.interruptions.is_wanted() {
            round += 1;
            order.shuffle(random);
            for (&index, turn) in order.iter().zip(1..) {
                players[index].turn(round, turn);
            }
            order.retain(|&index| players[index].failed.is_none());
        }
    }
    spinner.map(IdleSpinner::end).transpose()?;
    Ok(())
}

/// A server and its load, which wait for their turn.
struct Player<'a> {
    trial: &'a Trial,
    context: &'a TrialContext,
    workload: &'a Workload,
    latency: &'a Latency,
    interleaved: &'a Interleaved,
    site: Site<'a>,
    load: Client,
    idle: Option<Client>,
    /// The number of the first trial of the set.
    set: u32,
    processes: Option<Tree>,
    before: Clocks,
    counters_before: ServerCounters,
    network_before: Option<NetworkReading>,
    results: Vec<LoadResult>,
    windows: Vec<WindowRow>,
    /// How long server and client waited for a CPU in its windows.
    delays: RunDelays,
    /// Whether the server's threads are few enough to be read within a window.
    delays_are_read: bool,
    /// Whether its server came to rest after every turn.
    rests: bool,
    /// The error that ended it.
    failed: Option<anyhow::Error>,
}

impl<'a> Player<'a> {
    fn start(
        trial: &'a Trial,
        context: &'a TrialContext,
        set: u32,
        outcome: &mut Outcome,
    ) -> Result<Self> {
        let Task::Interleaved(workload, latency) = &trial.task else {
            bail!("a trial that takes no turns is in a set; this is a bug")
        };
        let interleaved = latency.interleaved.as_ref().context("no turns are asked for")?;
        let mut site = Site::start(trial, context, &mut outcome.row, |_| {})?;
        let network_before = site.network()?;
        let mut idle = idle_connections(&mut site, workload.idle_connections)?;
        let more = load_options(&interleaved.window, &interleaved.warmup);
        let load = site.open_load(workload.connections, idle.as_mut(), &more)?;
        outcome.row.idle_spinner = workload.idle_spinner;
        let processes = site.server.processes()?;
        let before = Clocks::begin(&mut site.server, &load)?;
        let tasks = before.server_tasks.as_ref().map_or(0, |tasks| tasks.count);
        let counters_before = site.server.counters()?;
        Ok(Self {
            trial,
            context,
            workload,
            latency,
            interleaved,
            site,
            load,
            idle,
            set,
            processes,
            before,
            counters_before,
            network_before,
            results: Vec::new(),
            windows: Vec::new(),
            delays: RunDelays::default(),
            delays_are_read: tasks <= TASKS_TO_READ,
            rests: true,
            failed: None,
        })
    }

    /// Takes a turn, unless it has failed.
    fn turn(&mut self, round: u32, turn: u32) {
        if self.failed.is_none()
            && let Err(error) = self.try_turn(round, turn)
        {
            self.failed = Some(error);
        }
    }

    fn try_turn(&mut self, round: u32, turn: u32) -> Result<()> {
        let before_ns = self.server_cpu_ns()?;
        let Interleaved { window, warmup, .. } = self.interleaved;
        let server_too = self.delays_are_read;
        let (begun, ended, result) = run_load(
            &mut self.site.server,
            &mut self.load,
            window.get(),
            warmup.get(),
            |server, load, _| RunDelays::read(server, load, server_too),
        )?;
        self.delays.add(ended.since(begun));
        self.rests &= self.comes_to_rest()?;
        let after_ns = self.server_cpu_ns()?;
        self.windows.push(WindowRow {
            run_id: self.trial.run_id,
            workload: self.workload.name.clone(),
            arm: self.trial.role.clone(),
            set: self.set,
            round,
            turn,
            echoes: result.echoes_in_all,
            server_cpu_ns: after_ns.saturating_sub(before_ns),
            // The load makes its result after that.
            client_cpu_ns: result.cpu_in_all_ns,
            latency_p50_us: result.latency_us.p50,
        });
        self.results.push(result);
        Ok(())
    }

    fn server_cpu_ns(&mut self) -> Result<u64> {
        server_cpu_ns(&mut self.site.server, self.processes.as_ref())
    }

    /// Waits until the server's clock hardly moves; returns false if it always does. A server that
    /// is not to be seen is given a moment.
    fn comes_to_rest(&mut self) -> Result<bool> {
        if self.processes.is_none() {
            std::thread::sleep(REST);
            return Ok(true);
        }
        comes_to_rest(|| self.server_cpu_ns(), REST_MAX)
    }

    /// Forgets its turns so far.
    fn forget(&mut self) {
        self.results.clear();
        self.windows.clear();
        self.delays = RunDelays::default();
        match self.site.server.counters() {
            Ok(counters) => self.counters_before = counters,
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }

    /// Ends server and load, and fills the row from all turns.
    fn finish(mut self, outcome: &mut Outcome) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut result = sum(&self.results)?;
        let mut after = Clocks::end(&mut self.site.server, &self.load, &self.before)?;
        // Only its own turns count, not the time between them.
        self.before.server_cpu_ns = 0;
        after.server_cpu_ns = self.windows.iter().map(|window| window.server_cpu_ns).sum();
        if let Some(client_cpu_ns) = self.windows.iter().map(|window| window.client_cpu_ns).sum() {
            result.client_cpu_ns = client_cpu_ns;
        }
        let at_rest = self.site.server.counters()?;
        let dealt_ports = self.site.server.dealt_ports();
        let network = self.site.network_since(self.network_before)?;
        outcome.histogram = result.histogram_log.take();
        self.load.quit()?;
        self.idle.map(Client::quit).transpose()?;
        let window = Window { before: self.before, after, result, turns: Some(self.delays) };
        let readings =
            Readings::of(self.context, window, self.counters_before, at_rest, network, dealt_ports);
        let row = &mut outcome.row;
        (row.status, row.reason) = judge(self.site, &readings, self.workload, self.latency, row)?;
        if row.status == Status::Ok && !self.rests {
            row.reason = "its server never rests, so it was measured alone, after the others \
                          of its set"
                .to_owned();
        }
        outcome.windows = self.windows;
        Ok(())
    }
}
