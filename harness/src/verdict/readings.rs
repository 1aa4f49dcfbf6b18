//! The readings of the baseline within a block: it stands there more than once.

/// Returns the role of a reading of the baseline, counted from 1: `epoll-et`, `epoll-et (again)`,
/// `epoll-et (again 2)`.
pub fn reading(baseline: &str, number: usize) -> String {
    match number {
        1 => baseline.to_owned(),
        2 => format!("{baseline} (again)"),
        number => format!("{baseline} (again {})", number - 1),
    }
}

/// Returns which reading of the baseline a role is.
pub fn number(role: &str, baseline: &str) -> Option<usize> {
    match role.strip_prefix(baseline)? {
        "" => Some(1),
        " (again)" => Some(2),
        rest => Some(1 + rest.strip_prefix(" (again ")?.strip_suffix(')')?.parse::<usize>().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_tells_its_number() {
        for known in 1..6 {
            assert_eq!(number(&reading("epoll-et", known), "epoll-et"), Some(known));
        }
        for other in ["epoll-et send=after-batch", "epoll-etc", "epoll-et (again x)", "poll"] {
            assert_eq!(number(other, "epoll-et"), None, "{other}");
        }
    }
}
