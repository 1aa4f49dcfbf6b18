//! `ringmark calibrate`: what it refuses, and that it judges a folder as it did before.

use std::fs;
use std::path::Path;

use crate::{Place, assert_has, failure, stdout, success};

#[test]
fn too_little_time_is_refused_with_how_much_is_enough() {
    let place = Place::with("");
    let line = failure(place.command("calibrate").args([
        "--time",
        "1s",
        "--window",
        "20ms",
        "--connections",
        "4",
    ]));
    assert_has(&line, &["--time 1s", "a verdict takes 10", "or more"]);
    assert!(!place.path("results").exists(), "nothing was begun");
    for bad in ["0", "-1", "nan"] {
        let line = failure(place.command("calibrate").arg(format!("--handicaps={bad}")));
        assert_has(&line, &["--handicaps", "percent"]);
    }
    let line = failure(place.command("calibrate").args(["--backend", "epol"]));
    assert_has(&line, &["there is no backend 'epol'"]);
    let line = failure(place.command("calibrate").args(["--backend", "null"]));
    assert_has(&line, &["--backend null: it echoes nothing"]);
}

/// The committed ones are what their trials say.
#[test]
fn a_calibration_can_be_judged_again() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    for folder in fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(before) = fs::read_to_string(folder.join("calibration.json")) else { continue };
        let place = Place::with("");
        let copy = place.path(folder.file_name().unwrap().to_str().unwrap());
        fs::create_dir(&copy).unwrap();
        for file in ["manifest.json", "trials.csv"] {
            fs::copy(folder.join(file), copy.join(file)).unwrap();
        }
        let printed = stdout(&success(place.command("calibrate").arg("--from").arg(&copy)));
        assert_has(&printed, &["server_cpu_ns_per_echo", "latency_p99_us", "the same server"]);
        assert_eq!(fs::read_to_string(copy.join("calibration.json")).unwrap(), before);
    }
}
