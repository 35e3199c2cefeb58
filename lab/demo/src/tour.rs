//! Pure. The order in which topologies are visited so that every switch is made once.

/// A round trip in which each follows each other exactly once: an Eulerian circuit of the complete directed
/// graph, by Hierholzer's algorithm. `n` places make `n (n - 1)` steps; the first place is also the last.
pub fn every_pair<T: Copy>(places: &[T]) -> Vec<T> {
    let mut untrodden: Vec<Vec<usize>> = (0..places.len())
        .map(|from| (0..places.len()).filter(|to| *to != from).collect())
        .collect();
    let mut path: Vec<usize> = (!places.is_empty()).then_some(0).into_iter().collect();
    let mut circuit = Vec::new();
    while let Some(here) = path.last() {
        if let Some(next) = untrodden[*here].pop() {
            path.push(next);
        } else {
            circuit.extend(path.pop());
        }
    }
    circuit.reverse();
    circuit.into_iter().map(|place| places[place]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tour_covers_each_ordered_pair_once_and_returns() {
        let places: Vec<u8> = (0..5).collect();
        let tour = every_pair(&places);
        let pairs: BTreeSet<_> = tour.windows(2).map(|step| (step[0], step[1])).collect();
        assert_eq!((tour.len(), pairs.len()), (21, 20));
        assert!(pairs.iter().all(|(from, to)| from != to));
        assert_eq!(tour.first(), tour.last());
    }

    #[test]
    fn single_stop_makes_no_tour() {
        assert_eq!(every_pair(&[7]), [7]);
        assert!(every_pair::<u8>(&[]).is_empty());
    }
}
