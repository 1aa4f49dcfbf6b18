//! A run as one HTML page that needs nothing else: the decision, pictures, tables, how it was
//! measured and where.

use itertools::Itertools as _;
use serde_json::Value;

use super::charts::Gallery;
use super::colours;
use super::grid;
use super::markup::{escape, inline};
use super::query::text_at;
use super::section::{Body, Section};
use super::table::Table;
use crate::matrix::{Arm, BLOCKS_FOR_VERDICT};
use crate::results::Run;
use crate::text::{grouped, significant};

/// The most arms that a title names.
const NAMED_ARMS: usize = 4;

/// Colours and sizes; those of the pictures stand before it.
const STYLE: &str = include_str!("page.css");

/// Makes the heads of tables sort their rows: numbers as numbers, what has none last.
const SCRIPT: &str = include_str!("page.js");

pub fn html(run: &Run, sections: &[Section], gallery: &Gallery) -> String {
    let title = escape(&title(run));
    let (of_method, of_figures): (Vec<&Section>, Vec<&Section>) = (sections.iter())
        // The verdicts stand at the top.
        .filter(|section| section.name != "verdicts")
        .partition(|section| ["run", "gates"].contains(&section.name));
    let verdicts =
        grid::opening(run).html("Verdicts") + &folded("Other metrics", &grid::others(run));
    let caveats = caveats(run).into_iter();
    let caveats = caveats.map(|line| format!("<p class=\"mind\">{}</p>\n", inline(&line)));
    let of_figures: Vec<_> =
        of_figures.into_iter().filter(|section| !section.body.is_empty()).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{}{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n<p class=\"question\">{}</p>\n{}</header>\n\
         {}<main>\n\
         <section id=\"verdicts\">\n<h2>Verdicts</h2>\n{}</section>\n\
         <section id=\"charts\">\n<h2>Charts</h2>\n{}</section>\n\
         <section id=\"tables\">\n<h2>Tables</h2>\n{}</section>\n\
         <section id=\"method\">\n<h2>Method, machine and gates</h2>\n\
         <h3>Method</h3>\n{}{}{}</section>\n\
         </main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        colours::STYLE,
        inline(&run.matrix.question),
        caveats.collect::<String>(),
        contents(gallery, &of_figures),
        verdicts,
        charts(gallery),
        of_figures.iter().map(section_html).collect::<String>(),
        method(run).html("Method"),
        of_method.iter().map(section_html).collect::<String>(),
        machine(run),
    )
}

/// Says what ran, and where.
fn title(run: &Run) -> String {
    let backends = &run.matrix.backends;
    let arms = if backends.len() > NAMED_ARMS {
        format!("{} arms", backends.len())
    } else {
        backends.iter().map(Arm::name).join(", ")
    };
    let name = text_at(&run.manifest, "/name");
    let machine = text_at(run.server_machine(), "/description");
    format!("{name}: {arms} on {machine}, {}", run.traffic())
}

/// Says what a reader must know before any figure.
fn caveats(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if !run.trials.iter().any(|row| row.status.is_usable()) {
        lines.push(format!(
            "No trial of this run gave figures that may be used, out of {}: nothing follows from \
             it.",
            run.trials.len()
        ));
    }
    match (run.state.caveat(), run.gap()) {
        (Some(caveat), _) => lines.push(format!("This run is {caveat}.")),
        (None, Some(gap)) => lines.push(format!("This run is not whole: {gap}.")),
        (None, None) => {}
    }
    if text_at(&run.manifest, "/build_profile") != "release" {
        lines.push("Not a release build: its figures are of no use.".to_owned());
    }
    let (wrote, shows) = (text_at(&run.manifest, "/ringmark"), env!("CARGO_PKG_VERSION"));
    if wrote != shows {
        lines.push(format!(
            "Version {wrote} of ringmark wrote this run, and version {shows} shows it."
        ));
    }
    lines
}

fn contents(gallery: &Gallery, sections: &[&Section]) -> String {
    let charts = gallery.charts.iter();
    let charts = charts.map(|chart| link(&format!("chart-{}", chart.name), &chart.title));
    format!(
        "<nav aria-label=\"Contents\">\n<details><summary>Contents</summary>\n\
         <ul>\n{}{}{}{}{}{}</ul>\n</details>\n</nav>\n",
        link("verdicts", "**Verdicts**"),
        link("charts", "**Charts**"),
        charts.collect::<String>(),
        link("tables", "**Tables**"),
        sections.iter().map(|section| link(section.name, section.title)).collect::<String>(),
        link("method", "**Method, machine and gates**"),
    )
}

fn link(id: &str, text: &str) -> String {
    format!("<li><a href=\"#{}\">{}</a></li>\n", escape(id), inline(text))
}

