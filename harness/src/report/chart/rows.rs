//! One arm a row, with its name and its figures above what is drawn: names may be long, and nothing
//! is turned.

use super::axis::{Axis, label};
use super::canvas::{BOLD, Canvas, LINE, MARGIN, SIZE, WIDTH, width, wrapped};
use crate::report::colours::{Colour, Look};
use crate::statistics::{Interval, median};

/// The figure that is drawn for an arm.
pub enum Drawn {
    /// A ratio and its bounds.
    Ratio { look: Look, at: f64, bounds: Interval },
    /// A bar from 0, with the bounds of its end.
    Bar { look: Look, to: f64, bounds: Option<Interval> },
    /// Parts one after the other.
    Stack(Vec<StackPart>),
}

/// A part of a stack.
pub struct StackPart {
    pub name: String,
    pub colour: Colour,
    pub size: f64,
}

/// A row.
pub struct ChartRow {
    pub label: String,
    /// The figures, in words.
    pub figures: String,
    pub drawn: Drawn,
}

/// Rows on one axis.
pub struct Group {
    pub heading: String,
    pub rows: Vec<ChartRow>,
    /// Drawn behind them: what is no difference.
    pub band: Option<Interval>,
}

/// The ends of an axis; its outermost numbers stand half beyond.
const FROM: f64 = MARGIN + 8.0;
const TO: f64 = WIDTH - MARGIN - 16.0;

/// The height of a mark.
const HEIGHT: f64 = 12.0;

/// Ratios on one axis for all groups if no group would be squeezed, else on one each.
const COMMON_AXIS_BELOW: f64 = 4.0;

/// A bar that is more than so many times as long as the middle one goes on beyond the picture, or
/// it would leave no room for the others.
const LONGEST: f64 = 8.0;

/// Between a bar and the next name.
const GAP: f64 = 5.0;

/// Draws groups of ratios, or of bars and stacks; these on one axis if all groups are of one kind.
pub fn draw(canvas: &mut Canvas, groups: &[Group], axis_title: &str, are_of_one_kind: bool) {
    let parts: Vec<(Colour, &str)> = legend(groups);
    if !parts.is_empty() {
        canvas.flow(&parts, 16.0, |canvas, colour, x, y| {
            canvas.rect(&format!("bar {}", colour.class()), (x, y - 6.0), (12.0, 12.0));
        });
    }
    let all: Vec<f64> = groups.iter().flat_map(values).collect();
    let is_ratio = groups
        .iter()
        .flat_map(|group| &group.rows)
        .any(|row| matches!(row.drawn, Drawn::Ratio { .. }));
    let common = match is_ratio {
        true => Some(ratio_axis(&all))
            .filter(|(_, quotient)| *quotient < COMMON_AXIS_BELOW)
            .map(|(axis, _)| axis),
        false => are_of_one_kind.then(|| bar_axis(groups)),
    };
    let mut is_any_cut = false;
    for group in groups {
        let own = || match is_ratio {
            true => ratio_axis(&values(group)).0,
            false => bar_axis(std::slice::from_ref(group)),
        };
        let axis = common.clone().unwrap_or_else(own);
        is_any_cut |= group.rows.iter().filter_map(length).any(|length| length > axis.high);
        draw_group(canvas, group, &axis, is_ratio);
    }
    canvas.y += 4.0;
    canvas.note(axis_title);
    if is_any_cut {
        canvas.note("» goes on beyond the picture.");
    }
}

/// Returns the length of a bar or a stack.
fn length(row: &ChartRow) -> Option<f64> {
    match &row.drawn {
        Drawn::Ratio { .. } => None,
        Drawn::Bar { to, .. } => Some(*to),
        Drawn::Stack(parts) => Some(parts.iter().map(|part| part.size).sum()),
    }
}

