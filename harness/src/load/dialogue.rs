//! Input while the load runs: the commands of `--commands`, and SIGINT.

use std::io::BufRead as _;
use std::sync::mpsc::Sender;

use anyhow::{Context, Result, bail, ensure};
use ringmark::whereabouts::Whereabouts;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::output::{Output, print};
use super::pace::Budget;
use super::result::LoadEvent;
use super::thread_pool::{MainEvent, ThreadPool};

/// Says where this process is, and carries out the commands of stdin until `quit` or its end.
pub fn obey(threads: &mut ThreadPool, output: &mut Output) -> Result<()> {
    print(&LoadEvent::Started(Whereabouts::of_this_process()))?;
    while let Some(line) = threads.next_line()? {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["connections", count] => {
                print(&threads.set_connections(number(&line, count)? as usize)?)?;
            }
            ["echo", count] => {
                let each = number(&line, count)?;
                ensure!(each > 0, "command `{line}`: at least one echo is needed");
                let result = threads.run(Budget::Each(each), None, false, &mut |_| Ok(()))?;
                output.publish(result, LoadEvent::Echoed)?;
            }
            ["run"] => {
                let barrier = threads.is_part();
                let result = threads.run_as_planned(barrier, &mut |event| print(&event))?;
                output.publish(result, LoadEvent::Result)?;
            }
            ["quit"] => break,
            _ => bail!(
                "command `{line}`: unknown; there are `connections N`, `echo K`, `run` and `quit`"
            ),
        }
    }
    Ok(())
}

fn number(line: &str, text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("command `{line}`: `{text}` is not a number"))
}

/// Passes the first SIGINT on; the second ends the process at once.
pub fn listen_for_interrupts(sender: Sender<MainEvent>) -> Result<()> {
    let mut signals = Signals::new([SIGINT]).context("SIGINT")?;
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 || sender.send(MainEvent::Interrupted).is_err() {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// Passes the lines of stdin on, and its end.
pub fn listen_to_stdin(sender: Sender<MainEvent>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(MainEvent::Line(line)).is_err() {
                return;
            }
        }
        let _ = sender.send(MainEvent::Eof);
    });
}
