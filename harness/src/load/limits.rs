//! The limits of a load, as types that check a value when it is read.
//!
//! The options of `ringmark load` and the matrix files use the same types, so a value is checked in
//! one place. clap reads them with [`FromStr`], TOML and JSON with serde: numbers as numbers,
//! durations as texts such as `1m 30s`. A matrix gives its default with `#[serde(default)]`: a
//! number's default is its least value.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value out of its limits; says what the limits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutOfLimits(&'static str);

/// Defines a number that lies within limits, with the text for one that does not.
macro_rules! limited_numbers {
    ($(
        $(#[$doc:meta])*
        $name:ident($number:ty): $least:expr, $most:expr, $refusal:literal;
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
        pub struct $name($number);

        impl $name {
            /// The values that it may have.
            pub const LIMITS: RangeInclusive<$number> = $least..=$most;

            pub const fn get(self) -> $number {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($least)
            }
        }

        impl TryFrom<$number> for $name {
            type Error = OutOfLimits;

            fn try_from(number: $number) -> Result<Self, OutOfLimits> {
                if Self::LIMITS.contains(&number) {
                    Ok(Self(number))
                } else {
                    Err(OutOfLimits($refusal))
                }
            }
        }

        impl FromStr for $name {
            type Err = OutOfLimits;

            fn from_str(text: &str) -> Result<Self, OutOfLimits> {
                text.parse::<$number>().map_err(|_| OutOfLimits($refusal))?.try_into()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = <$number>::deserialize(deserializer)?;
                number.try_into().map_err(|error| de::Error::custom(format!("{number}: {error}")))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

limited_numbers! {
    /// Connections that stand at once, or those of them that send.
    Connections(usize): 1, 100_000_000, "give 1 to 100000000 connections";
    /// Consecutive ports of the server.
    Ports(usize): 1, 65_535, "give at least 1 port, at most 65535";
    /// Size of a message.
    MessageBytes(u64): 1, 1 << 30, "a message has at least 1 byte, at most 1073741824";
    /// Messages in flight on each connection of a closed loop.
    Pipeline(usize): 1, 1 << 16, "give at least 1 message in flight on a connection, at most 65536";
    /// Messages per second of an open loop.
    Rate(f64): 1.0 / 86_400.0, 1e9,
        "give messages per second: at least one a day (0.000012), at most 1000000000";
    /// Echoes on a connection before another takes its place.
    Churn(u64): 1, 1 << 32, "give at least 1 echo on a connection, at most 4294967296";
    /// A number of echoes to make.
    Echoes(u64): 1, u64::MAX, "give at least 1 echo";
    /// Addresses that connections come from: 127.0.0.1 to 127.0.0.254.
    SourceAddresses(usize): 1, 254, "give 1 to 254 addresses";
}

/// A client that uses more of its CPUs than this is taken to be the bottleneck.
pub const CLIENT_BUSY_PERCENT: f64 = 90.0;

/// An open loop must send, and get back, this share of its messages in time. Below it the load was
/// not the one asked for.
pub const OFFERED_SHARE: f64 = 0.99;

/// The longest duration of a load, its warm-up or a wait.
pub const DURATION_MAX: Duration = Duration::from_secs(86_400);

/// A duration of a day at most, and of more than nothing unless `MAY_BE_ZERO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitedTime<const MAY_BE_ZERO: bool>(Duration);

/// How long something is measured.
pub type MeasuringTime = LimitedTime<false>;

/// How long something is waited for at most.
pub type WaitingTime = LimitedTime<true>;

impl<const MAY_BE_ZERO: bool> LimitedTime<MAY_BE_ZERO> {
    const REFUSED: OutOfLimits = OutOfLimits(if MAY_BE_ZERO {
        "give a time such as 500ms or 5s, at most a day"
    } else {
        "give a time such as 500ms or 5s: nothing is measured in 0s; at most a day"
    });

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const MAY_BE_ZERO: bool> TryFrom<Duration> for LimitedTime<MAY_BE_ZERO> {
    type Error = OutOfLimits;

    fn try_from(time: Duration) -> Result<Self, OutOfLimits> {
        let is_allowed = time <= DURATION_MAX && (MAY_BE_ZERO || !time.is_zero());
        if is_allowed { Ok(Self(time)) } else { Err(Self::REFUSED) }
    }
}

impl<const MAY_BE_ZERO: bool> FromStr for LimitedTime<MAY_BE_ZERO> {
    type Err = OutOfLimits;

    fn from_str(text: &str) -> Result<Self, OutOfLimits> {
        humantime::parse_duration(text).map_err(|_| Self::REFUSED)?.try_into()
    }
}

impl<const MAY_BE_ZERO: bool> fmt::Display for LimitedTime<MAY_BE_ZERO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<const MAY_BE_ZERO: bool> Serialize for LimitedTime<MAY_BE_ZERO> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const MAY_BE_ZERO: bool> Deserialize<'de> for LimitedTime<MAY_BE_ZERO> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format!("{text}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_ends_of_the_limits_are_allowed_and_what_lies_beyond_is_refused_with_them() {
        for (text, is_allowed) in [("1", true), ("65536", true), ("0", false), ("65537", false)] {
            assert_eq!(text.parse::<Pipeline>().is_ok(), is_allowed, "{text}");
        }
        for text in ["0", "-1", "x", "", "1073741825", "99999999999999999999999"] {
            let line = text.parse::<MessageBytes>().unwrap_err().to_string();
            let most = MessageBytes::LIMITS.end().to_string();
            assert!(line.contains("at least 1 byte") && line.contains(&most), "{line}");
        }
        for text in ["0", "-1", "NaN", "inf", "1.1e9", "0.00001"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("0.0000116".parse::<Rate>().unwrap().get(), 0.000_011_6);
        assert_eq!((Pipeline::default().get(), Connections::default().get()), (1, 1));
    }

    #[test]
    fn the_refusals_name_the_limits() {
        for (refusal, most) in [
            ("x".parse::<Connections>().unwrap_err(), Connections::LIMITS.end().to_string()),
            ("x".parse::<Ports>().unwrap_err(), Ports::LIMITS.end().to_string()),
            ("x".parse::<Pipeline>().unwrap_err(), Pipeline::LIMITS.end().to_string()),
            ("x".parse::<Rate>().unwrap_err(), Rate::LIMITS.end().to_string()),
            ("x".parse::<Churn>().unwrap_err(), Churn::LIMITS.end().to_string()),
            (
                "x".parse::<SourceAddresses>().unwrap_err(),
                SourceAddresses::LIMITS.end().to_string(),
            ),
        ] {
            assert!(refusal.to_string().contains(&most), "{refusal}");
        }
    }

    #[test]
    fn times_are_of_a_day_at_most_and_only_waits_may_be_of_nothing() {
        let day: MeasuringTime = "1day".parse().unwrap();
        assert_eq!((day.get(), day.to_string()), (DURATION_MAX, "1day".to_owned()));
        assert_eq!("0s".parse::<WaitingTime>().unwrap().get(), Duration::ZERO);
        for text in ["0s", "25h", "9999999999y", "5", "x", ""] {
            assert!(text.parse::<MeasuringTime>().is_err(), "{text}");
            assert_eq!(text.parse::<WaitingTime>().is_ok(), text == "0s", "{text}");
        }
    }

    #[test]
    fn files_hold_numbers_and_texts_and_their_errors_say_the_value() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Load {
            pipeline: Pipeline,
            rate: Rate,
            duration: MeasuringTime,
        }
        let text = "pipeline = 16\nrate = 1000\nduration = \"1m 500ms\"\n";
        let load: Load = toml::from_str(text).unwrap();
        assert_eq!(
            serde_json::to_string(&load).unwrap(),
            r#"{"pipeline":16,"rate":1000.0,"duration":"1m 500ms"}"#
        );
        assert_eq!(toml::from_str::<Load>(&toml::to_string(&load).unwrap()).unwrap(), load);
        for (good, bad, complaint) in [
            ("16", "70000", "70000: give at least 1 message in flight"),
            ("1000", "0.0", "0: give messages per second"),
            ("1m 500ms", "0s", "0s: give a time"),
        ] {
            let error = toml::from_str::<Load>(&text.replace(good, bad)).unwrap_err();
            assert!(error.message().contains(complaint), "{error}");
        }
    }
}
