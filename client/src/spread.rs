//! Owns the cutting of a list into one request per node, and the way back to the list's order.

use std::collections::BTreeMap;

use fanfold_protocol::NodeId;

/// What goes into one request: never empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where in the whole list each stood.
    pub places: Vec<usize>,
}

/// Cuts a list into parts of at most `items_max` items with the same home, keeping the order within each.
pub(crate) fn spread<T>(items: Vec<T>, home: impl Fn(&T) -> NodeId, items_max: usize) -> Vec<Part<T>> {
    assert!(items_max > 0, "a part holds at least one item");
    let mut full = Vec::new();
    let mut open: BTreeMap<NodeId, Part<T>> = BTreeMap::new();
    for (place, item) in items.into_iter().enumerate() {
        let node = home(&item);
        let part = open.entry(node).or_insert_with(|| Part { items: Vec::new(), places: Vec::new() });
        part.items.push(item);
        part.places.push(place);
        if part.items.len() == items_max {
            full.extend(open.remove(&node));
        }
    }
    full.extend(open.into_values());
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_one_home_and_remember_their_places() {
        let parts = spread(vec![1u64, 2, 3, 4, 5], |item| NodeId(item % 2), 2);
        let expected = [
            Part { items: vec![1, 3], places: vec![0, 2] },
            Part { items: vec![2, 4], places: vec![1, 3] },
            Part { items: vec![5], places: vec![4] },
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn nothing_makes_no_part() {
        assert!(spread(Vec::<u64>::new(), |_| NodeId(1), 1).is_empty());
    }
}
