//! Boots a guest, in QEMU or as User-mode Linux.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::guest::{DEBUG_PORT, PROGRAM, VERB};
use super::job::GuestEvent;
use super::kernel::KernelKind;
use super::plugin::{APIS, compile, wanted_api};
use crate::programs::child::end_with_parent;
use crate::programs::process::Interruptions;

/// The emulator if none is named.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// A guest's memory, in MiB, if nothing else is asked for.
pub const MEMORY_MIB: u32 = 1024;

/// The parameters of the kernel: nothing is random, and nothing goes on beside the servers.
/// Debian's kernels clear all memory that they hand out, unless they are told not to.
const PARAMETERS: &str = "console=ttyS0 quiet nokaslr norandmaps panic=-1 cryptomgr.notests \
    init_on_alloc=0 tsc=reliable";

/// An emulator that is there.
#[derive(Clone, Debug)]
pub struct Emulator {
    program: PathBuf,
    /// How kernels run: in QEMU, or the program is one itself.
    kind: KernelKind,
    /// Its first line about itself.
    pub version: String,
}

/// How a guest runs.
pub struct Guest<'a> {
    /// Its kernel.
    pub image: &'a Path,
    /// Its files.
    pub archive: &'a [u8],
    /// Its CPUs; without them there is one, whose instructions are counted.
    pub cpus: Option<u32>,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The longest that it may take.
    pub most: Duration,
    /// Takes each answer as it comes.
    pub hear: &'a dyn Fn(&GuestEvent) -> Result<()>,
}

/// The files that a boot leaves.
pub struct Boot {
    /// The plugin's windows.
    pub windows: String,
    /// The guest's answers.
    pub answers: Vec<GuestEvent>,
    /// The version of the plugin interface that was asked for.
    pub plugin: u32,
}

const ARCHIVE: &str = "initramfs";
const WINDOWS: &str = "windows";
const ANSWERS: &str = "answers";
const CONSOLE: &str = "console";
const OUTPUT: &str = "output";
const ERRORS: &str = "errors";

enum Ended {
    Done(Boot),
    /// The emulator wants the plugin for another version of its interface.
    WantsApi(u32),
}

