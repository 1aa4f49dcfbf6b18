//! The first program of the guest: it starts each server and its load, marks the windows, and says
//! what came of it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::job::{Count, GuestCommand, GuestEvent, Job, Map, OUT};
use crate::machine::cpuinfo_value;
use crate::machine::link::bring_up;
use crate::machine::network_namespace::NetworkNamespace;
use crate::programs::client::{Client, Starter};
use crate::programs::marks::Mark;
use crate::programs::process::Interruptions;
use crate::programs::server::{FIRST_PORT, RefusedByKernel, Server};
use crate::programs::server_plan::ServerPlan;
use crate::rows::Status;

/// The place of the job in the guest.
pub const JOB: &str = "/job.json";

/// The hidden verb that runs there.
pub const VERB: &str = "inside-guest";

/// The place of the server in the guest.
pub const SERVER: &str = "/bin/ringmark-server";

/// The place of this program in the guest.
pub const PROGRAM: &str = "/bin/ringmark";

/// The files that a process may open, as most distributions have it. The kernel's own bound is
/// 4,096.
const OPEN_FILES: u64 = 524_288;

/// The folders in which programs look for others.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The port of the emulator's debug console, whose bytes go into a file of the host's.
pub const DEBUG_PORT: u16 = 0xe9;

/// Rounds of the self-test, and the instructions of one.
const ROUNDS: u64 = 1_000_000;
const INSTRUCTIONS_A_ROUND: u64 = 3;

/// How long the load may take for its echoes, by the guest's clock.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of the hidden verb.
#[derive(clap::Args)]
pub struct Options {}

/// Runs the job, and ends the guest.
pub fn run(_: &Options) -> Result<()> {
    ensure!(std::process::id() == 1, "this is the first program of a guest of `ringmark count`");
    let end = prepare().and_then(|mut answers| work(&mut answers));
    if let Err(error) = end {
        eprintln!("ringmark: the guest failed: {error:#}");
    }
    // SAFETY: the call takes no pointers. The emulator ends where a machine would boot again.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    bail!("the guest goes on after its end")
}

/// Mounts what is read, and opens the way to the host.
fn prepare() -> Result<Answers> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(kind, place, kind, MountFlags::empty(), None::<&std::ffi::CStr>)
            .with_context(|| format!("mount {place}"))?;
    }
    let most = Some(OPEN_FILES);
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .context("RLIMIT_NOFILE")?;
    Answers::open()
}

fn work(answers: &mut Answers) -> Result<()> {
    let job = fs::read(JOB).context(JOB)?;
    let Job { counts, command } = serde_json::from_slice(&job).context(JOB)?;
    if let Some(command) = command {
        bring_up("lo").context("loopback")?;
        run_command(&command, answers)?;
        return answers.say(&GuestEvent::Done);
    }
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let cpus = read("/proc/cpuinfo")?;
    answers.say(&GuestEvent::Up {
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpu: cpuinfo_value(&cpus, "model name").unwrap_or_default().to_owned(),
    })?;
    Mark::Begin.set();
    test_loop();
    Mark::End.set();
    answers.say(&GuestEvent::Tested { instructions: ROUNDS * INSTRUCTIONS_A_ROUND })?;
    for (index, count) in counts.iter().enumerate() {
        let (status, reason) = match measure(index, count, answers) {
            Ok(()) => (Status::Ok, String::new()),
            Err(error) if error.is::<RefusedByKernel>() => {
                (Status::Unsupported, format!("{error:#}"))
            }
            Err(error) => (Status::Failed, format!("{error:#}")),
        };
        answers.say(&GuestEvent::Ends { count: index, status, reason })?;
    }
    say_symbols(&read("/proc/kallsyms")?, answers)?;
    answers.say(&GuestEvent::Done)
}

fn run_command(command: &GuestCommand, answers: &mut Answers) -> Result<()> {
    let GuestCommand { program, arguments, environment, folder } = command;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let (output, end) = std::io::pipe().context("pipe")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env("PATH", PATH)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null());
    command.stdout(end.try_clone().context("pipe")?).stderr(end);
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    // Its output ends when it and all that it has started have closed their ends.
    drop(command);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("pipe")?;
        answers.say(&GuestEvent::Said { text: String::from_utf8_lossy(&line).into_owned() })?;
    }
    let status = child.wait().with_context(|| program.display().to_string())?;
    answers.say(&GuestEvent::Ran { status: status.code() })?;
    if Path::new(OUT).exists() {
        say_files(Path::new(OUT), answers)?;
    }
    Ok(())
}

/// Says the files of a folder, and of those in it.
fn say_files(folder: &Path, answers: &mut Answers) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            say_files(&path, answers)?;
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let path = path.strip_prefix(OUT)?.display().to_string();
        answers.say(&GuestEvent::Left { path, text })?;
    }
    Ok(())
}

