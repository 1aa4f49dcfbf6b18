//! From rows to comparisons, capacities and resolvable differences.

pub mod comparisons;
pub mod resolution;
pub mod slopes;
pub mod sweep;
