//! Owns a list of things that wait, by numbers that are never taken for later ones, with their deadlines.

use tokio::time::Instant;

/// Things that wait. A number is a place in the list, and how often that place was used.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    /// No deadline is earlier.
    first_deadline: Option<Instant>,
}

#[derive(Debug)]
struct Place<T> {
    uses: u32,
    occupant: Option<(Instant, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), first_deadline: None }
    }
}

impl<T> Waiting<T> {
    /// Adds something that waits until its deadline; returns its number.
    pub(super) fn insert(&mut self, deadline: Instant, what: T) -> u64 {
        self.note_deadline(deadline);
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, occupant: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[at as usize];
        place.uses = place.uses.wrapping_add(1);
        place.occupant = Some((deadline, what));
        u64::from(place.uses) << 32 | u64::from(at)
    }

    /// Takes out what has this number, unless it was taken out before.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let at = number as u32;
        let place = self.places.get_mut(at as usize)?;
        if u64::from(place.uses) != number >> 32 {
            return None;
        }
        let (_, what) = place.occupant.take()?;
        self.free.push(at);
        Some(what)
    }

    /// When the first deadline may pass.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.first_deadline
    }

    /// Takes out what is due.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        self.first_deadline = None;
        for at in 0..self.places.len() {
            match &mut self.places[at].occupant {
                Some((deadline, _)) if *deadline > now => {
                    let deadline = *deadline;
                    self.note_deadline(deadline);
                }
                occupant => {
                    if let Some((_, what)) = occupant.take() {
                        expired.push(what);
                        self.free.push(at as u32);
                    }
                }
            }
        }
        expired
    }

    fn note_deadline(&mut self, deadline: Instant) {
        self.first_deadline = Some(self.first_deadline.map_or(deadline, |first| first.min(deadline)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_number_is_never_taken_for_a_later_one() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let first = waiting.insert(now, "a");
        assert_eq!(waiting.remove(first), Some("a"));
        let second = waiting.insert(now, "b");
        assert_eq!((second as u32, waiting.remove(first)), (first as u32, None), "the place is used again");
        assert_eq!(waiting.remove(second), Some("b"));
        assert_eq!(waiting.remove(second), None);
    }

    #[test]
    fn what_is_due_goes_and_the_next_deadline_is_known() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let later = now + Duration::from_secs(5);
        let due = waiting.insert(now, "due");
        let stays = waiting.insert(later, "stays");
        assert_eq!(waiting.first_deadline(), Some(now));
        assert_eq!(waiting.expired(now), ["due"]);
        assert_eq!(waiting.first_deadline(), Some(later));
        assert_eq!((waiting.remove(due), waiting.remove(stays)), (None, Some("stays")));
        assert!(waiting.expired(later).is_empty());
        assert_eq!(waiting.first_deadline(), None);
    }
}
