//! Who has which colour and mark, everywhere; and the colours on a light and on a dark ground.
//!
//! The hues are those of M. Okabe and K. Ito ("Color Universal Design", 2008), which readers tell
//! apart who see fewer colours than others; made darker or lighter until each stands out from its
//! ground by 3 to 1. Nothing is told by colour alone: a backend has a mark of its own shape too,
//! and lines are dashed.

use crate::results::Run;

/// A colour of the palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Blue,
    Vermillion,
    Green,
    Purple,
    Orange,
    Sky,
    Olive,
    Grey,
}

/// In the order of [`STYLE`].
pub const PALETTE: [Colour; 8] = [
    Colour::Blue,
    Colour::Vermillion,
    Colour::Green,
    Colour::Purple,
    Colour::Orange,
    Colour::Sky,
    Colour::Olive,
    Colour::Grey,
];

impl Colour {
    /// Its class in [`STYLE`].
    pub fn class(self) -> &'static str {
        match self {
            Colour::Blue => "blue",
            Colour::Vermillion => "vermillion",
            Colour::Green => "green",
            Colour::Purple => "purple",
            Colour::Orange => "orange",
            Colour::Sky => "sky",
            Colour::Olive => "olive",
            Colour::Grey => "grey",
        }
    }
}

/// The outline of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Cross,
    Plus,
}

/// How an arm is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub colour: Colour,
    pub shape: Shape,
    /// How often all colours came before: it decides how the mark is filled and how the line is
    /// dashed.
    pub variant: usize,
}

const SHAPES: [Shape; 7] = [
    Shape::Circle,
    Shape::Square,
    Shape::Up,
    Shape::Diamond,
    Shape::Cross,
    Shape::Down,
    Shape::Plus,
];

/// Returns how an arm of a run is drawn: the baseline first, the others in the order of the matrix.
pub fn look(run: &Run, arm: &str) -> Look {
    let baseline = &run.matrix.baseline;
    let mut others = run.matrix.arms().filter(|name| name != baseline);
    let place = others.position(|name| name == arm).map_or(0, |place| place + 1);
    Look {
        colour: PALETTE[place % PALETTE.len()],
        shape: SHAPES[place % SHAPES.len()],
        variant: place / PALETTE.len(),
    }
}

/// System calls of which each has its colour in every picture; the others share grey. Calls of one
/// colour are of servers and loads that no matrix has together.
const CALLS: [(&str, Colour); 9] = [
    ("epoll_wait", Colour::Blue),
    ("recvfrom", Colour::Purple),
    ("sendto", Colour::Orange),
    ("io_uring_enter", Colour::Green),
    ("poll", Colour::Vermillion),
    ("pselect6", Colour::Olive),
    ("epoll_ctl", Colour::Sky),
    ("accept4", Colour::Vermillion),
    ("close", Colour::Olive),
];

/// The colour of a system call.
pub fn of_call(name: &str) -> Colour {
    CALLS.iter().find(|(call, _)| *call == name).map_or(Colour::Grey, |(_, colour)| *colour)
}

/// The classes of instructions of which each has its colour; the others share grey.
const CLASSES: [(&str, Colour); 7] = [
    ("user", Colour::Blue),
    ("system call", Colour::Orange),
    ("io_uring", Colour::Green),
    ("epoll", Colour::Vermillion),
    ("socket", Colour::Purple),
    ("TCP/IP", Colour::Sky),
    ("scheduler", Colour::Olive),
];

/// The colour of a class of instructions, if it has one.
pub fn of_class(name: &str) -> Option<Colour> {
    CLASSES.iter().find(|(class, _)| *class == name).map(|(_, colour)| *colour)
}

/// Objects of the kernel of which each has its colour in every picture, or none there: of two of
/// one colour the smaller is among the others. Vermillion is of the server's own pages.
const OBJECTS: [(&str, Colour); 9] = [
    ("kmalloc-512", Colour::Blue),
    ("io_kiocb", Colour::Green),
    ("eventpoll_epi", Colour::Purple),
    ("kmalloc-96", Colour::Orange),
    ("eventpoll_pwq", Colour::Sky),
    ("skbuff_small_head", Colour::Sky),
    ("task_struct", Colour::Sky),
    ("ep_head", Colour::Olive),
    ("skbuff_fclone_cache", Colour::Olive),
];

/// The colour of a kernel object, if it has one.
pub fn of_object(name: &str) -> Option<Colour> {
    OBJECTS.iter().find(|(object, _)| *object == name).map(|(_, colour)| *colour)
}

/// Colours and sizes, for the page and for a picture that stands alone: those of the ground that
/// the reader prefers.
///
/// A program that knows no custom properties leaves out what stands within `@supports`; what it
/// draws is as [`painted`].
pub const STYLE: &str = include_str!("colours.css");

