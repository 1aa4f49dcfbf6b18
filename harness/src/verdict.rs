//! From rows to comparisons, verdicts and capacities.

pub mod blocks;
pub mod comparisons;
pub mod contrast;
pub mod estimate;
pub mod instructions;
mod judge;
pub mod measured;
pub mod memory;
pub mod metric;
pub mod noise;
pub mod readings;
pub mod slopes;
pub mod sweep;
