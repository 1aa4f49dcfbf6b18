//! `ringmark run`: drives a whole matrix, trial by trial.

pub mod count;
mod counting;
mod course;
mod drive;
mod exclusive;
mod failures;
mod matrices;
mod options;
mod planner;
mod prepare;
mod resume;
mod shell;
mod stop;
mod watch;

pub use self::drive::run;
pub use self::options::Options;
