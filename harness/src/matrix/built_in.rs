//! The matrices that are part of the program.

/// A matrix that is part of the program: a file of `harness/matrix`.
pub struct BuiltIn {
    /// Its name on the command line.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! files {
    ($($name:literal)*) => {
        &[$(BuiltIn {
            name: $name,
            text: include_str!(concat!("../../matrix/", $name, ".toml")),
        }),*]
    };
}

/// All of them. The first are those to begin with.
pub const ALL: &[BuiltIn] = files![
    "smoke" "quick" "standard" "ladder" "memory" "million" "crowd" "shapes" "churn" "idle"
    "exchange" "stream" "source" "path" "quota" "iowait" "zero_copy" "table" "work" "workers"
    "listeners" "instructions" "calibrate" "peers" "versus"
];

/// Returns the one of this name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|matrix| matrix.name == name)
}

/// Says that none has this name, and which may be meant.
pub fn unknown(name: &str) -> String {
    let meant = nearest(name).map(|matrix| format!("did you mean `{}`? ", matrix.name));
    format!(
        "no matrix of that name is built in; {}`ringmark run --list` names those that are",
        meant.unwrap_or_default()
    )
}

/// Returns the one whose name is most like this, if any is.
fn nearest(name: &str) -> Option<&'static BuiltIn> {
    let alike = |matrix: &BuiltIn| strsim::jaro_winkler(matrix.name, &name.to_lowercase());
    let nearest = ALL.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    nearest.filter(|matrix| alike(matrix) > 0.75)
}