fn charts(gallery: &Gallery) -> String {
    let mut html = String::new();
    if !gallery.charts.is_empty() {
        html += "<div class=\"charts\">\n";
        for chart in &gallery.charts {
            let name = escape(&chart.name);
            html += &format!(
                "<figure id=\"chart-{name}\">\n{}\n<figcaption>\
                 <a href=\"charts/{name}.svg\">{name}.svg</a></figcaption>\n</figure>\n",
                chart.inline()
            );
        }
        html += "</div>\n";
    }
    if !gallery.absent.is_empty() {
        html += "<h3>Not drawn</h3>\n<ul>\n";
        for (what, why) in &gallery.absent {
            html += &format!("<li>{}: {}</li>\n", escape(what), inline(why));
        }
        html += "</ul>\n";
    }
    html
}

fn section_html(section: &&Section) -> String {
    format!("<div id=\"{}\">\n{}</div>\n", section.name, folded(section.title, &section.body))
}

/// Returns tables that are shown when their title is chosen, or when the page is printed.
fn folded(title: &str, body: &Body) -> String {
    if body.is_empty() {
        return String::new();
    }
    let (summary, body) = (inline(title), body.html(title));
    format!("<details>\n<summary>{summary}</summary>\n{body}</details>\n")
}

/// Says how the figures came about, as far as this run has them.
fn method(run: &Run) -> Body {
    let matrix = &run.matrix;
    let mut lines = vec![
        format!(
            "Baseline: `{}`. It runs several times in every block of the latency pass; an arm is \
             compared with all of its readings, and they are compared with each other.",
            matrix.baseline
        ),
        "A trial is a fresh server, a fresh client and one workload. A block is one trial of each \
         arm, in shuffled order."
            .to_owned(),
    ];
    if let Some(latency) = &matrix.latency {
        lines.push(format!(
            "Latency and CPU: {} blocks, windows of {}, each after a warm-up of at most {}.",
            latency.blocks,
            humantime::format_duration(latency.duration.get()),
            humantime::format_duration(latency.warmup_max.get())
        ));
        lines.push(format!(
            "A ratio is the Hodges–Lehmann estimate over the blocks that count, with its 95 % \
             interval by the signed ranks. Below {BLOCKS_FOR_VERDICT} blocks it has their range, \
             and no verdict. A block counts if every arm's trial in it passed the gates."
        ));
    }
    if let Some(syscalls) = &matrix.syscalls {
        lines.push(format!(
            "System calls: counted over {} echoes in a trial of its own.",
            grouped(syscalls.echoes)
        ));
    }
    if let Some(memory) = &matrix.memory {
        lines.push(format!(
            "Memory: {} One server is walked through {} connections and back; what one takes is \
             the slope (Theil–Sen), less that of the server `null`.",
            memory.question,
            counts(&memory.connections)
        ));
    }
    if let Some(scale) = &matrix.scale {
        lines.push(format!(
            "Scale: {} One server is walked through {} connections.",
            scale.question,
            counts(&scale.connections)
        ));
    }
    if let Some(seed) = run.manifest["seed"].as_u64() {
        lines.push(format!("Seed of the order: {seed}. The order stands in `manifest.json`."));
    }
    Body::default().notes(lines.iter().map(|line| format!("- {line}\n")).collect::<String>())
}

fn counts(connections: &[usize]) -> String {
    connections.iter().map(|&connections| grouped(connections as u64)).join(", ")
}

/// Shows what the machine could do and had, from the manifest.
fn machine(run: &Run) -> String {
    let mut html = String::new();
    let mut found = Table::new(5, &["what", "status", "found", "costs", "advice"]);
    for line in run.manifest["doctor"].as_array().into_iter().flatten() {
        let cells = ["name", "status", "found", "cost", "advice"]
            .map(|name| line[name].as_str().unwrap_or_default().to_owned());
        found.push(cells.to_vec());
    }
    if !found.is_empty() {
        html += &format!(
            "<h3>What was looked at before the run</h3>\n{}",
            found.html("What was looked at before")
        );
    }
    let mut facts = Table::new(2, &["fact", "value"]);
    for part in ["machine", "placement", "programs", "externals", "sides"] {
        add_facts(part, &run.manifest[part], &mut facts);
    }
    if !facts.is_empty() {
        html += &format!(
            "<details><summary>All facts of the manifest</summary>\n{}</details>\n",
            facts.html("Facts")
        );
    }
    html
}

/// Adds every fact below a name, in the order of their names.
fn add_facts(name: &str, value: &Value, facts: &mut Table) {
    let text = match value {
        Value::Null => return,
        Value::Object(parts) => {
            for (part, value) in parts.iter().sorted_by_key(|(part, _)| part.as_str()) {
                add_facts(&format!("{name}.{part}"), value, facts);
            }
            return;
        }
        Value::Array(parts) => parts
            .iter()
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .join(" "),
        Value::String(text) => text.clone(),
        Value::Number(value) if !value.is_u64() => {
            value.as_f64().map_or_else(|| value.to_string(), significant)
        }
        other => other.to_string(),
    };
    facts.push(vec![name.to_owned(), text]);
}
