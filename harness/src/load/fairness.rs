//! How evenly a server deals its time out.

use super::result::Fairness;

/// Jain's index of fairness, (Σx)² / (n Σx²): 1 when all shares are equal, k/n when k of n have all
/// of it evenly (R. Jain, D.-M. Chiu, W. Hawe, "A Quantitative Measure of Fairness and
/// Discrimination for Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984). None if
/// there is nothing to share.
fn jain(shares: &[u64]) -> Option<f64> {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| (share as f64).powi(2)).sum();
    (sum > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// Returns the fairness of the echoes of each active connection, by its number, when connections
/// were dealt over `ports` in turn.
pub fn of(echoes: &[u64], ports: usize) -> Option<Fairness> {
    let connections = jain(echoes)?;
    let mean = echoes.iter().sum::<u64>() as f64 / echoes.len() as f64;
    let mut by_port = vec![0; ports.min(echoes.len())];
    for (number, echoes) in echoes.iter().enumerate() {
        by_port[number % ports] += echoes;
    }
    Some(Fairness {
        connections,
        slowest_over_mean: *echoes.iter().min()? as f64 / mean,
        fastest_over_mean: *echoes.iter().max()? as f64 / mean,
        ports: jain(&by_port)?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn jains_index() {
        assert_eq!((jain(&[]), jain(&[0, 0])), (None, None));
        assert_eq!((jain(&[7]), jain(&[5, 5, 5, 5])), (Some(1.0), Some(1.0)));
        // Two of five have all of it, evenly.
        assert_eq!(jain(&[9, 0, 9, 0, 0]), Some(0.4));
        // 6² / (3 · 14), and (1 + 10)² / (2 · 101).
        assert_eq!(jain(&[1, 2, 3]), Some(36.0 / 42.0));
        assert_eq!(jain(&[1, 10]), Some(121.0 / 202.0));
        // It does not matter in which unit the shares are.
        assert_eq!(jain(&[100, 200, 300]), jain(&[1, 2, 3]));
    }

    #[test]
    fn connections_are_of_the_port_that_they_were_dealt_to() {
        let even = of(&[4, 4, 4, 4], 2).unwrap();
        assert_eq!(
            even,
            Fairness {
                connections: 1.0,
                slowest_over_mean: 1.0,
                fastest_over_mean: 1.0,
                ports: 1.0
            }
        );
        // Ports have 1 + 1 and 3 + 3: 8² / (2 · 40), and of the connections 8² / (4 · 20).
        let lame = of(&[1, 3, 1, 3], 2).unwrap();
        let expected = Fairness {
            connections: 0.8,
            slowest_over_mean: 0.5,
            fastest_over_mean: 1.5,
            ports: 0.8,
        };
        assert_eq!(lame, expected);
        // Unfair to connections, and yet the ports are even.
        let crossed = of(&[1, 3, 3, 1], 2).unwrap();
        assert_eq!((crossed.connections, crossed.ports), (0.8, 1.0));
        // A port without a connection has no share that it could miss.
        assert_eq!(of(&[2, 2], 8).unwrap().ports, 1.0);
        assert_eq!(of(&[0, 0], 2), None);
    }
}
