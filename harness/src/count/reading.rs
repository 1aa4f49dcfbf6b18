//! Reads what a boot leaves: the plugin's windows, and the guest's answers to them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::functions::Functions;
use super::job::{GuestEvent, Map};
use crate::rows::Status;

/// Instructions of a role.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoleCounts {
    pub user: u64,
    pub kernel: u64,
}

/// A run of instructions, and how often the server went through it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CodeBlock {
    pub start: u64,
    pub length: u64,
    pub runs: u64,
}

/// A window, as the plugin counted it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginWindow {
    pub server: RoleCounts,
    pub load: RoleCounts,
    /// Anything else: the idle task, the first program, threads of the kernel's own.
    pub other: RoleCounts,
    pub blocks: Vec<CodeBlock>,
}

/// A window of a count.
pub struct CountedWindow {
    pub echoes: u64,
    pub events_per_wait: Option<f64>,
    pub window: PluginWindow,
}

/// A count: a server under a workload.
pub struct CountReading {
    pub windows: Vec<CountedWindow>,
    pub maps: Vec<Map>,
    pub status: Status,
    pub reason: String,
}

/// All that a boot has counted.
pub struct BootReading {
    pub kernel: String,
    pub cpu: String,
    /// By the number of the count.
    pub counts: BTreeMap<usize, CountReading>,
    /// The kernel's functions.
    pub functions: Functions,
}

/// The self-test may execute so many instructions beside its loop.
const BESIDE_TEST: u64 = 200;

impl BootReading {
    /// Puts the windows to the answers.
    pub fn read(windows: &str, answers: Vec<GuestEvent>) -> Result<Self> {
        let mut windows = read_windows(windows)?.into_iter();
        let mut reading = Self {
            kernel: String::new(),
            cpu: String::new(),
            counts: BTreeMap::new(),
            functions: Functions::default(),
        };
        for event in answers {
            match event {
                GuestEvent::Up { kernel, cpu } => (reading.kernel, reading.cpu) = (kernel, cpu),
                GuestEvent::Tested { instructions } => {
                    check(&windows.next().context("no window of the self-test")?, instructions)?;
                }
                GuestEvent::Begins { count, maps } => reading.count(count).maps = maps,
                GuestEvent::Window { count, echoes, events_per_wait } => {
                    let window = windows.next().context("the plugin counted too few windows")?;
                    let measured = CountedWindow { echoes, events_per_wait, window };
                    reading.count(count).windows.push(measured);
                }
                GuestEvent::Ends { count, status, reason } => {
                    let count = reading.count(count);
                    (count.status, count.reason) = (status, reason);
                }
                GuestEvent::Symbol { address, name } => reading.functions.add(address, None, name),
                GuestEvent::Said { .. }
                | GuestEvent::Ran { .. }
                | GuestEvent::Left { .. }
                | GuestEvent::Done => {}
            }
        }
        ensure!(windows.next().is_none(), "the plugin counted more windows than there were");
        Ok(reading)
    }

    fn count(&mut self, count: usize) -> &mut CountReading {
        self.counts.entry(count).or_insert_with(|| CountReading {
            windows: Vec::new(),
            maps: Vec::new(),
            status: Status::Failed,
            reason: "it did not end".to_owned(),
        })
    }
}

/// Fails if the plugin did not count the instructions of the self-test.
fn check(window: &PluginWindow, instructions: u64) -> Result<()> {
    let counted = window.other.user;
    ensure!(
        (instructions..instructions + BESIDE_TEST).contains(&counted),
        "the plugin counted {counted} instructions of a loop of {instructions}: no figure of this \
         emulator can be trusted"
    );
    Ok(())
}

fn read_windows(text: &str) -> Result<Vec<PluginWindow>> {
    let mut windows = Vec::new();
    let mut window = PluginWindow::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["window", _] => window = PluginWindow::default(),
            ["role", role, user, kernel, tasks, _switches] => {
                let instructions =
                    RoleCounts { user: number(user, 10)?, kernel: number(kernel, 10)? };
                let to = match role {
                    "server" => &mut window.server,
                    "load" => &mut window.load,
                    _ => &mut window.other,
                };
                to.user += instructions.user;
                to.kernel += instructions.kernel;
                // The idle task alone was made by nobody.
                ensure!(
                    role != "unknown" || number(tasks, 10)? <= 1,
                    "{tasks} tasks ran of which the plugin does not know who made them: this \
                     kernel makes tasks in another way than those that it was tried with"
                );
            }
            ["block", start, length, runs] => window.blocks.push(CodeBlock {
                start: number(start, 16)?,
                length: number(length, 10)?,
                runs: number(runs, 10)?,
            }),
            ["end"] => {
                let RoleCounts { user, kernel } = window.server;
                let in_blocks: u64 = window.blocks.iter().map(|at| at.length * at.runs).sum();
                ensure!(
                    in_blocks == user + kernel,
                    "the plugin counted {} instructions of the server, and {in_blocks} in its \
                     blocks",
                    user + kernel
                );
                windows.push(std::mem::take(&mut window));
            }
            _ => bail!("the plugin wrote '{line}'"),
        }
    }
    Ok(windows)
}

fn number(text: &str, base: u32) -> Result<u64> {
    u64::from_str_radix(text, base).with_context(|| format!("the plugin wrote '{text}'"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const TEST: &str = "window 1\nrole other 3000090 1000 2 2\nrole server 0 0 0 0\n\
        role load 0 0 0 0\nrole unknown 0 0 1 2\nend\n";
    const WINDOW: &str = "window 2\nrole other 1 2 2 2\nrole server 10 20 1 5\n\
        role load 30 40 1 5\nrole unknown 0 7 1 2\nblock ffffffff81000010 6 5\nend\n";

    fn answers() -> Vec<GuestEvent> {
        vec![
            GuestEvent::Up { kernel: "6.1".to_owned(), cpu: "a CPU".to_owned() },
            GuestEvent::Tested { instructions: 3_000_000 },
            GuestEvent::Begins { count: 0, maps: Vec::new() },
            GuestEvent::Window { count: 0, echoes: 2, events_per_wait: None },
            GuestEvent::Ends { count: 0, status: Status::Ok, reason: String::new() },
            GuestEvent::Done,
        ]
    }

    #[test]
    fn windows_are_put_to_their_counts() {
        let reading = BootReading::read(&(TEST.to_owned() + WINDOW), answers()).unwrap();
        let CountedWindow { echoes, window, .. } = &reading.counts[&0].windows[0];
        assert_eq!(*echoes, 2);
        assert_eq!(window.server, RoleCounts { user: 10, kernel: 20 });
        assert_eq!(window.other, RoleCounts { user: 1, kernel: 9 });
        assert_eq!(window.blocks, [CodeBlock { start: 0xffff_ffff_8100_0010, length: 6, runs: 5 }]);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let refused = |windows: String| BootReading::read(&windows, answers()).err().unwrap();
        let all = TEST.to_owned() + WINDOW;
        assert!(refused(TEST.to_owned()).to_string().contains("too few"));
        assert!(refused(all.clone() + WINDOW).to_string().contains("more windows"));
        assert!(refused(all.replace("3000090", "2999999")).to_string().contains("trusted"));
        assert!(refused(all.replace("7 1 2", "7 2 2")).to_string().contains("who made them"));
        assert!(refused(all.replace("6 5", "6 4")).to_string().contains("in its blocks"));
        assert!(refused(all.replace("block", "blocks")).to_string().contains("blocks"));
    }
}
