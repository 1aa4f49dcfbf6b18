//! A bound on CPU time, as a matrix writes it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A bound on CPU time, in percent of one CPU. It is written as a text: `"50 %"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota(f64);

/// The least is a millisecond in each period of the kernel's, 100 ms; it refuses less.
const LEAST: f64 = 1.0;
const MOST: f64 = 100_000.0;

impl Quota {
    /// Returns it in percent of one CPU.
    pub fn percent(self) -> f64 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let percent = text.trim().strip_suffix('%')?.trim_end().parse().ok()?;
        (LEAST..=MOST).contains(&percent).then_some(Self(percent))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "\"{text}\": give a share of one CPU, from \"1 %\" to \"100000 %\", as \"50 %\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_share_of_one_cpu() {
        let percent = |text| Quota::parse(text).map(Quota::percent);
        assert_eq!((percent("50 %"), percent("12.5%"), percent("200 %")), {
            (Some(50.0), Some(12.5), Some(200.0))
        });
        for bad in ["50", "0 %", "0.5 %", "-1 %", "%", "half", "1e9 %", "NaN %"] {
            assert_eq!(percent(bad), None, "{bad}");
        }
        assert_eq!(Quota(12.5).to_string(), "12.5 %");
    }
}
