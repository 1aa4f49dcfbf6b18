//! Pictures in SVG: the paper that they are drawn on, with title, legend and notes.
//!
//! Why not `plotters`: its SVG backend places everything on whole pixels, writes colours as numbers
//! where a page that is light or dark needs classes, takes every byte of a text for 0.45 of its
//! size and writes a legend over the data. These pictures need little: axes and marks.
//!
//! A picture is as wide as a telephone's screen, so that its text is still 11 px there; nothing is
//! written across.

use crate::report::colours::{FONT, Look, STYLE, Shape, painted};
use crate::report::markup::escape;

/// The width of every picture, in its own units.
pub const WIDTH: f64 = 360.0;

/// Between the edge and what is drawn.
pub const MARGIN: f64 = 8.0;

/// From one line of text to the next.
pub const LINE: f64 = 16.0;

/// The size of the text.
pub const SIZE: f64 = 12.0;

/// How much wider strong text is.
pub const BOLD: f64 = 1.12;

/// The size of the title.
const TITLE_SIZE: f64 = 14.0;

/// How much larger than in its own units a picture is that stands alone.
const ALONE: f64 = 1.5;

/// A finished picture.
pub struct Chart {
    /// Its file, without the ending.
    pub name: String,
    /// The question that it answers.
    pub title: String,
    /// The picture in words.
    description: String,
    drawn: String,
    height: f64,
}

impl Chart {
    /// Within a page that has [`STYLE`].
    pub fn inline(&self) -> String {
        self.svg("", "")
    }

    /// As a file of its own.
    pub fn file(&self) -> String {
        let size = format!(" width=\"{:.0}\" height=\"{:.0}\"", WIDTH * ALONE, self.height * ALONE);
        self.svg(&size, &format!("<style>{STYLE}</style>\n")) + "\n"
    }

    fn svg(&self, size: &str, style: &str) -> String {
        let Self { name, title, description, drawn, height } = self;
        let (name, ground) = (escape(name), painted("ground"));
        format!(
            "{OPENING}{size} {FONT} viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
             aria-labelledby=\"{name}-title {name}-desc\">\n\
             <title id=\"{name}-title\">{}</title>\n<desc id=\"{name}-desc\">{}</desc>\n{style}\
             <rect{ground} width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{drawn}</svg>",
            escape(title),
            escape(description),
        )
    }
}

/// How every picture begins.
pub const OPENING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\"";

/// A picture that is being drawn, from the top downwards.
pub struct Canvas {
    name: String,
    title: String,
    description: Vec<String>,
    drawn: String,
    /// The space above it is taken.
    pub y: f64,
}

impl Canvas {
    /// With the question on top.
    pub fn new(name: &str, title: &str) -> Self {
        let mut canvas = Self {
            name: file_name(name),
            title: title.to_owned(),
            description: Vec::new(),
            drawn: String::new(),
            y: MARGIN,
        };
        for line in wrapped(title, WIDTH - 2.0 * MARGIN, TITLE_SIZE * BOLD) {
            canvas.y += 18.0;
            canvas.text(MARGIN, canvas.y - 4.0, "title", &line);
        }
        canvas.y += 4.0;
        canvas
    }

    /// Says in words what is drawn, for those who do not see it.
    pub fn describe(&mut self, words: impl Into<String>) {
        self.description.push(words.into());
    }

    /// Lines of small text over the whole width.
    pub fn note(&mut self, text: &str) {
        for line in wrapped(text, WIDTH - 2.0 * MARGIN, SIZE) {
            self.y += LINE;
            self.text(MARGIN, self.y - 4.0, "soft", &line);
        }
    }

    /// Which mark is whose, in as many lines as it takes.
    pub fn legend(&mut self, looks: &[(Look, &str)], has_lines: bool) {
        let sample = if has_lines { 28.0 } else { 14.0 };
        self.flow(looks, sample, |canvas, look, x, y| {
            if has_lines {
                canvas.line_of(*look, &[(x, y), (x + sample - 4.0, y)]);
            }
            canvas.mark(*look, x + sample / 2.0 - 2.0, y);
        });
    }

    /// Samples with their names beside them.
    pub fn flow<T>(
        &mut self,
        items: &[(T, &str)],
        sample: f64,
        draw: impl Fn(&mut Self, &T, f64, f64),
    ) {
        let mut x = MARGIN;
        self.y += LINE;
        for (item, label) in items {
            let width = sample + width(label, SIZE) + 12.0;
            if x > MARGIN && x + width > WIDTH - MARGIN {
                (x, self.y) = (MARGIN, self.y + LINE);
            }
            draw(self, item, x, self.y - 8.0);
            self.text(x + sample, self.y - 4.0, "", label);
            x += width;
        }
        self.y += 4.0;
    }

