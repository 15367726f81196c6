//! Blocks of postings as the index changes them: read where they are needed, changed in memory,
//! written together.
//!
//! Invariant: the blocks of a term follow each other without overlap. A posting belongs to the last
//! block that begins at or before it, or to a new one where there is none.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use kv::{Batch, Position, Reader};

use crate::{
    id::RoomNid,
    storage::schema::search::{Posting, PostingBlock, PostingKey, SEARCH_POSTINGS},
};

/// How many postings a block has at most.
pub(super) const POSTINGS_PER_BLOCK: usize = 128;

/// The changed blocks of one room.
pub(super) struct Blocks<'a> {
    reader: &'a Reader<'a>,
    room: RoomNid,
    terms: HashMap<u64, BTreeMap<Position, Vec<Posting>>>,
    count: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, room: RoomNid) -> Self {
        Self { reader, room, terms: HashMap::new(), count: 0 }
    }

    /// How many blocks will be written.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a posting, or replaces the one of the same document.
    pub(super) fn insert(&mut self, term: u64, posting: Posting) -> Result<(), kv::Error> {
        let position = posting.position;
        let from = match self.load(term, position)? {
            Some(from) => from,
            None => self.add(term, position, Vec::new()),
        };
        let Some(block) = self.block(term, from) else { return Ok(()) };
        match block.binary_search_by_key(&position, |posting| posting.position) {
            Ok(at) => block[at] = posting,
            Err(at) if block.len() < POSTINGS_PER_BLOCK => block.insert(at, posting),
            // Most come at the end: then the full block stays as it is.
            Err(at) if at == block.len() => {
                self.add(term, position, vec![posting]);
            }
            Err(at) => {
                let middle = POSTINGS_PER_BLOCK / 2;
                let mut upper = block.split_off(middle);
                if at < middle {
                    block.insert(at, posting);
                } else {
                    upper.insert(at - middle, posting);
                }
                self.add(term, upper[0].position, upper);
            }
        }
        Ok(())
    }

    /// Takes a posting out, if it is there.
    pub(super) fn remove(&mut self, term: u64, position: Position) -> Result<(), kv::Error> {
        if let Some(from) = self.load(term, position)?
            && let Some(block) = self.block(term, from)
        {
            block.retain(|posting| posting.position != position);
        }
        Ok(())
    }

    /// Writes what was changed; a block without postings goes.
    pub(super) fn write(&self, batch: &mut Batch) {
        for (&term, blocks) in &self.terms {
            for (&from, postings) in blocks {
                let key = PostingKey { room: self.room, term, from };
                if postings.is_empty() {
                    batch.delete(&SEARCH_POSTINGS, &key);
                } else {
                    batch.put(&SEARCH_POSTINGS, &key, &PostingBlock(postings.clone()));
                }
            }
        }
    }

    fn block(&mut self, term: u64, from: Position) -> Option<&mut Vec<Posting>> {
        self.terms.get_mut(&term)?.get_mut(&from)
    }

    fn add(&mut self, term: u64, from: Position, postings: Vec<Posting>) -> Position {
        self.terms.entry(term).or_default().insert(from, postings);
        self.count += 1;
        from
    }

    /// Where the block begins that a place belongs to; it is in memory then. `None`: there is none.
    fn load(&mut self, term: u64, position: Position) -> Result<Option<Position>, kv::Error> {
        let known = self.terms.get(&term);
        let known = known.and_then(|blocks| Some(*blocks.range(..=position).next_back()?.0));
        let key = PostingKey { room: self.room, term, from: position };
        let stored = self.reader.last_at_or_before(&SEARCH_POSTINGS, &(self.room, term), &key)?;
        // A block that was added since may lie between.
        let Some((key, block)) = stored.filter(|(key, _)| Some(key.from) > known) else {
            return Ok(known);
        };
        if let Entry::Vacant(entry) = self.terms.entry(term).or_default().entry(key.from) {
            entry.insert(block.0);
            self.count += 1;
        }
        Ok(Some(key.from))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kv::{Direction, Durability, Store};
    use proptest::prelude::*;

    use super::*;
    use crate::storage::schema::FAMILIES;

    const ROOM: RoomNid = RoomNid(7);

    fn posting(number: u64) -> Posting {
        Posting { position: Position::from_u64(number), count: 1, length: 9 }
    }

    fn stored(store: &Store) -> Vec<(Position, Vec<u64>)> {
        let reader = store.reader();
        let all = SEARCH_POSTINGS.prefix(&(ROOM, 1_u64));
        let rows = reader.scan(&SEARCH_POSTINGS, &all, Direction::Forward, usize::MAX).unwrap();
        let numbers = |block: PostingBlock| {
            block.0.into_iter().map(|posting| posting.position.as_u64()).collect()
        };
        rows.into_iter().map(|(key, block)| (key.from, numbers(block))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_hold_what_was_put_in(
            steps in prop::collection::vec((any::<bool>(), 1_u64..400, 1_usize..8), 1..600),
        ) {
            let store = Store::memory(&FAMILIES);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut expected = BTreeSet::new();
            let mut steps = steps.into_iter();
            while let Some((_, _, batch_size)) = steps.clone().next() {
                let mut batch = Batch::new();
                {
                    let reader = store.reader();
                    let mut blocks = Blocks::new(&reader, ROOM);
                    // Some batches are long, so that blocks fill up.
                    for (add, number, _) in steps.by_ref().take(batch_size * 40) {
                        if add || number % 3 > 0 {
                            blocks.insert(1, posting(number)).unwrap();
                            expected.insert(number);
                        } else {
                            blocks.remove(1, posting(number).position).unwrap();
                            expected.remove(&number);
                        }
                    }
                    blocks.write(&mut batch);
                }
                runtime.block_on(store.commit(batch, Durability::Buffered)).unwrap();
            }
            let blocks = stored(&store);
            let all: Vec<u64> = blocks.iter().flat_map(|(_, numbers)| numbers.clone()).collect();
            prop_assert_eq!(all, expected.into_iter().collect::<Vec<_>>());
            for (from, numbers) in &blocks {
                prop_assert!(!numbers.is_empty() && numbers.len() <= POSTINGS_PER_BLOCK);
                prop_assert!(from.as_u64() <= numbers[0]);
            }
            for pair in blocks.windows(2) {
                prop_assert!(pair[0].1.last() < Some(&pair[1].0.as_u64()));
            }
        }
    }
}
