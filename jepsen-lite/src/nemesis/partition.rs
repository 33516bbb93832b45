//! Which links a partition cuts: functions of the nodes, in an order that the caller shuffled.

use super::fault::{Link, Shape};

/// What a driver can cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// Every link in each direction by itself: all shapes.
    Links,
    /// All links of a node together: single nodes.
    Nodes,
}

/// Fewest nodes of which a majority ring can be: of three, each would see all.
pub const RING_NODES_MIN: usize = 4;

/// The directed links that a partition of `nodes` cuts; their order decides who is where.
///
/// # Panics
/// When there are fewer than two nodes, or fewer than [`RING_NODES_MIN`] for a ring.
pub fn cut(shape: Shape, nodes: &[String]) -> Vec<Link> {
    assert!(nodes.len() >= 2, "a partition needs two nodes");
    let half = nodes.len() / 2;
    match shape {
        Shape::Single => both_ways(&nodes[..1], &nodes[1..]),
        Shape::Halves => both_ways(&nodes[..half], &nodes[half..]),
        Shape::Bridge => {
            let (bridge, others) = nodes.split_first().expect("there are two nodes or more");
            debug_assert!(!others.contains(bridge));
            let half = others.len() / 2;
            both_ways(&others[..half], &others[half..])
        }
        Shape::MajorityRing => majority_ring(nodes),
        Shape::OneWay => one_way(&nodes[..1], &nodes[1..]),
    }
}

/// Links from each of `from` to each of `to`.
pub fn one_way(from: &[String], to: &[String]) -> Vec<Link> {
    from.iter().flat_map(|a| to.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

pub fn both_ways(left: &[String], right: &[String]) -> Vec<Link> {
    let mut links = one_way(left, right);
    links.extend(one_way(right, left));
    links
}

/// Each node sees its nearest neighbours in the ring, as many to each side as make a majority with itself.
fn majority_ring(nodes: &[String]) -> Vec<Link> {
    let count = nodes.len();
    assert!(count >= RING_NODES_MIN, "a majority ring needs {RING_NODES_MIN} nodes");
    let majority = count / 2 + 1;
    let reach = (majority - 1).div_ceil(2);
    let mut links = Vec::new();
    for (i, from) in nodes.iter().enumerate() {
        for (j, to) in nodes.iter().enumerate() {
            let distance = i.abs_diff(j).min(count - i.abs_diff(j));
            if distance > reach {
                links.push((from.clone(), to.clone()));
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("n{i}")).collect()
    }

    /// For each node, itself and those that it and that hear each other.
    fn seen(nodes: &[String], cut: &[Link]) -> Vec<BTreeSet<String>> {
        let whole = |a: &String, b: &String| {
            !cut.contains(&(a.clone(), b.clone())) && !cut.contains(&(b.clone(), a.clone()))
        };
        nodes.iter().map(|a| nodes.iter().filter(|b| whole(a, b)).cloned().collect()).collect()
    }

    #[test]
    fn in_a_majority_ring_every_node_sees_a_majority_and_no_two_the_same() {
        for count in RING_NODES_MIN..=13 {
            let nodes = nodes(count);
            let seen = seen(&nodes, &cut(Shape::MajorityRing, &nodes));
            assert!(
                seen.iter().all(|seen| seen.len() > count / 2 && seen.len() < count),
                "{count}: {seen:?}"
            );
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), count, "{count}: two see the same");
        }
    }

    #[test]
    fn shapes_cut_what_their_names_say() {
        // By shape and number of nodes: how many nodes each node sees, itself included.
        let table: [(Shape, usize, &[usize]); 6] = [
            (Shape::Single, 4, &[1, 3, 3, 3]),
            (Shape::Halves, 5, &[2, 2, 3, 3, 3]),
            (Shape::Halves, 2, &[1, 1]),
            (Shape::Bridge, 5, &[5, 3, 3, 3, 3]),
            (Shape::Bridge, 4, &[4, 2, 3, 3]),
            (Shape::OneWay, 3, &[1, 2, 2]),
        ];
        for (shape, count, expected) in table {
            let nodes = nodes(count);
            let seen: Vec<usize> = seen(&nodes, &cut(shape, &nodes)).iter().map(BTreeSet::len).collect();
            assert_eq!(seen, expected, "{shape} of {count}");
        }
    }

    #[test]
    fn one_way_cuts_no_way_back() {
        let nodes = nodes(3);
        let cut = cut(Shape::OneWay, &nodes);
        assert!(cut.iter().all(|(from, to)| !cut.contains(&(to.clone(), from.clone()))));
        assert_eq!(cut.len(), 2);
    }

    #[test]
    fn nobody_is_cut_from_itself() {
        for shape in [Shape::Single, Shape::Halves, Shape::Bridge, Shape::MajorityRing, Shape::OneWay] {
            assert!(cut(shape, &nodes(6)).iter().all(|(from, to)| from != to), "{shape}");
        }
    }
}