impl Emulator {
    /// Looks for it.
    pub fn find(program: &Path) -> Result<Self> {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        let output = output.with_context(|| {
            format!(
                "{}: there is no such emulator; install QEMU for x86-64 (Debian: `apt-get install \
                 qemu-system-x86`), or name it by --emulator",
                program.display()
            )
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().unwrap_or_default().trim().to_owned();
        ensure!(
            version.contains("QEMU emulator"),
            "{}: this is not QEMU: it says '{version}'",
            program.display()
        );
        Ok(Self { program: program.to_owned(), kind: KernelKind::Image, version })
    }

    /// Takes User-mode Linux, which is kernel and machine in one.
    pub fn of_user_mode(program: &Path) -> Self {
        let version = "User-mode Linux".to_owned();
        Self { program: program.to_owned(), kind: KernelKind::Program, version }
    }

    /// Boots a guest, and waits for its end.
    pub fn boot(&self, guest: &Guest<'_>, interruptions: &Interruptions) -> Result<Boot> {
        let folder = TempDir::with_prefix("ringmark-guest-").context("a folder for the guest")?;
        let folder = folder.path();
        let archive = folder.join(ARCHIVE);
        fs::write(&archive, guest.archive)
            .with_context(|| format!("write {} (TMPDIR puts it elsewhere)", archive.display()))?;
        let mut api = *APIS.start();
        loop {
            let plugin = guest.cpus.is_none().then(|| compile(folder, api)).transpose()?;
            match self.run(guest, folder, plugin.as_deref(), interruptions)? {
                Ended::Done(boot) => return Ok(Boot { plugin: api, ..boot }),
                Ended::WantsApi(wanted) => {
                    ensure!(
                        APIS.contains(&wanted) && wanted != api,
                        "{} wants version {wanted} of its plugin interface; the plugin here is \
                         written for {} to {}: name another emulator by --emulator",
                        self.version,
                        APIS.start(),
                        APIS.end()
                    );
                    api = wanted;
                }
            }
        }
    }

    fn run(
        &self,
        guest: &Guest<'_>,
        folder: &Path,
        plugin: Option<&Path>,
        interruptions: &Interruptions,
    ) -> Result<Ended> {
        let mut command = self.command(guest, folder, plugin)?;
        end_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| self.program.display().to_string())?;
        let mut answers = Heard::default();
        let mut listen = || answers.listen(&folder.join(ANSWERS), guest.hear);
        let ended = wait(&mut child, Instant::now() + guest.most, interruptions, &mut listen);
        if ended.is_err() {
            // It would go on with nobody to hear it. The error that is told is the one of the wait.
            let _ = child.kill();
            let _ = child.wait();
        }
        let ended = ended?;
        listen()?;
        let read = |name| {
            let bytes = fs::read(folder.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let errors = read(ERRORS);
        if let Some(api) = wanted_api(&errors) {
            return Ok(Ended::WantsApi(api));
        }
        ensure!(
            !errors.contains("-plugin: invalid option"),
            "{} has no plugins (it was built without them): name another by --emulator",
            self.version
        );
        if let Some(GuestEvent::Done) = answers.events.last() {
            let answers = answers.events;
            return Ok(Ended::Done(Boot { windows: read(WINDOWS), answers, plugin: 0 }));
        }
        let how = match ended {
            None => format!(
                "was not done within {:.0} s, and was ended: it hangs, or needs longer",
                guest.most.as_secs_f64()
            ),
            Some(status) => format!("ended early ({status})"),
        };
        bail!("the guest {how}; its last lines: {}", last_lines(&errors, &read(CONSOLE)))
    }

    fn command(&self, guest: &Guest<'_>, folder: &Path, plugin: Option<&Path>) -> Result<Command> {
        let file = |name| folder.join(name).display().to_string();
        let made = |name| File::create(folder.join(name)).with_context(|| file(name));
        let mut command = Command::new(&self.program);
        // It is read from the beginning, when the emulator may not have made it yet.
        let answers = made(ANSWERS)?;
        command.stdin(Stdio::null()).stderr(made(ERRORS)?);
        if self.kind == KernelKind::Program {
            let memory = format!("mem={}M", guest.memory_mib);
            command
                .args([&memory, &format!("initrd={}", file(ARCHIVE)), "quiet", "panic=-1"])
                .args(["con=null", "con0=null,fd:2", "ssl=null", "ssl0=null,fd:1"])
                .args([&format!("rdinit={PROGRAM}"), "--", VERB])
                .stdout(answers);
            return Ok(command);
        }
        command
            .args(["-M", "pc,hpet=off", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-m", &guest.memory_mib.to_string()])
            // Copies by `rep movs` would count an instruction a byte; random numbers differ from
            // boot to boot.
            .args(["-cpu", "max,-erms,-fsrm,-rdrand,-rdseed", "-seed", "1"])
            .args(["-smp", &guest.cpus.unwrap_or(1).to_string()])
            .args(["-serial", &format!("file:{}", file(CONSOLE))])
            .args(["-chardev", &format!("file,id=answers,path={}", file(ANSWERS))])
            .args(["-device", &format!("isa-debugcon,iobase={DEBUG_PORT},chardev=answers")])
            .args(["-append", &format!("{PARAMETERS} rdinit={PROGRAM} -- {VERB}")])
            .arg("-kernel")
            .arg(guest.image)
            .args(["-initrd", &file(ARCHIVE)])
            .stdout(made(OUTPUT)?);
        match plugin {
            // An instruction is a nanosecond, and an idle guest jumps to what comes next.
            Some(plugin) => command
                .args(["-accel", "tcg", "-icount", "shift=0,sleep=off"])
                .args(["-rtc", "base=2026-01-01,clock=vm"])
                .args(["-plugin", &format!("file={},out={}", plugin.display(), file(WINDOWS))]),
            None => command.args(["-accel", "tcg,thread=multi"]),
        };
        Ok(command)
    }
}

/// The answers of a guest so far.
#[derive(Default)]
struct Heard {
    events: Vec<GuestEvent>,
    /// The bytes of the lines that have been read.
    length: u64,
}

impl Heard {
    /// Reads the lines that have come since.
    fn listen(&mut self, file: &Path, hear: &dyn Fn(&GuestEvent) -> Result<()>) -> Result<()> {
        let mut answers = File::open(file).with_context(|| file.display().to_string())?;
        answers.seek(SeekFrom::Start(self.length)).context("the guest's answers")?;
        let mut bytes = Vec::new();
        answers.read_to_end(&mut bytes).context("the guest's answers")?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
            let words = || String::from_utf8_lossy(line).trim_end().to_owned();
            let event = serde_json::from_slice(line)
                .with_context(|| format!("the guest said '{}'", words()))?;
            hear(&event)?;
            self.events.push(event);
        }
        self.length += whole as u64;
        Ok(())
    }
}

/// Waits for its end; there is none before the deadline if it hangs, and it is killed. So it is if
/// nobody wants it any more.
fn wait(
    child: &mut Child,
    deadline: Instant,
    interruptions: &Interruptions,
    listen: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<ExitStatus>> {
    loop {
        listen()?;
        if let Some(status) = child.try_wait().context("wait for the emulator")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline || interruptions.is_wanted() {
            child.kill().context("end the emulator")?;
            child.wait().context("wait for the emulator")?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn last_lines(errors: &str, console: &str) -> String {
    const LINES: usize = 8;
    let lines = errors.lines().chain(console.lines()).map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    // A panic is told in its first line; a list of calls follows.
    let panic = lines.iter().position(|line| line.contains("Kernel panic"));
    let begin = panic.unwrap_or(lines.len().saturating_sub(LINES));
    match &lines[begin..lines.len().min(begin + LINES)] {
        [] => "none; does this kernel have a serial console and an initramfs?".to_owned(),
        last => last.join(" | "),
    }
}