/// From 0, as long as the longest bar that is not cut.
fn bar_axis(groups: &[Group]) -> Axis {
    let rows = || groups.iter().flat_map(|group| &group.rows);
    let mut lengths: Vec<f64> =
        rows().filter_map(length).filter(|length| length.is_finite()).collect();
    let most = median(&mut lengths).map_or(f64::INFINITY, |middle| middle * LONGEST);
    let whole = rows().filter(|row| length(row).is_some_and(|length| length <= most));
    let ends = whole.flat_map(|row| match &row.drawn {
        Drawn::Bar { to, bounds: Some(Interval { high, .. }), .. } => [*to, *high],
        _ => [length(row).unwrap_or_default(); 2],
    });
    Axis::from_zero(ends, FROM, TO)
}

/// Every part once, in the order in which they come.
fn legend(groups: &[Group]) -> Vec<(Colour, &str)> {
    let mut parts: Vec<(Colour, &str)> = Vec::new();
    for row in groups.iter().flat_map(|group| &group.rows) {
        let Drawn::Stack(stack) = &row.drawn else { continue };
        for part in stack.iter().filter(|part| part.size > 0.0) {
            if !parts.iter().any(|(_, name)| *name == part.name) {
                parts.push((part.colour, &part.name));
            }
        }
    }
    parts
}

/// Whatever has a place on the axis.
fn values(group: &Group) -> Vec<f64> {
    let of_row = |row: &ChartRow| match &row.drawn {
        Drawn::Ratio { at, bounds: Interval { low, high }, .. } => vec![*at, *low, *high],
        Drawn::Bar { to, bounds, .. } => vec![*to, bounds.map_or(*to, |bounds| bounds.high)],
        Drawn::Stack(parts) => vec![parts.iter().map(|part| part.size).sum()],
    };
    let band = group.band.into_iter().flat_map(|Interval { low, high }| [low, high]);
    group.rows.iter().flat_map(of_row).chain(band).collect()
}

