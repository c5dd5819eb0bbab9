//! The keys with the largest sums among millions, in little memory.
//!
//! A key belongs to one of some thousand sets, by its hash. A set remembers [`SLOTS`] keys and, in `others`, everything it has
//! forgotten:
//!
//! ```text
//!   set:   key  sum  missed  │  key  sum  missed  │ … SLOTS │  others
//! ```
//!
//! * A row of a key that is remembered is added to its `sum`.
//! * Another key takes a free slot, or that of the key with the least sum, which goes to `others`. What it may have `missed`, having been here
//!   before, is at most what `others` was then.
//!
//! So a key's true sum is between `sum` and `sum + missed`, and that of a key that is not remembered is at most `others`. Who talks much
//! is remembered early and for good; the others come and go in the slots that are left, and what a set forgets is little beside what the
//! first ten have.
//!
//! Each thread has its own sets, over which the bounds add up. When all rows have been added, the bounds say
//! which keys can be among the first ([`RankingState`]): mostly their sums are known as well, for nothing was missed. Otherwise
//! a second pass sums those few keys ([`Recount`]). Where sums lie so close together that the bounds exclude nothing, somebody
//! else has to sum everything.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use super::key::{KeyValues, pack};

/// Keys that a set remembers.
const SLOTS: usize = 4;
/// Sets for each place of the ranking: what a set forgets is then far less than what the last place has.
const SETS_PER_PLACE: usize = 256;
/// Half a megabyte for addresses, which the second-level cache holds, to nine.
const SETS_MIN: usize = 1 << 12;
const SETS_MAX: usize = 1 << 16;
/// Rows whose sets are fetched before the first of them is added, so that memory is waited for once.
const AHEAD: usize = 64;
/// Keys of a second pass for each place.
const CANDIDATES_PER_PLACE: usize = 64;

/// Odd numbers with well mixed bits: the fractions of √2 and √3.
const MULTIPLIERS: [u64; 2] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RankingRequest {
    /// Keys wanted.
    pub(super) places: usize,
    /// The value whose sum they are ranked by.
    pub(super) ranked_by: usize,
}

/// Sums column by column: the words of the keys, then the values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sums {
    pub(super) rows: usize,
    pub(super) words: Vec<Vec<u64>>,
    pub(super) values: Vec<Vec<u64>>,
}

/// What is known when all rows have been added.
pub(super) enum RankingState {
    /// All keys with at least the sum of the last place, with their sums.
    Known(Sums),
    /// Those keys are among these, whose sums have to be counted.
    Among(Box<dyn Counter>),
    /// It could be any.
    Open,
}