/// Executes [`ROUNDS`] rounds of [`INSTRUCTIONS_A_ROUND`] instructions.
#[inline(never)]
fn test_loop() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the loop changes one register, which is its own.
    unsafe {
        std::arch::asm!(
            "2:",
            "nop",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) ROUNDS => _,
            options(nomem, nostack)
        );
    }
}

fn measure(index: usize, count: &Count, answers: &mut Answers) -> Result<()> {
    let Count { arm, workload, seed, echoes } = count;
    let namespace = NetworkNamespace::create()?;
    let interruptions = Interruptions::default();
    let settings = workload.settings(arm);
    let service = workload.server_options();
    let plan = ServerPlan {
        service: &service,
        external: None,
        binary: Path::new(SERVER),
        backend: &arm.backend,
        settings: &settings,
        workers: 1,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT)).into(),
        ports: 1,
        cpus: "",
        launchers: None,
    };
    let mut server = Server::start(&plan, Some(&namespace), &interruptions, |_| {})?;
    let pid = server.pid().context("the server is not to be seen")?;
    answers.say(&GuestEvent::Begins { count: index, maps: maps(pid)? })?;
    let each = (echoes / workload.connections as u64).max(1);
    let mut arguments = vec![
        format!("--connect={}:{FIRST_PORT}", Ipv4Addr::LOCALHOST),
        format!("--connections={}", workload.connections),
        format!("--seed={seed}"),
    ];
    arguments.extend(workload.load_options());
    arguments.extend(workload.all_echoes(2 * each));
    let starter = Starter { namespace: Some(&namespace), ..Starter::default() };
    let mut load = Client::start(&arguments, &starter, &interruptions)?;
    load.set_connections(workload.connections)?;
    server.await_open([&mut load])?;
    load.measure(&workload.echo_command(each), PATIENCE)?;
    for each in [each, 2 * each] {
        rest();
        let before = server.counters()?;
        rest();
        Mark::Begin.set();
        let result = load.measure(&workload.echo_command(each), PATIENCE);
        rest();
        Mark::End.set();
        let after = server.counters()?;
        answers.say(&GuestEvent::Window {
            count: index,
            echoes: result?.echoes,
            events_per_wait: after.events_per_wait_since(&before),
        })?;
    }
    load.quit()?;
    server.stop()?;
    Ok(())
}

/// Lets all come to rest.
fn rest() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Returns the code that is mapped into a process.
pub(super) fn maps(pid: u32) -> Result<Vec<Map>> {
    let path = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&path).context(path)?;
    Ok(text.lines().filter_map(map).collect())
}

/// Reads a line of proc_pid_maps(5).
fn map(line: &str) -> Option<Map> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()?.contains('x');
    let offset = words.next()?;
    let file = words.nth(2)?;
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    is_code.then_some(Map {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        offset: hexadecimal(offset)?,
        file: file.to_owned(),
    })
}

/// Says the functions of the kernel.
fn say_symbols(table: &str, answers: &mut Answers) -> Result<()> {
    for line in table.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [address, kind, name] = words[..] else { continue };
        if matches!(kind, "t" | "T" | "w" | "W") {
            let address = u64::from_str_radix(address, 16).context("/proc/kallsyms")?;
            answers.say(&GuestEvent::Symbol { address, name: name.to_owned() })?;
        }
    }
    Ok(())
}

/// The way to the host.
enum Answers {
    /// The emulator's debug console.
    Port,
    /// A serial line of User-mode Linux, which has no ports.
    Line(File),
}

impl Answers {
    fn open() -> Result<Self> {
        let refusal = match allow_port(true) {
            Ok(()) => return allow_port(false).map(|()| Self::Port).context("ioperm"),
            Err(refusal) => refusal,
        };
        let line = File::options().write(true).open("/dev/ttyS0");
        line.map(Self::Line).with_context(|| format!("/dev/ttyS0 (and ioperm: {refusal})"))
    }

    fn say(&mut self, event: &GuestEvent) -> Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        match self {
            Self::Line(file) => file.write_all(&line).context("/dev/ttyS0"),
            Self::Port => {
                // A right to ports is inherited, and costs whoever has it instructions.
                allow_port(true).context("ioperm")?;
                line.into_iter().for_each(put);
                allow_port(false).context("ioperm")
            }
        }
    }
}

fn allow_port(allowed: bool) -> std::io::Result<()> {
    // SAFETY: the call takes no pointers. It allows, or forbids, this thread to write to one port.
    let returned = unsafe { libc::ioperm(DEBUG_PORT.into(), 1, allowed.into()) };
    if returned == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Writes a byte to the debug console.
fn put(byte: u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller has allowed the port on this thread, and behind it is the emulator's debug
    // console, which takes every byte.
    unsafe {
        std::arch::asm!(
            "out dx, al",
            in("dx") DEBUG_PORT,
            in("al") byte,
            options(nomem, nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}
