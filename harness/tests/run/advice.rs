//! The advice of `ringmark doctor`, followed: it leads to what it promises.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::confine::is_root;
use crate::confined::{Commons, NOBODY, become_nobody};
use crate::{assert_has, stdout, success};

/// In place of the sysctl, which is for the whole machine.
const PERFMON: &str = "--inh-caps +perfmon --ambient-caps +perfmon";

/// A line of the screen.
fn line(command: &mut Command, name: &str) -> Value {
    let said: Value = serde_json::from_str(&stdout(&success(command))).unwrap();
    let lines = said["lines"].as_array().unwrap();
    lines
        .iter()
        .find(|line| line["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {said:#}"))
        .clone()
}

/// Returns the commands in backquotes that begin so.
fn quoted<'a>(advice: &'a str, beginning: &str) -> &'a str {
    advice
        .split('`')
        .skip(1)
        .step_by(2)
        .find(|command| command.starts_with(beginning))
        .unwrap_or_else(|| {
            panic!("no `{beginning} …` in: {advice}");
        })
}

#[test]
fn tracefs_mounted_as_advised_lets_a_user_count() {
    let tools = Command::new("unshare").args(["--mount", "setpriv", "--version"]).output();
    if !is_root() || !tools.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: it needs root, unshare and setpriv");
    }
    let commons = Commons::with("");
    let mut command = commons.command("ringmark");
    become_nobody(&mut command);
    let refused = line(command.args(["doctor", "--json"]), "tracepoints");
    if refused["status"] == "ok" {
        return eprintln!("skipped: anybody may count here");
    }
    // As root does it, where only this process sees it; tracefs is one, and so gets back what it
    // had.
    let after = |mount: &str, capabilities: &str| {
        let program = commons.place.path("ringmark");
        let script = format!(
            "{mount} && setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {capabilities} {} \
             doctor --json; \
             status=$?; mount -o remount,mode=700,gid=0 /sys/kernel/tracing; exit $status",
            program.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        line(&mut command, "tracepoints")
    };
    let advice = refused["advice"].as_str().unwrap();
    let advised = quoted(advice, "mount ").to_owned();
    if advice.contains("not mounted") {
        // By somebody who did not read on.
        let for_others = "mount -t tracefs tracefs /sys/kernel/tracing";
        let unreadable = after(for_others, "");
        let advice = unreadable["advice"].as_str().unwrap();
        assert_has(advice, &["/sys/kernel/tracing is not for this user to read"]);
        let remount = format!("{for_others} && {}", quoted(advice, "mount -o remount,"));
        assert_eq!(after(&remount, PERFMON)["status"], "ok");
    }
    assert_has(&advised, &[&format!("gid={NOBODY}")]);
    let counts = after(&advised, PERFMON);
    assert_eq!(counts["status"], "ok", "{counts}");
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    if paranoid.trim().parse::<i32>().unwrap() > 1 {
        assert_has(advice, &["`sysctl -w kernel.perf_event_paranoid=1`"]);
    }
}

#[test]
fn root_of_a_user_namespace_hears_whose_root_is_needed() {
    let commons = Commons::with("");
    let unshare = || {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user");
        command
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no user namespaces here");
    }
    let doctor = commons.place.path("ringmark");
    let line = line(unshare().arg(doctor).args(["doctor", "--json"]), "tracepoints");
    if line["status"] != "ok" {
        let advice = line["advice"].as_str().unwrap();
        assert_has(advice, &["this is a user namespace", "run as the host's root"]);
    }
}