    pub fn finish(self) -> Chart {
        Chart {
            name: self.name,
            title: self.title,
            description: self.description.join(" "),
            drawn: self.drawn,
            height: (self.y + MARGIN).ceil(),
        }
    }

    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let class = painted(&format!("text {class}"));
        self.drawn += &format!(
            "<text{class} x=\"{}\" y=\"{}\">{}</text>\n",
            short(x),
            short(y),
            escape(text)
        );
    }

    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(short);
        let class = painted(class);
        self.drawn += &format!("<line{class} x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>\n");
    }

    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(short);
        let class = painted(class);
        self.drawn +=
            &format!("<rect{class} x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n");
    }

    /// A line through points, dashed as the arm's are.
    pub fn line_of(&mut self, look: Look, points: &[(f64, f64)]) {
        const DASHES: [&str; 6] = ["", "7 3", "2 3", "7 3 2 3", "12 4", "4 2 1 2"];
        let dash = match DASHES[look.variant % DASHES.len()] {
            "" => String::new(),
            dash => format!(" stroke-dasharray=\"{dash}\""),
        };
        let points: Vec<String> =
            points.iter().map(|&(x, y)| format!("{},{}", short(x), short(y))).collect();
        self.drawn += &format!(
            "<polyline{}{dash} points=\"{}\"/>\n",
            painted(&format!("line {}", look.colour.class())),
            points.join(" ")
        );
    }

    /// The mark of an arm: its backend's outline, filled as the arm's are.
    pub fn mark(&mut self, look: Look, x: f64, y: f64) {
        let at = |dx: f64, dy: f64| format!("{} {}", short(x + dx), short(y + dy));
        let path = |points: &[(f64, f64)]| {
            let points: Vec<String> = points.iter().map(|&(dx, dy)| at(dx, dy)).collect();
            format!("<path d=\"M{}Z\"", points.join("L"))
        };
        let (full, inner) = match look.variant % 4 {
            0 => ("full", None),
            1 => ("open", None),
            2 => ("open", Some("dot")),
            _ => ("full", Some("hole")),
        };
        let outline = match look.shape {
            Shape::Circle => format!("<circle cx=\"{}\" cy=\"{}\" r=\"4\"", short(x), short(y)),
            Shape::Square => path(&[(-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)]),
            Shape::Diamond => path(&[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)]),
            Shape::Up => path(&[(0.0, -5.0), (4.8, 3.6), (-4.8, 3.6)]),
            Shape::Down => path(&[(0.0, 5.0), (4.8, -3.6), (-4.8, -3.6)]),
            Shape::Cross => cross(&path, std::f64::consts::FRAC_1_SQRT_2),
            Shape::Plus => cross(&path, 0.0),
        };
        let colour = look.colour.class();
        self.drawn += &format!("{outline}{}/>\n", painted(&format!("{full} {colour}")));
        if let Some(inner) = inner {
            let (x, y) = (short(x), short(y));
            let class = painted(&format!("{inner} {colour}"));
            self.drawn += &format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"1.6\"{class}/>\n");
        }
    }

    /// Round a mark: there is something to mind.
    pub fn ring(&mut self, x: f64, y: f64) {
        let (class, x, y) = (painted("ring"), short(x), short(y));
        self.drawn += &format!("<circle{class} cx=\"{x}\" cy=\"{y}\" r=\"7\"/>\n");
    }

    /// From one end of an interval to the other, a stroke across at each.
    pub fn whisker(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.line("whisker", (x1, y1), (x2, y2));
        let (dx, dy) = if x1 == x2 { (3.0, 0.0) } else { (0.0, 3.0) };
        for (x, y) in [(x1, y1), (x2, y2)] {
            self.line("whisker", (x - dx, y - dy), (x + dx, y + dy));
        }
    }
}

/// The outline of two bars that cross; turned by 45 degrees if `turn` is the sine of that.
fn cross(path: &impl Fn(&[(f64, f64)]) -> String, turn: f64) -> String {
    const OUTLINE: [(f64, f64); 12] = [
        (-1.5, -5.0),
        (1.5, -5.0),
        (1.5, -1.5),
        (5.0, -1.5),
        (5.0, 1.5),
        (1.5, 1.5),
        (1.5, 5.0),
        (-1.5, 5.0),
        (-1.5, 1.5),
        (-5.0, 1.5),
        (-5.0, -1.5),
        (-1.5, -1.5),
    ];
    let cosine = (1.0 - turn * turn).sqrt();
    path(&OUTLINE.map(|(x, y)| (x * cosine - y * turn, x * turn + y * cosine)))
}

/// A coordinate to a tenth.
fn short(value: f64) -> String {
    debug_assert!(value.is_finite());
    let tenths = (value * 10.0).round() + 0.0;
    if tenths % 10.0 == 0.0 {
        format!("{:.0}", tenths / 10.0)
    } else {
        format!("{:.1}", tenths / 10.0)
    }
}