/// Takes in rows, whatever the size of key and values.
pub(super) trait Counter: Send + Sync {
    /// Adds rows: their keys, and what is added up of each. `None` adds 1 for each row. All are of `rows` rows.
    fn add(&self, rows: usize, keys: &[KeyValues<'_>], values: &[Option<&[u64]>]);

    /// What it came to, when all have been added. What is counted by a [`Recount`] is known.
    fn standing(&self) -> RankingState;

    /// Memory held by each thread that adds, but for a batch of rows.
    fn bytes_per_thread(&self) -> usize;
}

/// The leaders among keys of so many words of 64 bits with so many values; `None` for sizes that are not provided for.
pub(super) fn leaders(words: usize, values: usize, race: RankingRequest) -> Option<Box<dyn Counter>> {
    fn of_words<const W: usize>(values: usize, race: RankingRequest) -> Option<Box<dyn Counter>> {
        Some(match values {
            1 => Box::new(Leaders::<W, 1>::new(race)),
            2 => Box::new(Leaders::<W, 2>::new(race)),
            3 => Box::new(Leaders::<W, 3>::new(race)),
            _ => return None,
        })
    }
    match words {
        1 => of_words::<1>(values, race),
        2 => of_words::<2>(values, race),
        3 => of_words::<3>(values, race),
        4 => of_words::<4>(values, race),
        5 => of_words::<5>(values, race),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Set<const W: usize, const V: usize> {
    keys: [[u64; W]; SLOTS],
    sums: [[u64; V]; SLOTS],
    /// Of the value that is ranked by, as `others`.
    missed: [u64; SLOTS],
    /// Whether nothing at all was missed, of no value.
    whole: [bool; SLOTS],
    others: u64,
    forgetful: bool,
    taken: u8,
}

impl<const W: usize, const V: usize> Set<W, V> {
    const EMPTY: Set<W, V> = Set {
        keys: [[0; W]; SLOTS],
        sums: [[0; V]; SLOTS],
        missed: [0; SLOTS],
        whole: [false; SLOTS],
        others: 0,
        forgetful: false,
        taken: 0,
    };

    /// The keys that are remembered.
    fn known(&self) -> &[[u64; W]] {
        &self.keys[..usize::from(self.taken)]
    }

    fn find(&self, key: &[u64; W]) -> Option<usize> {
        self.known().iter().position(|known| known == key)
    }

    fn add(&mut self, key: &[u64; W], values: &[u64; V], ranked_by: usize) {
        if let Some(slot) = self.find(key) {
            add_values(&mut self.sums[slot], values);
            return;
        }
        let (missed, whole) = (self.others, !self.forgetful);
        let mut slot = usize::from(self.taken);
        if slot < SLOTS {
            self.taken += 1;
        } else {
            slot = 0;
            for other in 1..SLOTS {
                if self.sums[other][ranked_by] < self.sums[slot][ranked_by] {
                    slot = other;
                }
            }
            self.others = self.others.wrapping_add(self.sums[slot][ranked_by]);
            self.forgetful = true;
        }
        self.keys[slot] = *key;
        self.sums[slot] = *values;
        self.missed[slot] = missed;
        self.whole[slot] = whole;
    }
}

/// Adds each; as SQL's sum of unsigned numbers does, it wraps around.
fn add_values<const V: usize>(sums: &mut [u64; V], values: &[u64; V]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(*value);
    }
}

/// Hashes keys by a seed that nobody who sends flows can foresee.
#[derive(Clone, Copy)]
struct Hasher {
    seed: u64,
}

impl Hasher {
    fn new() -> Hasher {
        Hasher {
            seed: RandomState::new().hash_one(0),
        }
    }

    /// Multiplies each word into the hash and folds the product's halves.
    fn hash<const W: usize>(self, key: &[u64; W]) -> u64 {
        let fold = |hash: u64, multiplier: u64| {
            let product = u128::from(hash) * u128::from(multiplier);
            (product >> 64) as u64 ^ product as u64
        };
        let hash = key
            .iter()
            .fold(self.seed, |hash, word| fold(hash ^ word, MULTIPLIERS[0]));
        fold(hash, MULTIPLIERS[1])
    }
}

/// Rows as keys and values, in memory that is used again.
struct Rows<const W: usize> {
    keys: Vec<[u64; W]>,
    ones: Vec<u64>,
}

impl<const W: usize> Rows<W> {
    const EMPTY: Rows<W> = Rows {
        keys: Vec::new(),
        ones: Vec::new(),
    };

    fn fill<'a, const V: usize>(
        &'a mut self,
        rows: usize,
        keys: &[KeyValues<'_>],
        values: &[Option<&'a [u64]>],
    ) -> (&'a [[u64; W]], [&'a [u64]; V]) {
        pack(rows, keys, &mut self.keys);
        if values.contains(&None) && self.ones.len() < rows {
            self.ones.resize(rows, 1);
        }
        let ones = &self.ones[..];
        (
            &self.keys,
            std::array::from_fn(|value| &values[value].unwrap_or(ones)[..rows]),
        )
    }
}

/// The first pass.
struct Leaders<const W: usize, const V: usize> {
    race: RankingRequest,
    hasher: Hasher,
    sets: usize,
    /// Those of threads that are not adding just now.
    idle: Mutex<Vec<Worker<W, V>>>,
}

/// What one thread keeps.
struct Worker<const W: usize, const V: usize> {
    sets: Vec<Set<W, V>>,
    rows: Rows<W>,
    /// Of the value that is ranked by. As long as those of all threads together fit 64 bits, so does every sum and bound.
    total: u128,
}

impl<const W: usize, const V: usize> Leaders<W, V> {
    fn new(race: RankingRequest) -> Leaders<W, V> {
        let sets = race.places.saturating_mul(SETS_PER_PLACE).clamp(SETS_MIN, SETS_MAX);
        Leaders::with_sets(race, sets.next_power_of_two())
    }

    /// `sets`: a power of two.
    fn with_sets(race: RankingRequest, sets: usize) -> Leaders<W, V> {
        Leaders {
            race,
            hasher: Hasher::new(),
            sets,
            idle: Mutex::default(),
        }
    }

    fn worker(&self) -> Worker<W, V> {
        Worker {
            sets: vec![Set::EMPTY; self.sets],
            rows: Rows::EMPTY,
            total: 0,
        }
    }

    /// What is known of the keys that some thread remembers in a set.
    fn remembered(threads: &[Worker<W, V>], set: usize) -> Vec<Known<W, V>> {
        let sets = || threads.iter().map(|thread| &thread.sets[set]);
        let keys: BTreeSet<&[u64; W]> = sets().flat_map(Set::known).collect();
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let mut known = Known {
                key: *key,
                sums: [0; V],
                missed: 0,
                whole: true,
            };
            for set in sets() {
                let (missed, whole) = match set.find(key) {
                    Some(slot) => {
                        add_values(&mut known.sums, &set.sums[slot]);
                        (set.missed[slot], set.whole[slot])
                    }
                    None => (set.others, !set.forgetful),
                };
                known.missed += missed;
                known.whole &= whole;
            }
            all.push(known);
        }
        all
    }
}

/// What all threads together know of a key.
#[derive(Clone, Copy)]
struct Known<const W: usize, const V: usize> {
    key: [u64; W],
    sums: [u64; V],
    /// How much more the sum that is ranked by can be.
    missed: u64,
    /// Whether all sums are what they are.
    whole: bool,
}

impl<const W: usize, const V: usize> Counter for Leaders<W, V> {
    fn add(&self, rows: usize, keys: &[KeyValues<'_>], values: &[Option<&[u64]>]) {
        let ranked_by = self.race.ranked_by;
        let idle = lock(&self.idle).pop();
        let mut worker = idle.unwrap_or_else(|| self.worker());
        let Worker {
            sets,
            rows: filled,
            total,
        } = &mut worker;
        let (keys, columns) = filled.fill::<V>(rows, keys, values);
        *total += columns[ranked_by].iter().map(|value| u128::from(*value)).sum::<u128>();
        let mask = sets.len() - 1;
        for (keys, first) in keys.chunks(AHEAD).zip((0..).step_by(AHEAD)) {
            let mut at = [0; AHEAD];
            let mut fetched = 0;
            for (at, key) in at.iter_mut().zip(keys) {
                *at = self.hasher.hash(key) as usize & mask;
                fetched ^= sets[*at].others;
            }
            std::hint::black_box(fetched);
            for ((key, at), row) in keys.iter().zip(at).zip(first..) {
                let values = columns.map(|column| column[row]);
                sets[at].add(key, &values, ranked_by);
            }
        }
        lock(&self.idle).push(worker);
    }

    fn bytes_per_thread(&self) -> usize {
        self.sets * size_of::<Set<W, V>>()
    }

    fn standing(&self) -> RankingState {
        let RankingRequest { places, ranked_by } = self.race;
        let threads = lock(&self.idle);
        if threads.iter().map(|thread| thread.total).sum::<u128>() > u128::from(u64::MAX) {
            return RankingState::Open;
        }
        let mut known = Vec::new();
        let mut forgotten_most = None;
        for set in 0..self.sets {
            known.extend(Self::remembered(&threads, set));
            let forgetful = threads
                .iter()
                .map(|thread| &thread.sets[set])
                .filter(|set| set.forgetful);
            forgotten_most = forgotten_most.max(forgetful.map(|set| set.others).reduce(|one, other| one + other));
        }
        // The last place has at least this; nothing, when there are fewer keys than places.
        let mut last = 0;
        if (1..=known.len()).contains(&places) {
            let place = known.select_nth_unstable_by_key(places - 1, |known| Reverse(known.sums[ranked_by]));
            last = place.1.sums[ranked_by];
        }
        if forgotten_most.is_some_and(|forgotten| forgotten >= last) {
            return RankingState::Open;
        }
        known.retain(|known| known.sums[ranked_by] + known.missed >= last);
        if known.iter().all(|known| known.whole) {
            return RankingState::Known(Sums::of(known.iter().map(|known| (known.key, known.sums))));
        }
        if known.len() > places.saturating_mul(CANDIDATES_PER_PLACE) {
            return RankingState::Open;
        }
        RankingState::Among(Box::new(Recount::<W, V>::new(known.iter().map(|known| known.key))))
    }
}

/// The second pass: sums of some keys, leaving out all others.
struct Recount<const W: usize, const V: usize> {
    hasher: Hasher,
    wanted: HashTable<([u64; W], usize)>,
    idle: Mutex<Vec<(Rows<W>, Vec<[u64; V]>)>>,
}

impl<const W: usize, const V: usize> Recount<W, V> {
    fn new(keys: impl Iterator<Item = [u64; W]>) -> Recount<W, V> {
        let hasher = Hasher::new();
        let mut wanted = HashTable::new();
        for (number, key) in keys.enumerate() {
            wanted.insert_unique(hasher.hash(&key), (key, number), |(key, _)| hasher.hash(key));
        }
        Recount {
            hasher,
            wanted,
            idle: Mutex::default(),
        }
    }
}

impl<const W: usize, const V: usize> Counter for Recount<W, V> {
    fn add(&self, rows: usize, keys: &[KeyValues<'_>], values: &[Option<&[u64]>]) {
        let idle = lock(&self.idle).pop();
        let (mut filled, mut sums) = idle.unwrap_or_else(|| (Rows::EMPTY, vec![[0; V]; self.wanted.len()]));
        let (keys, columns) = filled.fill::<V>(rows, keys, values);
        for (row, key) in keys.iter().enumerate() {
            if let Some((_, number)) = self.wanted.find(self.hasher.hash(key), |(wanted, _)| wanted == key) {
                add_values(&mut sums[*number], &columns.map(|column| column[row]));
            }
        }
        lock(&self.idle).push((filled, sums));
    }

    fn bytes_per_thread(&self) -> usize {
        self.wanted.len() * size_of::<[u64; V]>()
    }

    fn standing(&self) -> RankingState {
        let threads = lock(&self.idle);
        RankingState::Known(Sums::of(self.wanted.iter().map(|(key, number)| {
            let mut all = [0; V];
            for (_, sums) in threads.iter() {
                add_values(&mut all, &sums[*number]);
            }
            (*key, all)
        })))
    }
}

impl Sums {
    fn of<const W: usize, const V: usize>(rows: impl Iterator<Item = ([u64; W], [u64; V])>) -> Sums {
        let mut sums = Sums {
            rows: 0,
            words: vec![Vec::new(); W],
            values: vec![Vec::new(); V],
        };
        for (key, values) in rows {
            sums.rows += 1;
            for (column, word) in sums.words.iter_mut().zip(key) {
                column.push(word);
            }
            for (column, value) in sums.values.iter_mut().zip(values) {
                column.push(value);
            }
        }
        sums
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, UInt64Array};
    use arrow::datatypes::DataType;
    use proptest::prelude::*;

    use super::super::key::KeyLayout;
    use super::*;

    /// A key, and its two values, of which the first is ranked by.
    type Row = (u64, [u64; 2]);

    fn feed(counter: &dyn Counter, rows: &[Row]) {
        let layout = KeyLayout::of([DataType::UInt64]).unwrap();
        let keys: ArrayRef = std::sync::Arc::new(rows.iter().map(|(key, _)| *key).collect::<UInt64Array>());
        let value = |value: usize| -> Vec<u64> { rows.iter().map(|(_, values)| values[value]).collect() };
        let (first, second) = (value(0), value(1));
        counter.add(
            rows.len(),
            &layout.values(&[keys]).unwrap(),
            &[Some(&first), Some(&second)],
        );
    }

    /// What is known after two threads have seen the rows by turns, batch by batch.
    fn first_pass(rows: &[Row], places: usize, sets: usize, batch: usize) -> RankingState {
        let leaders = Leaders::<1, 2>::with_sets(RankingRequest { places, ranked_by: 0 }, sets);
        lock(&leaders.idle).extend([leaders.worker(), leaders.worker()]);
        for rows in rows.chunks(batch) {
            feed(&leaders, rows);
            lock(&leaders.idle).rotate_left(1);
        }
        leaders.standing()
    }

    fn sums_of(rows: &[Row]) -> BTreeMap<u64, [u64; 2]> {
        let mut sums = BTreeMap::new();
        for (key, values) in rows {
            add_values(sums.entry(*key).or_insert([0; 2]), values);
        }
        sums
    }

    /// Nobody who belongs among the first is missing, and every sum is right.
    fn check(known: &Sums, rows: &[Row], places: usize) {
        let sums = sums_of(rows);
        let keys: BTreeSet<u64> = known.words[0].iter().copied().collect();
        assert_eq!(keys.len(), known.rows, "each key once");
        for (row, key) in known.words[0].iter().enumerate() {
            assert_eq!([known.values[0][row], known.values[1][row]], sums[key], "key {key}");
        }
        let mut ranked: Vec<u64> = sums.values().map(|sums| sums[0]).collect();
        ranked.sort_unstable_by_key(|sum| Reverse(*sum));
        let last = ranked.get(places - 1).copied().unwrap_or(0);
        for (key, sums) in &sums {
            assert!(
                sums[0] < last || keys.contains(key),
                "key {key} with {} of at least {last}",
                sums[0]
            );
        }
    }

    fn check_standing(standing: RankingState, rows: &[Row], places: usize) -> &'static str {
        match standing {
            RankingState::Known(known) => {
                check(&known, rows, places);
                "known"
            }
            RankingState::Among(candidates) => {
                feed(candidates.as_ref(), rows);
                let RankingState::Known(known) = candidates.standing() else {
                    panic!("what was counted is known");
                };
                check(&known, rows, places);
                "among"
            }
            RankingState::Open => "open",
        }
    }

    fn row() -> impl Strategy<Value = Row> {
        // Few keys that talk much, many that talk little, and some that say nothing.
        let key = prop_oneof![3 => 0_u64..4, 2 => 4_u64..40, 1 => any::<u64>()];
        let value = prop_oneof![1 => Just(0_u64), 4 => 1_u64..20, 1 => 1_000_u64..100_000];
        (key, value, 0_u64..5).prop_map(|(key, value, other)| (key, [value, other]))
    }

    proptest! {
        #[test]
        fn the_first_are_found_or_it_is_said_that_they_are_not(
            rows in prop::collection::vec(row(), 0..400),
            places in 1_usize..12,
            sets in prop::sample::select(vec![1_usize, 2, 8, 64]),
            batch in 1_usize..100,
        ) {
            check_standing(first_pass(&rows, places, sets, batch), &rows, places);
        }
    }

    #[test]
    fn few_keys_are_known() {
        let rows: Vec<Row> = (0..1_000).map(|row| (row % SLOTS as u64, [row, 1])).collect();
        for places in [1, SLOTS, 100] {
            assert_eq!(check_standing(first_pass(&rows, places, 1, 64), &rows, places), "known");
        }
        assert_eq!(check_standing(first_pass(&[], 10, 1, 64), &[], 10), "known");
    }

    #[test]
    fn who_talks_much_from_the_start_is_known() {
        let heavy = |row: u64| (row % 5, [1_000, 1]);
        let rows: Vec<Row> = (0..50_000)
            .map(|row| if row % 2 == 0 { heavy(row / 2) } else { (row, [1, 1]) })
            .collect();
        assert_eq!(check_standing(first_pass(&rows, 5, 64, 1_000), &rows, 5), "known");
    }

    #[test]
    fn who_comes_late_is_counted() {
        let light = (100..30_000).map(|key| (key, [1, 1]));
        let rows: Vec<Row> = light.chain((0..30_000).map(|row| (row % 5, [1_000, 1]))).collect();
        assert_eq!(check_standing(first_pass(&rows, 5, 64, 1_000), &rows, 5), "among");
    }

    #[test]
    fn equals_are_left_open() {
        let rows: Vec<Row> = (0..10_000).map(|key| (key, [1, 1])).collect();
        assert_eq!(check_standing(first_pass(&rows, 10, 64, 1_000), &rows, 10), "open");
        let silent: Vec<Row> = (0..10_000).map(|key| (key, [0, 1])).collect();
        assert_eq!(check_standing(first_pass(&silent, 10, 64, 1_000), &silent, 10), "open");
    }

    #[test]
    fn sums_beyond_64_bits_are_left_open() {
        let rows: Vec<Row> = vec![(1, [u64::MAX, 1]), (1, [2, 1]), (2, [5, 1])];
        assert_eq!(check_standing(first_pass(&rows, 1, 64, 1), &rows, 1), "open");
    }
}
