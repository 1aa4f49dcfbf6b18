//! Who has which colour and mark, everywhere; and the colours on a light and on a dark ground.
//!
//! The hues are those of M. Okabe and K. Ito ("Color Universal Design", 2008), which readers tell
//! apart who see fewer colours than others; made darker or lighter until each stands out from its
//! ground by 3 to 1. Nothing is told by colour alone: a backend has a mark of its own shape too,
//! and lines are dashed.

use ringmark::backend;

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
    /// Which of its backend's arms it is, from 0: it decides how the mark is filled and how the
    /// line is dashed.
    pub variant: usize,
}

/// The looks of the backends, in the order of [`backend::ALL`].
const LOOKS: [(Colour, Shape); 13] = [
    (Colour::Vermillion, Shape::Square),
    (Colour::Sky, Shape::Diamond),
    (Colour::Blue, Shape::Circle),
    (Colour::Olive, Shape::Down),
    (Colour::Green, Shape::Up),
    (Colour::Purple, Shape::Diamond),
    (Colour::Orange, Shape::Down),
    (Colour::Olive, Shape::Plus),
    (Colour::Purple, Shape::Cross),
    (Colour::Grey, Shape::Plus),
    (Colour::Grey, Shape::Diamond),
    (Colour::Grey, Shape::Square),
    (Colour::Grey, Shape::Circle),
];

/// Colours and shapes of servers that are not ours, in their order: as few of one colour as there
/// can be.
const OF_OTHERS: [Colour; 5] =
    [Colour::Purple, Colour::Orange, Colour::Olive, Colour::Grey, Colour::Sky];

const SHAPES: [Shape; 7] = [
    Shape::Cross,
    Shape::Square,
    Shape::Plus,
    Shape::Circle,
    Shape::Down,
    Shape::Diamond,
    Shape::Up,
];

/// Returns a look that no backend of ours has; one look comes back only after all of them.
fn of_other(index: usize) -> (Colour, Shape) {
    // Each colour once, then each with its next shape.
    let all = (0..OF_OTHERS.len() * SHAPES.len()).map(|at| {
        (OF_OTHERS[at % OF_OTHERS.len()], SHAPES[(at + at / OF_OTHERS.len()) % SHAPES.len()])
    });
    let free: Vec<_> = all.filter(|look| !LOOKS.contains(look)).collect();
    free[index % free.len()]
}

/// How an arm of a run is drawn.
pub fn look(run: &Run, arm: &str) -> Look {
    let contenders = &run.matrix.backends;
    let found = contenders.iter().position(|contender| contender.name() == arm);
    let backend = match found {
        Some(place) => contenders[place].backend.as_str(),
        None => arm.split(' ').next().unwrap_or_default(),
    };
    let before =
        contenders[..found.unwrap_or(0)].iter().filter(|contender| contender.backend == backend);
    let of_ours = backend::ALL.iter().position(|entry| entry.name == backend);
    // Another version may know a backend that is neither ours nor an external here.
    let of_external = run.matrix.externals.iter().position(|external| external.name == backend);
    let (colour, shape) = of_ours
        .and_then(|place| LOOKS.get(place).copied())
        .unwrap_or_else(|| of_other(of_external.unwrap_or_default()));
    Look { colour, shape, variant: before.count() }
}

/// System calls of which each has its colour in every picture; the others share grey. Calls of one
/// colour are of servers and loads that no matrix has together.
const CALLS: [(&str, Colour); 10] = [
    ("epoll_wait", Colour::Blue),
    ("recvfrom", Colour::Purple),
    ("sendto", Colour::Orange),
    ("io_uring_enter", Colour::Green),
    ("poll", Colour::Vermillion),
    ("select", Colour::Olive),
    ("pselect6", Colour::Olive),
    ("epoll_ctl", Colour::Sky),
    ("accept4", Colour::Vermillion),
    ("close", Colour::Olive),
];

/// The colour of a system call.
pub fn of_call(name: &str) -> Colour {
    CALLS.iter().find(|(call, _)| *call == name).map_or(Colour::Grey, |(_, colour)| *colour)
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
    fn no_two_backends_look_alike_and_every_backend_has_a_look() {
        for (index, look) in LOOKS.iter().enumerate() {
            assert!(!LOOKS[..index].contains(look), "{}", backend::ALL[index].name);
        }
        assert_eq!(LOOKS.len(), backend::ALL.len());
    }

    #[test]
    fn no_server_that_is_not_ours_looks_like_another_or_like_ours() {
        let looks: Vec<_> = (0..24).map(of_other).collect();
        for (index, look) in looks.iter().enumerate() {
            assert!(!looks[..index].contains(look), "{look:?}");
            assert!(!LOOKS.contains(look), "{look:?}");
        }
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