/// With 1 on it, and the quotient of its ends.
fn ratio_axis(values: &[f64]) -> (Axis, f64) {
    let values =
        values.iter().copied().filter(|value| crate::report::chart::axis::is_drawable(*value));
    let (low, high) = values
        .fold((0.98, 1.02), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
    (Axis::log(low, high, FROM, TO), high / low)
}

fn draw_group(canvas: &mut Canvas, group: &Group, axis: &Axis, is_ratio: bool) {
    canvas.y += 6.0;
    for line in wrapped(&group.heading, WIDTH - 2.0 * MARGIN, SIZE * BOLD) {
        canvas.y += LINE;
        canvas.text(MARGIN, canvas.y - 4.0, "strong", &line);
    }
    let top = canvas.y + 2.0;
    // The ground behind the rows comes first, so their places are found before.
    let mut places = Vec::new();
    for row in &group.rows {
        let room = WIDTH - 2.0 * MARGIN - 10.0;
        let is_one_line = width(&row.label, SIZE) + width(&row.figures, SIZE) <= room;
        let text = canvas.y + GAP + LINE;
        let figures = if is_one_line { text } else { text + LINE };
        places.push((text, figures));
        canvas.y = figures + HEIGHT + 4.0;
    }
    let bottom = canvas.y + 2.0;
    if let Some(Interval { low, high }) =
        group.band.filter(|band| axis.holds(band.low) && axis.holds(band.high))
    {
        canvas.rect("band", (axis.at(low), top), (axis.at(high) - axis.at(low), bottom - top));
    }
    let mut free = 0.0;
    for tick in axis.ticks() {
        let (x, text) = (axis.at(tick), label(tick));
        canvas.line("rule", (x, top), (x, bottom));
        let half = width(&text, SIZE) / 2.0;
        if x - half >= free && x + half <= WIDTH {
            canvas.text(x, bottom + 13.0, "soft mid", &text);
            free = x + half + 4.0;
        }
    }
    if is_ratio {
        canvas.line("axis", (axis.at(1.0), top), (axis.at(1.0), bottom));
    } else {
        canvas.line("axis", (axis.at(0.0), top), (axis.at(0.0), bottom));
    }
    for (row, (text, figures)) in group.rows.iter().zip(places) {
        // Its ground keeps the lines behind out of the words.
        canvas.text(MARGIN, text - 2.0, "halo", &row.label);
        canvas.text(WIDTH - MARGIN, figures - 2.0, "soft end halo", &row.figures);
        draw_row(canvas, row, axis, figures + 3.0);
        if length(row).is_some_and(|length| length > axis.high) {
            canvas.text(TO + 4.0, figures + HEIGHT, "strong", "»");
        }
        canvas.describe(format!("{}, {}: {}.", group.heading, row.label, row.figures));
    }
    canvas.y = bottom + LINE;
}

/// Between `top` and [`HEIGHT`] below.
fn draw_row(canvas: &mut Canvas, row: &ChartRow, axis: &Axis, top: f64) {
    let middle = top + HEIGHT / 2.0;
    match &row.drawn {
        Drawn::Ratio { look, at, bounds: Interval { low, high } } => {
            if ![*at, *low, *high].iter().all(|value| axis.holds(*value)) {
                return;
            }
            // One block has no range.
            if low < high {
                canvas.whisker((axis.at(*low), middle), (axis.at(*high), middle));
            }
            canvas.mark(*look, axis.at(*at), middle);
        }
        Drawn::Bar { look, to, bounds } => {
            if !axis.holds(*to) {
                return;
            }
            let (from, to) = (axis.at(0.0), axis.at(*to));
            canvas.rect(
                &format!("bar {}", look.colour.class()),
                (from, top + 1.0),
                (to - from, HEIGHT - 2.0),
            );
            let is_within = |end: &Interval| axis.holds(end.low) && end.high <= axis.high;
            if let Some(Interval { low, high }) = bounds.filter(is_within) {
                canvas.whisker((axis.at(low), middle), (axis.at(high), middle));
            }
        }
        Drawn::Stack(parts) => {
            let mut sum = 0.0;
            for part in parts.iter().filter(|part| axis.holds(part.size) && part.size > 0.0) {
                let (from, to) = (axis.at(sum), axis.at(sum + part.size));
                sum += part.size;
                // Higher than a bar without a name, which may have an underscore.
                canvas.rect(
                    &format!("bar {}", part.colour.class()),
                    (from, top - 1.0),
                    (to - from, HEIGHT + 3.0),
                );
                if width(&part.name, SIZE) + 6.0 <= to - from {
                    canvas.text(f64::midpoint(from, to), top + HEIGHT - 2.0, "on", &part.name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::colours::Shape;

    #[test]
    fn what_has_no_place_is_not_drawn_and_one_reading_has_no_whisker() {
        let look = Look { colour: Colour::Blue, shape: Shape::Circle, variant: 0 };
        let drawn = |all: Vec<Drawn>| {
            let mut canvas = Canvas::new("n", "t");
            let row = |drawn| ChartRow { label: "arm".to_owned(), figures: String::new(), drawn };
            let group = Group {
                heading: String::new(),
                rows: all.into_iter().map(row).collect(),
                band: None,
            };
            draw(&mut canvas, &[group], "axis", true);
            canvas.finish().file()
        };
        let marks = |svg: &str, class: &str| svg.matches(&format!("class=\"{class}")).count();
        let ratio =
            |low, high| drawn(vec![Drawn::Ratio { look, at: 1.5, bounds: Interval { low, high } }]);
        assert_eq!(marks(&ratio(1.5, 1.5), "whisker"), 0);
        assert_eq!(marks(&ratio(1.4, 1.6), "whisker"), 3);
        let bars =
            [-5.0, f64::NAN, f64::INFINITY, 7.0].map(|to| Drawn::Bar { look, to, bounds: None });
        assert_eq!(marks(&drawn(bars.into()), "bar"), 1, "only what has a length");
        let part = |size| StackPart { name: "p".to_owned(), colour: Colour::Blue, size };
        let stack = drawn(vec![Drawn::Stack(vec![part(-3.0), part(0.0), part(2.0)])]);
        assert_eq!(marks(&stack, "bar"), 2, "one, and its sample in the legend");
        assert!(!stack.contains("NaN") && !stack.contains("inf"));
    }
}
