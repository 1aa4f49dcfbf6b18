//! Defines the lines of the screen.

use serde::Serialize;

/// The status of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum CheckStatus {
    #[serde(rename = "ok")]
    Ok,
    /// The machine can be measured, but less of it, or less well.
    #[serde(rename = "limits results")]
    LimitsResults,
    #[serde(rename = "missing")]
    Missing,
}

impl CheckStatus {
    /// Returns the printed name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LimitsResults => "limits results",
            Self::Missing => "missing",
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckResult {
    pub status: CheckStatus,
    pub found: String,
    /// The harm to the results; none if it is ok.
    pub cost: Option<String>,
    /// The next step; none if it is ok.
    pub advice: Option<String>,
}

/// One line of the screen.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorLine {
    pub name: &'static str,
    #[serde(flatten)]
    pub result: CheckResult,
}

/// Returns the result of something that is as it should be.
pub fn ok(found: impl ToString) -> CheckResult {
    CheckResult { status: CheckStatus::Ok, found: found.to_string(), cost: None, advice: None }
}

/// Returns the result of something that limits what can be measured.
pub fn limits(found: impl ToString, cost: impl ToString, advice: impl ToString) -> CheckResult {
    CheckResult {
        status: CheckStatus::LimitsResults,
        found: found.to_string(),
        cost: Some(cost.to_string()),
        advice: Some(advice.to_string()),
    }
}

/// Returns the result of something that limits what can be measured, unless it is ok.
pub fn ok_if(
    is_ok: bool,
    found: impl ToString,
    cost: impl ToString,
    advice: impl ToString,
) -> CheckResult {
    if is_ok { ok(found) } else { limits(found, cost, advice) }
}

/// Returns the result of something that is not available.
pub fn missing(found: impl ToString, cost: impl ToString, advice: impl ToString) -> CheckResult {
    CheckResult { status: CheckStatus::Missing, ..limits(found, cost, advice) }
}

/// Returns the result where the machine does not tell.
pub fn unknown(source: &str, cost: &str) -> CheckResult {
    limits("not known", cost, format!("find out why {source} cannot be read"))
}
