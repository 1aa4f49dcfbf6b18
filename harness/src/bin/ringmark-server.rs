//! `ringmark-server`: one echo server, on one backend, that says what it did.

use clap::{CommandFactory, Parser, value_parser};
use clap_complete::Shell;
use ringmark::address::Address;
use ringmark::backend::document::SERVER_PORT;
use ringmark::backend::{self, Entry, Knobs};
use ringmark::cpus::CpuList;
use ringmark::error::of_thread;
use ringmark::list;
use ringmark::listener::{Listener, Listening};
use ringmark::orders::{Lines, Order, Orders};
use ringmark::ports::{self, PortSharing, Reserved};
use ringmark::process::{self, Signals};
use ringmark::protocol::{FORMAT_VERSION, ServerCounters, ServerEvent};
use ringmark::service::{Service, ServiceName};
use ringmark::stop::Stop;
use ringmark::team::Team;
use ringmark::whereabouts::Whereabouts;
use ringmark::worker::{Plan, Up, Worker};
use ringmark::zero_copy;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The default of `--listen`.
const LISTEN: Address = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), SERVER_PORT));

/// The program.
const NAME: &str = "ringmark-server";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A server of one service, an echo unless told otherwise, on one of several ways to wait for
/// sockets.
///
/// Prints one JSON line when it accepts connections, one with its counters for each SIGUSR1, and
/// one at the end. SIGTERM and SIGINT make it send what it owes and leave; a second one ends it at
/// once.
#[derive(Parser)]
#[command(name = NAME, version = env!("RINGMARK_VERSION"), after_help = knob_help())]
struct Options {
    /// The backend to serve with; --list names them all
    #[arg(long, value_name = "NAME")]
    #[arg(required_unless_present_any = ["list", "completions", "man"])]
    backend: Option<String>,

    /// Address and first port, as in 127.0.0.1:8888, [::1]:8888 or [fe80::1%eth0]:8888; port 0
    /// takes free ports, and the first line says which. Or a Unix socket, unix:/run/echo.sock
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN)]
    listen: Address,

    /// Number of consecutive ports, dealt to the workers in turn: a multiple of the workers
    /// [default: one each]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    ports: Option<u16>,

    /// Number of worker threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u16).range(1..=4096))]
    workers: u16,

    /// CPUs to pin the workers to, dealt in turn, as in 0,1,4-7
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,

    /// The service: an echo, or a conversation of two sizes
    #[arg(long, value_enum, default_value_t)]
    service: ServiceName,

    /// Bytes of a request of an exchange or to a sink, up to 16 MiB
    #[arg(long, value_name = "BYTES")]
    request_bytes: Option<u32>,

    /// Bytes of a response of an exchange, or of a write of a source, up to 16 MiB
    #[arg(long, value_name = "BYTES")]
    response_bytes: Option<u32>,

    /// Sets a knob of the backend; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// Seconds that connections have after SIGTERM to take what they are owed and to close
    #[arg(long, value_name = "S", default_value_t = 5)]
    #[arg(value_parser = value_parser!(u64).range(0..=3600))]
    drain_seconds: u64,

    /// Say where this process is, and wait for a line on stdin before any thread, ring or listener
    /// exists, so that instruments can attach. From then on the lines `counters` and `stop` do what
    /// SIGUSR1 and SIGTERM do, and the end of stdin stops it too
    #[arg(long)]
    hold: bool,

    /// List every backend: whether this kernel lets it run, what it needs, how often it wakes up
    /// when idle
    #[arg(long)]
    list: bool,

    /// With --list: seconds for which each backend is run to count its idle wake-ups [default: 2; 0
    /// with --json]
    #[arg(long, value_name = "S", requires = "list")]
    #[arg(value_parser = value_parser!(u64).range(0..=60))]
    idle_seconds: Option<u64>,

    /// With --list: as JSON
    #[arg(long, requires = "list")]
    json: bool,

    /// Print the completions of a shell
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,

    /// Print the manual page
    #[arg(long, exclusive = true)]
    man: bool,
}

