//! Values against a number, one line an arm, in one panel or several above each other.

use super::axis::{Axis, label};
use super::canvas::{Canvas, LINE, MARGIN, SIZE, WIDTH, width};
use crate::report::colours::Look;
use crate::statistics::Interval;

/// A value at a place.
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// The ends of its whisker.
    pub bounds: Option<Interval>,
    /// Whether it has a mark; else the line goes through it.
    pub is_marked: bool,
    /// Whether there is something to mind.
    pub is_ringed: bool,
}

/// The points of an arm.
pub struct Line {
    pub label: String,
    pub look: Look,
    pub points: Vec<Point>,
}

/// Lines on one pair of axes.
pub struct Panel {
    /// The quantity drawn, with its unit.
    pub title: String,
    pub lines: Vec<Line>,
    /// The objective, drawn across.
    pub goal: Option<(f64, String)>,
    /// Whether values are ratios: their axis does not begin at 0.
    pub is_ratio: bool,
}

/// The axis that all panels share.
pub struct Across {
    /// Its quantity, with its unit.
    pub title: String,
    pub axis: Axis,
    /// Values and what is written there, if not the round numbers.
    pub ticks: Option<Vec<(f64, String)>>,
    /// Whether points at one place are drawn beside each other.
    pub has_places: bool,
}

/// The place where the values' numbers end and the lines begin.
pub const LEFT: f64 = 52.0;

/// The place where the lines end.
pub const RIGHT: f64 = WIDTH - MARGIN - 8.0;

const HEIGHT: f64 = 132.0;

/// How far beside each other points at one place are drawn.
const BESIDE: f64 = 5.0;

/// Draws the panels that have values.
pub fn draw(canvas: &mut Canvas, across: &Across, panels: &[Panel]) {
    let names = |panel: &Panel| -> Vec<String> {
        panel.lines.iter().map(|line| line.label.clone()).collect()
    };
    let has_one_legend = panels.windows(2).all(|pair| names(&pair[0]) == names(&pair[1]));
    for (index, panel) in panels.iter().enumerate() {
        if index == 0 || !has_one_legend {
            let looks: Vec<_> =
                panel.lines.iter().map(|line| (line.look, line.label.as_str())).collect();
            canvas.legend(&looks, true);
        }
        draw_panel(canvas, across, panel);
    }
    canvas.y += LINE;
    canvas.text((LEFT + RIGHT) / 2.0, canvas.y - 4.0, "soft mid", &across.title);
    canvas.y += 4.0;
}

fn draw_panel(canvas: &mut Canvas, across: &Across, panel: &Panel) {
    canvas.y += LINE + 2.0;
    canvas.text(MARGIN, canvas.y - 4.0, "strong", &panel.title);
    let (top, bottom) = (canvas.y + 4.0, canvas.y + 4.0 + HEIGHT);
    canvas.y = bottom;
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let of_point = |point: &Point| {
        let Interval { low, high } =
            point.bounds.unwrap_or(Interval { low: point.y, high: point.y });
        [point.y, low, high]
    };
    let values = points().flat_map(of_point).chain(panel.goal.iter().map(|(goal, _)| *goal));
    let up = match panel.is_ratio {
        true => Axis::of_ratios(values, bottom, top),
        false => Axis::fitting(values, bottom, top),
    };
    let Some(up) = up else { return };

    for tick in up.ticks() {
        canvas.line("rule", (LEFT, up.at(tick)), (RIGHT, up.at(tick)));
        canvas.text(LEFT - 6.0, up.at(tick) + 4.0, "soft end", &label(tick));
    }
    let round = || across.axis.ticks().into_iter().map(|tick| (tick, label(tick))).collect();
    let mut free = 0.0;
    for (tick, text) in across.ticks.clone().unwrap_or_else(round) {
        let (x, half) = (across.axis.at(tick), width(&text, SIZE) / 2.0);
        canvas.line("rule", (x, top), (x, bottom));
        // Numbers that would run into each other or over the edge are left out, their lines are
        // not.
        if x - half >= free && x + half <= WIDTH {
            canvas.text(x, bottom + 14.0, "soft mid", &text);
            free = x + half + 4.0;
        }
    }
    canvas.line("axis", (LEFT, bottom), (RIGHT, bottom));
    canvas.y += LINE;
    if let Some((goal, words)) = &panel.goal {
        canvas.line("goal", (LEFT, up.at(*goal)), (RIGHT, up.at(*goal)));
        canvas.text(LEFT + 4.0, up.at(*goal) - 4.0, "soft", words);
    }

    for (index, line) in panel.lines.iter().enumerate() {
        let place = index as f64 - (panel.lines.len() - 1) as f64 / 2.0;
        let beside = if across.has_places { place * BESIDE } else { 0.0 };
        let drawn = draw_line(canvas, across, &up, line, beside);
        canvas.describe(format!("{}, {drawn}", panel.title));
    }
}

/// Draws a line with its marks, `beside` its places, and returns it in words.
fn draw_line(canvas: &mut Canvas, across: &Across, up: &Axis, line: &Line, beside: f64) -> String {
    let place =
        |point: &Point| ((across.axis.at(point.x) + beside).clamp(LEFT, RIGHT), up.at(point.y));
    let drawn: Vec<&Point> = line
        .points
        .iter()
        .filter(|point| across.axis.holds(point.x) && up.holds(point.y))
        .collect();
    if drawn.len() > 1 {
        canvas.line_of(line.look, &drawn.iter().map(|point| place(point)).collect::<Vec<_>>());
    }
    for point in drawn.iter().filter(|point| point.is_marked) {
        let (x, y) = place(point);
        if let Some(Interval { low, high }) =
            point.bounds.filter(|bounds| up.holds(bounds.low) && up.holds(bounds.high))
        {
            canvas.whisker((x, up.at(low)), (x, up.at(high)));
        }
        canvas.mark(line.look, x, y);
        if point.is_ringed {
            canvas.ring(x, y);
        }
    }
    let of_point = |point: &&Point| format!("{} at {}", label(point.y), label(point.x));
    let told: Vec<String> = drawn.iter().filter(|point| point.is_marked).map(of_point).collect();
    format!("{}: {}.", line.label, told.join(", "))
}
