//! Pages of committed runs on a screen as narrow as a telephone; skipped without Chromium.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Place, QUICK, committed, stderr, stdout, success};

/// Tells the page around it what it finds wrong with itself.
const LOOK: &str = r"<script>
const wrong = [];
addEventListener('error', event => wrong.push(event.message));
addEventListener('load', () => {
  const width = document.documentElement.clientWidth;
  const wide = document.body.scrollWidth;
  if (wide > width) wrong.push(`it is ${wide} wide on a screen of ${width}`);
  let texts = 0, columns = 0;
  for (const svg of document.querySelectorAll('svg')) {
    const paper = svg.viewBox.baseVal, size = 12 * svg.getBoundingClientRect().width / paper.width;
    if (size < 11) wrong.push(`text of ${size} px`);
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBBox();
      texts += 1;
      if (box.x < 0 || box.y < 0
        || box.x + box.width > paper.width || box.y + box.height > paper.height)
        wrong.push(`cut off: ${text.textContent}`);
    }
  }
  for (const head of document.querySelectorAll('th.number')) {
    const values = () => [...head.closest('table').tBodies[0].rows]
      .map(row => row.cells[head.cellIndex].textContent)
      .filter(text => /^-?[\d,.]+$/.test(text)).map(text => Number(text.replaceAll(',', '')));
    for (const sign of [1, -1]) {
      head.querySelector('button').click();
      if (values().some((value, index, all) => index > 0 && sign * value < sign * all[index - 1]))
        wrong.push(`not in order: ${head.textContent}: ${values()}`);
    }
    columns += 1;
  }
  const charts = document.querySelectorAll('svg').length;
  parent.postMessage(JSON.stringify({width, texts, columns, charts, wrong}), '*');
});
</script>";

const AROUND: &str = "<!DOCTYPE html><body><pre id=\"found\"></pre><script>
addEventListener('message', event => document.getElementById('found').textContent = event.data);
</script><iframe src=\"page.html\" width=\"400\" height=\"800\" style=\"border:0\"></iframe>";

/// Under the names that distributions give it.
fn chromium() -> Option<&'static str> {
    let runs = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(runs)
}

/// Runs that differ in what their pages show.
const PAGES: [&str; 6] = ["-quick", "-ladder", "-standard", "-churn", "-million", "-instructions"];

#[test]
fn pages_stand_on_a_telephone() {
    let Some(chromium) = chromium() else { return eprintln!("skipped: there is no Chromium") };
    for run in PAGES {
        let place = Place::with("");
        stdout(&success(place.command("report").arg(committed(run)).args(["--out", "drawn"])));
        let page = place.path("drawn/report.html");
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("<script>"));
        fs::write(place.path("page.html"), text.replacen("</head>", &format!("{LOOK}</head>"), 1))
            .unwrap();
        fs::write(place.path("around.html"), AROUND).unwrap();
        let mut command = Command::new(chromium);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=10000",
            "--dump-dom",
        ]);
        command.arg(format!("--user-data-dir={}", place.path("profile").display()));
        let output = command
            .arg(format!("file://{}", place.path("around.html").display()))
            .output()
            .unwrap();
        let dumped = stdout(&output);
        let found =
            dumped.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let found = found
            .unwrap_or_default()
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">");
        let found: serde_json::Value = serde_json::from_str(&found).unwrap_or_else(|error| {
            panic!("{}: {error}: {found}: {}", page.display(), stderr(&output));
        });
        assert_eq!(found["wrong"], serde_json::json!([]), "{}", page.display());
        assert_eq!(found["width"], 400);
        assert!(found["columns"].as_u64() > Some(0), "{}: {found}", page.display());
        let charts = fs::read_dir(page.with_file_name("charts")).into_iter().flatten().count();
        assert_eq!(found["charts"], charts, "{}", page.display());
    }
}

/// By librsvg, which knows no custom properties: what it draws is told by the colours in a picture
/// that it writes.
#[test]
fn pictures_have_their_colours_outside_of_a_browser() {
    let render = |file: &Path| Command::new("rsvg-convert").args(["-f", "svg"]).arg(file).output();
    let place = Place::with("");
    let run = committed(QUICK);
    stdout(&place.command("report").arg(run).args(["--out", "drawn"]).output().unwrap());
    let mut count = 0;
    for file in fs::read_dir(place.path("drawn/charts")).unwrap().map(|entry| entry.unwrap().path())
    {
        let Ok(output) = render(&file) else {
            return eprintln!("skipped: there is no rsvg-convert");
        };
        let rendered = stdout(&output).replace(", ", ",");
        let rest = rendered.split("rgb(").skip(1).filter_map(|rest| rest.split(')').next());
        let colours: std::collections::BTreeSet<&str> = rest.collect();
        // White, two of text, of lines, and of marks or bars.
        assert!(colours.len() > 5, "{}: {colours:?}", file.display());
        assert!(!colours.contains("0%,0%,0%"), "{}: black is no colour of ours", file.display());
        count += 1;
    }
    assert!(count > 0);
}