/// Describes each knob once, with the backends that take it.
fn knob_help() -> String {
    let mut knobs: Vec<(String, Vec<&str>)> = Vec::new();
    for entry in backend::ALL {
        for knob in entry.knobs {
            let text = format!("  {knob}  ({})\n      {}", knob.accepts(), knob.meaning);
            match knobs.iter_mut().find(|(known, _)| *known == text) {
                Some((_, takers)) => takers.push(entry.name),
                None => knobs.push((text, vec![entry.name])),
            }
        }
    }
    let lines =
        knobs.iter().map(|(text, takers)| format!("{text}\n      [{}]\n", takers.join(", ")));
    "Knobs (--set KEY=VALUE), with their defaults and the backends that take them:\n".to_owned()
        + &lines.collect::<String>()
}

fn main() -> ExitCode {
    let result =
        Options::try_parse().map_or_else(|refusal| answer(&refusal), |options| run(&options));
    result.unwrap_or_else(|message| {
        // Not eprintln!, which panics when nobody can read it.
        let _ = writeln!(io::stderr(), "{NAME}: {message}");
        ExitCode::FAILURE
    })
}

/// Prints what the command line asked for, help or the version, or why it was refused.
fn answer(refusal: &clap::Error) -> Result<ExitCode> {
    if refusal.use_stderr() {
        // Nobody listening is no reason to say more.
        let _ = refusal.print();
        return Ok(ExitCode::from(2));
    }
    printed(refusal.print())?;
    Ok(ExitCode::SUCCESS)
}

fn run(options: &Options) -> Result<ExitCode> {
    // Those that a server, or one that lists others, relies on before it takes them otherwise.
    process::restore_signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGCHLD])
        .map_err(|error| format!("restore signals: {error}"))?;
    if options.man || options.completions.is_some() {
        return document(options.completions);
    }
    if options.list { list(options) } else { serve(options) }
}

