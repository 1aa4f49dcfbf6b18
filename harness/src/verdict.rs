//! From rows to comparisons, capacities and resolvable differences.

pub mod blocks;
pub mod comparisons;
pub mod estimate;
pub mod memory;
pub mod metric;
pub mod resolution;
pub mod slopes;
pub mod sweep;
