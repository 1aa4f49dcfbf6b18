//! Whether what a server's knobs ask for is in force in it, as far as the server tells.

use std::fmt::Display;

use serde::Deserialize;

/// The knobs that ask the kernel for something.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AskedOfKernel {
    registered_ring: Option<String>,
    no_iowait: Option<String>,
    task_run: Option<String>,
    sq_idle_ms: u64,
    sq_cpu: u64,
    min_wait_us: u64,
    sq_entries: u64,
    cq_entries: u64,
    buffers: u64,
    busy_poll_us: u64,
}

/// The settings that a server says to be in force.
#[derive(Default, Deserialize)]
#[serde(default)]
struct InForce {
    registered_ring: Option<bool>,
    no_iowait: Option<bool>,
    setup: Option<String>,
    features: Option<Vec<String>>,
    sq_entries: Option<u64>,
    cq_entries: Option<u64>,
    buffers: Option<u64>,
    busy_poll_us: Option<u64>,
}

/// Says what the knobs ask for and the server does not say to be in force; both are JSON. A server
/// may leave settings out, except for those that every ring tells.
pub fn missing(knobs: &str, in_force: &str) -> Vec<String> {
    match (serde_json::from_str(knobs), serde_json::from_str(in_force)) {
        (Ok(asked), Ok(found)) => compare(&asked, &found),
        (Err(error), _) => vec![format!("the server's knobs cannot be read: {error}: {knobs}")],
        (_, Err(error)) => vec![format!("what is in force cannot be read: {error}: {in_force}")],
    }
}

fn compare(asked: &AskedOfKernel, found: &InForce) -> Vec<String> {
    let setup = json(&found.setup);
    let mut missing = Vec::new();
    let mut expect = |holds: bool, knob: &str, asked: &dyn Display, found: &str| {
        if !holds {
            missing.push(format!("{knob}={asked} is not in force, the server says {found}"));
        }
    };
    for (knob, asked, found) in [
        ("registered_ring", &asked.registered_ring, found.registered_ring),
        ("no_iowait", &asked.no_iowait, found.no_iowait),
    ] {
        if let Some(asked) = asked {
            expect(found == Some(asked == "on"), knob, asked, &json(&found));
        }
    }
    if let Some(task_run) = &asked.task_run {
        let holds = found.has_flag("DEFER_TASKRUN") == (task_run == "defer")
            && found.has_flag("COOP_TASKRUN") == (task_run == "coop");
        expect(holds, "task_run", task_run, &setup);
    }
    for (knob, asked, flag) in
        [("sq_idle_ms", asked.sq_idle_ms, "SQPOLL"), ("sq_cpu", asked.sq_cpu, "SQ_AFF")]
    {
        expect(asked == 0 || found.has_flag(flag), knob, &asked, &setup);
    }
    let has_timeout = (found.features.iter().flatten()).any(|feature| feature == "min_timeout");
    let holds = asked.min_wait_us == 0 || has_timeout;
    expect(holds, "min_wait_us", &asked.min_wait_us, &json(&found.features));
    // The kernel rounds sizes up.
    for (knob, asked, found) in [
        ("sq_entries", asked.sq_entries, found.sq_entries),
        ("cq_entries", asked.cq_entries, found.cq_entries),
        ("buffers", asked.buffers, found.buffers),
    ] {
        expect(
            asked == 0 || found.is_some_and(|found| found >= asked),
            knob,
            &asked,
            &json(&found),
        );
    }
    let holds = asked.busy_poll_us == 0 || found.busy_poll_us == Some(asked.busy_poll_us);
    expect(holds, "busy_poll_us", &asked.busy_poll_us, &json(&found.busy_poll_us));
    missing
}

impl InForce {
    fn has_flag(&self, flag: &str) -> bool {
        self.setup.as_deref().unwrap_or("").split('|').any(|found| found == flag)
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::json!(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_not_in_force_is_found() {
        let ring = r#"{"setup":"SINGLE_ISSUER|CQSIZE|DEFER_TASKRUN","features":["nodrop"],
            "registered_ring":true,"sq_entries":256,"cq_entries":4096,"buffers":1024}"#;
        let polled = r#"{"setup":"SINGLE_ISSUER|SQPOLL","registered_ring":false}"#;
        let busy = r#"{"trigger":"edge","busy_poll_us":50}"#;
        for (knobs, in_force, words) in [
            (
                r#"{"task_run":"defer","registered_ring":"on","sq_entries":200,"min_wait_us":0}"#,
                ring,
                None,
            ),
            (r#"{"registered_ring":"off"}"#, polled, None),
            (r#"{"sq_idle_ms":10,"sq_cpu":0}"#, polled, None),
            (r#"{"receive_bytes":65536,"busy_poll_us":0}"#, r#"{"trigger":"edge"}"#, None),
            (r#"{"busy_poll_us":50}"#, busy, None),
            ("{}", "{}", None),
            ("{", "{}", Some("the server's knobs cannot be read: EOF while parsing")),
            (
                "{}",
                r#"{"setup":1}"#,
                Some("what is in force cannot be read: invalid type: integer"),
            ),
            (
                r#"{"registered_ring":"on"}"#,
                polled,
                Some("registered_ring=on is not in force, the server says false"),
            ),
            (r#"{"registered_ring":"on"}"#, "{}", Some("registered_ring=on")),
            (r#"{"registered_ring":"off"}"#, ring, Some("registered_ring=off")),
            (r#"{"task_run":"defer"}"#, polled, Some("task_run=defer")),
            (r#"{"task_run":"coop"}"#, ring, Some("task_run=coop")),
            (r#"{"task_run":"default"}"#, ring, Some("task_run=default")),
            (r#"{"sq_idle_ms":10}"#, ring, Some("sq_idle_ms=10")),
            (r#"{"sq_cpu":3}"#, polled, Some("sq_cpu=3")),
            (r#"{"min_wait_us":5}"#, ring, Some("min_wait_us=5")),
            (
                r#"{"sq_entries":512}"#,
                ring,
                Some("sq_entries=512 is not in force, the server says 256"),
            ),
            (r#"{"buffers":2048}"#, ring, Some("buffers=2048")),
            (
                r#"{"busy_poll_us":70}"#,
                busy,
                Some("busy_poll_us=70 is not in force, the server says 50"),
            ),
        ] {
            let found = missing(knobs, in_force);
            match words {
                None => assert_eq!(found, [""; 0], "{knobs}"),
                Some(words) => {
                    assert!(found.len() == 1 && found[0].starts_with(words), "{knobs}: {found:?}");
                }
            }
        }
    }
}
