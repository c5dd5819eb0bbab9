//! What was noted last. Most of what comes notes it again, and a look here spares the one into a tree of all that is known.

const SLOTS: usize = 64;

/// Entries by a number that they have; of those that share a place the last one.
#[derive(Debug)]
pub(super) struct Recent<T>([Option<T>; SLOTS]);

impl<T: Copy> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent([None; SLOTS])
    }
}

impl<T: Copy + PartialEq> Recent<T> {
    /// Whether just this was noted last in its place.
    #[inline]
    pub(super) fn holds(&self, number: u32, entry: T) -> bool {
        self.0[slot(number)] == Some(entry)
    }

    pub(super) fn note(&mut self, number: u32, entry: T) {
        self.0[slot(number)] = Some(entry);
    }
}

/// Six bits after six bits folded into each other: some devices number interfaces one by one, others in large equal steps.
#[inline]
fn slot(number: u32) -> usize {
    let folded = number ^ (number >> 12) ^ (number >> 24);
    (folded ^ (folded >> 6)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_number_is_held() {
        let mut recent = Recent::default();
        assert!(!recent.holds(7, (7, 'a')));
        recent.note(7, (7, 'a'));
        assert!(recent.holds(7, (7, 'a')) && !recent.holds(7, (7, 'b')));
        recent.note(7, (7, 'b'));
        assert!(!recent.holds(7, (7, 'a')));
    }

    #[test]
    fn interfaces_have_places_of_their_own_however_they_are_numbered() {
        for step in [1, 16, 100, 4_096, 1 << 22] {
            let places: std::collections::BTreeSet<usize> = (0..48).map(|n| slot(0x1a00_0000 + n * step)).collect();
            assert!(places.len() > 32, "{step}: {}", places.len());
        }
    }
}