/// Prints the completions of a shell, or else the manual page.
fn document(completions: Option<Shell>) -> Result<ExitCode> {
    let mut command = Options::command();
    let mut text = Vec::new();
    match completions {
        Some(shell) => clap_complete::generate(shell, &mut command, NAME, &mut text),
        None => clap_mangen::Man::new(command).render(&mut text)?,
    }
    printed(io::stdout().lock().write_all(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn list(options: &Options) -> Result<ExitCode> {
    let idle_seconds = options.idle_seconds.unwrap_or(if options.json { 0 } else { 2 });
    let server =
        std::env::current_exe().map_err(|error| format!("--list: this program's path: {error}"))?;
    let rows = list::rows(&server, Duration::from_secs(idle_seconds))?;
    say(&if options.json { list::to_json(&rows).to_string() } else { list::to_text(&rows) })?;
    Ok(ExitCode::SUCCESS)
}

fn serve(options: &Options) -> Result<ExitCode> {
    let entry = backend::find(options.backend.as_deref().unwrap_or_default())?;
    let knobs = Knobs::parse(entry, &options.settings)?;
    let service = Service::of(options.service, options.request_bytes, options.response_bytes)?;
    if !entry.echoes && service != Service::Echo {
        return Err(format!("{} serves nothing: leave out --service", entry.name).into());
    }
    check_zero_copy(&knobs, service, &options.listen)?;
    let sharing = PortSharing::of(&knobs);
    let ports = count_ports(options, entry, sharing)?;
    let stdin = if options.hold { Some(hold(entry)?) } else { None };
    process::raise_open_files_limit()?;
    if let Err(unsupported) = (entry.probe)(&knobs, options.workers) {
        let (backend, reason) = (entry.name.to_owned(), unsupported.reason.clone());
        // Stderr says it too, so that it does not matter whether this line can be written.
        let _ = say_event(&ServerEvent::Unsupported { backend, reason });
        return Err(format!("{} is unsupported: {unsupported}", entry.name).into());
    }
    let signals = Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2])?;
    let stop = Stop::new(Duration::from_secs(options.drain_seconds))?;
    let stop = Arc::new(stop);

    let (addresses, reserved) = addresses(&options.listen, ports, sharing)?;
    let (shared, listening) = deal(&addresses, options.workers, sharing)?;
    let (workers, ready) = start(options, (entry, &knobs, service), listening, &stop)?;
    drop((reserved, shared));
    // Now, so that the workers' file tables have no copies.
    let signals = signals.open()?;
    say_event(&ready)?;
    obey(Orders::from(signals, stdin), entry, workers, &stop)
}

/// Says where this process is and waits for a line on stdin, of which more may follow.
fn hold(entry: &Entry) -> Result<Lines> {
    let whereabouts = Whereabouts::of_this_process();
    say_event(&ServerEvent::Held { backend: entry.name.to_owned(), whereabouts })?;
    let mut stdin = Lines::default();
    match stdin.wait().map_err(|error| format!("--hold: {error}"))? {
        Some(_) => Ok(stdin),
        None => Err("--hold: stdin ended before a line came; nothing was started".into()),
    }
}

/// Refuses to send without a copy where nothing can be.
fn check_zero_copy(knobs: &Knobs, service: Service, listen: &Address) -> Result<()> {
    let why = match (service, listen) {
        _ if !zero_copy::is_on(knobs) => return Ok(()),
        (Service::Echo, _) => {
            "an echo's bytes are in buffers that the next message needs; give --service exchange \
             or source"
        }
        (_, Address::Unix(_)) => "a Unix socket always copies",
        _ => return Ok(()),
    };
    Err(format!("--set zero_copy=on: {why}").into())
}

/// How many ports it listens on.
fn count_ports(options: &Options, entry: &Entry, sharing: PortSharing) -> Result<u16> {
    let is_dealt = sharing == PortSharing::Dealt;
    let has_path = options.listen.path().is_some();
    let by_default = if is_dealt && !has_path { options.workers } else { 1 };
    let ports = options.ports.unwrap_or(by_default);
    // Workers that serve each other's connections need no ports of their own.
    let workers = if entry.shares_files { 1 } else { options.workers };
    if is_dealt && !has_path && !ports.is_multiple_of(workers) {
        return Err(format!(
            "--ports {ports} is not a multiple of --workers {workers}: some workers would listen \
             on more ports than others; --set listeners=reuseport has all listen on each"
        )
        .into());
    }
    match &options.listen {
        Address::Unix(_) if ports > 1 || workers > 1 || !is_dealt => Err(format!(
            "--listen {}: a Unix socket has one path and no ports; leave out --ports, --workers \
             and --set listeners",
            options.listen
        )
        .into()),
        // A port of 0 stands for some that fit.
        Address::Ip(first) if first.port() != 0 => {
            ports::consecutive(*first, ports)?;
            Ok(ports)
        }
        _ => Ok(ports),
    }
}

/// The addresses that it listens on, and what holds those that were free until it does. A single
/// free port is left to the kernel.
fn addresses(
    listen: &Address,
    ports: u16,
    sharing: PortSharing,
) -> Result<(Vec<Address>, Option<Reserved>)> {
    let Address::Ip(first) = *listen else { return Ok((vec![listen.clone()], None)) };
    let reserved = match first.port() {
        0 if ports > 1 || sharing != PortSharing::Dealt => Some(Reserved::find(first, ports)?),
        _ => None,
    };
    let first = reserved.as_ref().map_or(first, |reserved| reserved.first);
    let addresses = ports::consecutive(first, ports)?;
    Ok((addresses.into_iter().map(Address::Ip).collect(), reserved))
}

/// Says how each worker comes to its listeners, and opens those that all share. They must stay open
/// until the workers are up.
fn deal(
    addresses: &[Address],
    workers: u16,
    sharing: PortSharing,
) -> Result<(Vec<Listener>, Vec<Vec<Listening>>)> {
    let mut shared = Vec::new();
    let of_each = match sharing {
        PortSharing::Dealt => {
            let alone = |dealt: Vec<Address>| dealt.into_iter().map(Listening::Alone).collect();
            return Ok((shared, ports::deal(addresses, workers).into_iter().map(alone).collect()));
        }
        PortSharing::ReusePort => {
            let addresses: Vec<SocketAddr> = addresses.iter().filter_map(Address::ip).collect();
            ports::claim(&addresses)?;
            addresses.into_iter().map(Listening::Beside).collect()
        }
        PortSharing::OneSocket => {
            shared = addresses.iter().map(Listener::open).collect::<io::Result<_>>()?;
            let copy = |listener: &Listener| {
                Some(Listening::Shared(listener.as_raw_fd(), listener.address().ip()?))
            };
            shared.iter().filter_map(copy).collect()
        }
    };
    Ok((shared, vec![of_each; workers.into()]))
}

/// Starts the workers, and makes the ready line once all of them accept connections.
fn start(
    options: &Options,
    (entry, knobs, service): (&'static Entry, &Knobs, Service),
    listening: Vec<Vec<Listening>>,
    stop: &Arc<Stop>,
) -> Result<(Vec<Worker>, ServerEvent)> {
    let (sender, receiver) = mpsc::channel();
    let mut workers = Vec::new();
    let team = Arc::new(Team::default());
    for (index, listening) in listening.into_iter().enumerate() {
        let cpu = options.cpus.as_ref().map(|list| list.cpus()[index % list.cpus().len()]);
        let (knobs, team) = (knobs.clone(), Arc::clone(&team));
        let plan = Plan { index, backend: entry, knobs, service, listening, cpu, team };
        let worker = Worker::start(plan, Arc::clone(stop), sender.clone(), || {
            process::signal_self(libc::SIGUSR2)
        });
        match worker {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                let _ = stop.give();
                // The others hold what is shared.
                let _ = end(workers);
                return Err(format!("start worker {index}: {}", of_thread(&error)).into());
            }
        }
    }
    drop(sender);
    let mut up: Vec<Up> = receiver.iter().take(workers.len()).collect();
    if up.len() < workers.len() {
        let _ = stop.give();
        return Err(end(workers)
            .err()
            .unwrap_or_else(|| "a worker ended before it was ready".into()));
    }
    up.sort_by_key(|up| up.index);
    // Port i was dealt to worker i mod W, as its port i / W: undo that, so that the list is in
    // order of ports. If all have all ports, each stands W times.
    let count = up.iter().map(|up| up.addresses.len()).sum();
    let of_port = |port: usize| up[port % up.len()].addresses[port / up.len()].clone();
    let mut addresses: Vec<Address> = (0..count).map(of_port).collect();
    addresses.dedup();
    let ready = ServerEvent::Ready {
        format_version: FORMAT_VERSION,
        backend: entry.name.to_owned(),
        service: service.to_string(),
        knobs: knobs.to_json(),
        in_force: up[0].in_force.clone(),
        workers: workers.len(),
        addresses,
        pid: std::process::id(),
    };
    Ok((workers, ready))
}

/// Obeys until the workers have ended. A line that cannot be written makes it fail then, and not
/// before.
fn obey(mut orders: Orders, entry: &Entry, workers: Vec<Worker>, stop: &Stop) -> Result<ExitCode> {
    let mut stopping = false;
    let mut asked_to_stop = false;
    let mut written = Ok(());
    loop {
        let told_to_leave = match orders
            .wait()
            .map_err(|error| format!("wait for a signal: {error}"))?
        {
            Order::Counters => {
                let (backend, counters) = (entry.name.to_owned(), read_counters(&workers));
                written = written.and(say_event(&ServerEvent::Counters { backend, counters }));
                false
            }
            Order::Stop(signal) if asked_to_stop => return Ok(ExitCode::from(128 + signal as u8)),
            Order::Stop(_) => {
                asked_to_stop = true;
                true
            }
            Order::Abandoned => true,
            Order::Look => false,
        };
        // A worker that ends by itself has failed; the others leave with it.
        if !stopping && (told_to_leave || workers.iter().any(Worker::has_ended)) {
            stop.give().map_err(|error| format!("stop the workers: {error}"))?;
            stopping = true;
        }
        if stopping && workers.iter().all(Worker::has_ended) {
            let (backend, counters) = (entry.name.to_owned(), read_counters(&workers));
            written = written.and(say_event(&ServerEvent::End { backend, counters }));
            return end(workers).and(written).map(|()| ExitCode::SUCCESS);
        }
    }
}

fn read_counters(workers: &[Worker]) -> ServerCounters {
    ServerCounters::read(workers.iter().map(|worker| &*worker.counters))
}

/// Waits for all workers; the first error of any.
fn end(workers: Vec<Worker>) -> Result<()> {
    let mut result = Ok(());
    for (index, worker) in workers.into_iter().enumerate() {
        if let Err(error) = worker.join()
            && result.is_ok()
        {
            result = Err(format!("worker {index}: {error}").into());
        }
    }
    result
}

/// Prints the line of an event.
fn say_event(event: &ServerEvent) -> Result<()> {
    say(&serde_json::to_string(event)?)
}

/// Prints a line on stdout in one write.
fn say(line: &str) -> Result<()> {
    printed(io::stdout().lock().write_all(format!("{line}\n").as_bytes()))
}

/// Ends a print on stdout. A reader that has left is no reason to fail; output that is lost is.
fn printed(result: io::Result<()>) -> Result<()> {
    if process::stdout_is_closed() {
        return Err(
            "stdout is closed: output would be lost; redirect it to a file or to /dev/null".into(),
        );
    }
    match result.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("write to stdout: {error}").into())
        }
        _ => Ok(()),
    }
}
