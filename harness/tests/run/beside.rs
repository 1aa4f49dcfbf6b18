//! Several runs at once where none has a network of its own: each server takes ports that nobody
//! has.

use std::fs;

use crate::confine::{CAP_SYS_ADMIN, drop_capability};
use crate::processes::Running;
use crate::programs::server;
use crate::{CALLS, FOUR_CONNECTIONS, Place, heading};

#[test]
fn four_runs_in_one_network_do_not_take_each_others_ports() {
    let external = format!(
        "[[external]]\nname = \"mine\"\ncommand = [\"{0}\", \"--backend\", \"poll\", \"--listen\", \
         \"127.0.0.1:{{port}}\"]\nready = \"port\"\nversion = [\"{0}\", \"--version\"]\n",
        server().display()
    );
    let workloads: String =
        (0..3).map(|number| FOUR_CONNECTIONS.replace("four", &format!("four-{number}"))).collect();
    let backends = heading(&["epoll-et", "poll"]);
    let matrix = format!("{backends}{CALLS}{external}{workloads}");
    let runs: Vec<(Place, Running)> = (0..4)
        .map(|_| {
            let place = Place::with(&matrix);
            let mut command = place.run();
            // Nobody makes a network namespace without it.
            drop_capability(&mut command, CAP_SYS_ADMIN);
            let running = Running::start(&mut command);
            (place, running)
        })
        .collect();
    for (place, running) in runs {
        let output = running.end();
        let rows = fs::read_to_string(place.out().join("trials.csv")).unwrap();
        assert!(output.status.success(), "{}\n{rows}", crate::stderr(&output));
        let rows = place.rows("trials.csv");
        assert_eq!(rows.len(), 9);
        assert!(rows.iter().all(|row| row["network_namespace"].starts_with("host: ")), "{rows:?}");
        assert!(rows.iter().all(|row| row["status"] != "failed"), "{rows:?}");
    }
}
