//! Several runs at once where none has a network of its own: each server takes ports that nobody
//! has.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::{FOUR_CONNECTIONS, Place, Running, heading};

/// The right to make network namespaces, by its number (capability.h).
const CAP_SYS_ADMIN: libc::c_ulong = 21;

#[test]
fn four_runs_in_one_network_do_not_take_each_others_ports() {
    let server =
        std::path::Path::new(env!("CARGO_BIN_EXE_ringmark")).with_file_name("ringmark-server");
    let external = format!(
        "[[external]]\nname = \"mine\"\ncommand = [\"{0}\", \"--backend\", \"poll\", \"--listen\", \
         \"127.0.0.1:{{port}}\"]\nready = \"port\"\nversion = [\"{0}\", \"--version\"]\n",
        server.display()
    );
    let workloads: String =
        (0..3).map(|number| FOUR_CONNECTIONS.replace("four", &format!("four-{number}"))).collect();
    let backends = heading(&["epoll-et", "poll"]);
    let matrix = format!("{backends}[syscalls]\nechoes = 20\n{external}{workloads}");
    let runs: Vec<(Place, Running)> = (0..4)
        .map(|_| {
            let place = Place::with(&matrix);
            let mut command = place.run();
            // SAFETY: prctl is a single system call, safe between fork and exec. Who is not root
            // has no such right.
            unsafe {
                command.pre_exec(|| {
                    libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_ADMIN);
                    Ok(())
                });
            }
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let running = Running(Some(command.spawn().unwrap()));
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