/// How wide a text is at most, in the widest of the usual fonts.
pub fn width(text: &str, size: f64) -> f64 {
    let of_letter = |letter: char| match letter {
        'i' | 'j' | 'l' | '\'' | '|' => 0.3,
        ' ' | '.' | ',' | ':' | ';' | 'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' | '`'
        | 'I' => 0.4,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.97,
        'A'..='Z' | '=' | '<' | '>' | '+' => 0.78,
        _ => 0.63,
    };
    text.chars().map(of_letter).sum::<f64>() * size
}

/// Lines of at most this width; words that are longer are broken.
pub fn wrapped(text: &str, room: f64, size: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        while let Some(line) = lines.last_mut() {
            let joined = if line.is_empty() { word.clone() } else { format!("{line} {word}") };
            if width(&joined, size) <= room {
                *line = joined;
                break;
            }
            if line.is_empty() {
                let fits = |&count: &usize| width(&word[..count], size) <= room;
                let ends = word.char_indices().map(|(index, letter)| index + letter.len_utf8());
                let end = ends
                    .clone()
                    .take_while(fits)
                    .last()
                    .or(ends.clone().next())
                    .unwrap_or(word.len());
                *line = word[..end].to_owned();
                word = word[end..].to_owned();
            }
            lines.push(String::new());
        }
    }
    lines
}

/// A name that is one file's, whatever a file says: letters, digits and `-_.@`.
fn file_name(name: &str) -> String {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || "-_.@".contains(letter) { letter } else { '-' }
    };
    name.chars().map(plain).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_where_it_does_not_fit() {
        assert_eq!(wrapped("one two three", 60.0, 12.0), ["one two", "three"]);
        let long = "x".repeat(100);
        let lines = wrapped(&long, 100.0, 12.0);
        assert!(lines.len() > 1 && lines.concat() == long, "{lines:?}");
        assert!(lines.iter().all(|line| width(line, 12.0) <= 100.0), "{lines:?}");
    }

    /// The tags of what is drawn.
    fn drawn(svg: &str) -> Vec<&str> {
        let shapes = ["rect", "line", "polyline", "circle", "path", "text"];
        let tags = svg.split('<').filter_map(|rest| rest.split('>').next());
        tags.filter(|tag| shapes.contains(&tag.split([' ', '/']).next().unwrap_or_default()))
            .collect()
    }

    /// Many programs that draw SVG know no custom properties: they ignore the style's rules, or
    /// take them for black.
    #[test]
    fn everything_has_colours_that_every_program_knows() {
        let mut canvas = Canvas::new("name", "title");
        for colour in crate::report::colours::PALETTE {
            for variant in 0..4 {
                let look = Look { colour, shape: Shape::Up, variant };
                canvas.mark(look, 1.0, 1.0);
                canvas.line_of(look, &[(0.0, 0.0), (1.0, 1.0)]);
                canvas.rect(&format!("bar {}", colour.class()), (0.0, 0.0), (1.0, 1.0));
            }
        }
        canvas.note("note");
        for class in ["", "strong", "soft mid", "soft end halo", "on"] {
            canvas.text(0.0, 0.0, class, "text");
        }
        for class in ["rule", "axis", "goal"] {
            canvas.line(class, (0.0, 0.0), (1.0, 1.0));
        }
        canvas.rect("band", (0.0, 0.0), (1.0, 1.0));
        canvas.ring(1.0, 1.0);
        canvas.whisker((0.0, 0.0), (1.0, 0.0));
        let svg = canvas.finish().file();
        let (_, all) = svg.split_once("</style>").expect("both");
        let mut colours = std::collections::BTreeSet::new();
        for tag in drawn(all) {
            let literal = |attribute: &str| {
                tag.split_once(attribute).map(|(_, rest)| &rest[..rest.find('"').unwrap_or(0)])
            };
            let found = [literal(" fill=\"#"), literal(" stroke=\"#")];
            let needed = usize::from(tag.starts_with("line") || tag.starts_with("polyline"));
            assert!(
                found[needed].is_some() || (tag.contains("fill=\"none\"") && found[1].is_some()),
                "{tag}"
            );
            assert!(!tag.contains("var(") && !tag.contains("currentColor"), "{tag}");
            assert!(!tag.starts_with("text") || tag.contains(" font-size=\""), "{tag}");
            colours.extend(found.into_iter().flatten());
        }
        assert_eq!(
            colours.len(),
            13,
            "eight hues, ground, band, rule, ink and what is softer: {colours:?}"
        );
        // A program that knows no custom properties must find none outside of this.
        let (_, style) = svg.split_once("<style>").expect("one");
        let (before, within) = style.split_once("@supports").expect("one");
        assert!(
            !before.contains("var(")
                && within.contains("var(--ink)")
                && !style.contains("currentColor")
        );
    }

    #[test]
    fn a_name_leads_to_no_other_folder() {
        assert_eq!(Canvas::new("cpu-../<x>", "t").finish().name, "cpu-..--x-");
    }
}
