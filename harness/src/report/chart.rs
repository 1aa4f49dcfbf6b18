//! Pictures in SVG: a canvas, an axis, and two kinds of drawings.

pub mod axis;
mod canvas;
pub mod lines;
pub mod rows;

pub use self::canvas::*;