/// The font of a picture, for who knows no style.
pub const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";

/// A colour of the light ground by its name in [`STYLE`].
fn light(name: &str) -> &'static str {
    let (_, rest) = STYLE.split_once(&format!("--{name}:")).unwrap_or_default();
    rest.split([';', '}']).next().unwrap_or_default()
}

/// Returns the attributes that paint a class on a light ground, which every program knows; and the
/// class, by which [`STYLE`] has the colours of either ground.
pub fn painted(class: &str) -> String {
    let words = || class.split_whitespace();
    let is_hue = |word: &&str| PALETTE.iter().any(|colour| colour.class() == *word);
    let hue = words().find(is_hue).unwrap_or("ink");
    let mut attributes = std::collections::BTreeMap::new();
    for word in words() {
        let drawn: &[(&str, &str)] = match word {
            "text" => &[("fill", light("ink")), ("font-size", "12")],
            "soft" => &[("fill", light("soft"))],
            "title" => &[("font-size", "14"), ("font-weight", "600")],
            "strong" => &[("font-weight", "600")],
            "mid" => &[("text-anchor", "middle")],
            "end" => &[("text-anchor", "end")],
            "on" => &[("fill", light("ground")), ("text-anchor", "middle")],
            "ground" | "hole" => &[("fill", light("ground"))],
            "band" => &[("fill", light("band"))],
            "rule" => &[("stroke", light("rule"))],
            "axis" => &[("stroke", light("soft"))],
            "goal" => &[("stroke", light("soft")), ("stroke-dasharray", "2 3")],
            "whisker" => &[("stroke", light("ink")), ("stroke-width", "1.4")],
            "ring" => &[("fill", "none"), ("stroke", light("ink"))],
            "full" => &[("fill", light(hue)), ("stroke", light(hue))],
            "open" => &[("fill", light("ground")), ("stroke", light(hue)), ("stroke-width", "1.8")],
            "line" => &[("fill", "none"), ("stroke", light(hue)), ("stroke-width", "1.8")],
            "dot" => &[("fill", light(hue))],
            "bar" => &[("fill", light(hue)), ("stroke", light("ground"))],
            // A hue, or how the page alone draws it.
            _ => &[],
        };
        attributes.extend(drawn.iter().copied());
    }
    let class: Vec<&str> = words().filter(|word| *word != "text").collect();
    let class =
        if class.is_empty() { String::new() } else { format!(" class=\"{}\"", class.join(" ")) };
    attributes.iter().fold(class, |all, (name, value)| format!("{all} {name}=\"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_arms_look_alike() {
        let backends: Vec<String> =
            (0..24).map(|arm| format!("{{ backend = \"b{arm}\" }}")).collect();
        let text =
            format!("question = \"q\"\nbaseline = \"b3\"\nbackends = [{}]", backends.join(", "));
        let matrix = toml::from_str(&text).expect("a matrix");
        let run = Run::of(matrix, Vec::new(), Vec::new());
        let looks: Vec<_> = (0..24).map(|arm| look(&run, &format!("b{arm}"))).collect();
        for (index, look) in looks.iter().enumerate() {
            assert!(!looks[..index].contains(look), "{look:?}");
        }
        assert_eq!((looks[3].colour, looks[3].variant), (Colour::Blue, 0), "the baseline's");
    }

    /// The contrast of WCAG 2, which asks for 3 of what is drawn and 4.5 of text.
    #[test]
    fn every_colour_stands_out_from_both_grounds() {
        let (light, dark) = STYLE.split_once("@media").expect("both");
        for theme in [light, dark] {
            let of = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}:#")).expect(name);
                let digits: Vec<u32> = rest.chars().map_while(|digit| digit.to_digit(16)).collect();
                let part = |index: usize| match digits.len() {
                    3 => digits[index] * 17,
                    _ => digits[2 * index] * 16 + digits[2 * index + 1],
                };
                let linear = |part: u32| match f64::from(part) / 255.0 {
                    low if low <= 0.04045 => low / 12.92,
                    high => ((high + 0.055) / 1.055).powf(2.4),
                };
                0.2126 * linear(part(0)) + 0.7152 * linear(part(1)) + 0.0722 * linear(part(2))
            };
            let contrast = |a: &str, b: &str| {
                let (a, b) = (of(a), of(b));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            for colour in PALETTE {
                assert!(contrast(colour.class(), "ground") >= 4.5, "{colour:?}: names stand on it");
                assert!(contrast(colour.class(), "band") >= 3.0, "{colour:?} on a band");
            }
            for text in ["ink", "soft"] {
                assert!(contrast(text, "ground") >= 4.5, "{text}");
            }
        }
    }
}
