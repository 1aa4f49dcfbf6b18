//! Lists of CPUs as people write them, the same for every program of the suite.

/// Reads a list as taskset(1) writes it, `0,2-3`, in the order given.
///
/// # Errors
/// One line that names the part which is no CPU number below `limit` and no range of such numbers.
pub fn parse(list: &str, limit: usize) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < limit => cpus.extend(first..=last),
            _ => {
                return Err(format!(
                    "'{part}' is neither a CPU number below {limit} nor a range like 0-3"
                ));
            }
        }
    }
    Ok(cpus)
}
