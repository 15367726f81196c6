//! Reading the index: the documents that hold all terms of a query, newest first, over many rooms.
//!
//! Each term of each room has a cursor that only goes back in time. The rooms are merged by a heap,
//! so that nothing is read that lies behind the last match that was asked for.

use std::{collections::BinaryHeap, ops::Bound};

use kv::{Direction, Position, Reader};

use crate::{
    id::RoomNid,
    storage::schema::search::{Posting, PostingKey, SEARCH_POSTINGS},
};

/// How many blocks of postings one search reads at most.
const BLOCKS_MAX: usize = 20_000;

/// Weights of the rank, as BM25 has them, and the length of a usual message in words.
const SATURATION: f64 = 1.2;
const LENGTH_WEIGHT: f64 = 0.5;
const LENGTH_USUAL: f64 = 12.0;

/// A document that holds all terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Match {
    /// Which of the rooms that were asked for.
    pub(super) room: usize,
    /// The document's place in the timeline.
    pub(super) position: Position,
    /// How well it fits, from 0 to 1.
    pub(super) rank: f64,
}

/// All matches, newest first.
pub(super) struct Matches<'a> {
    source: Source<'a>,
    rooms: Vec<RoomMatches>,
    next: BinaryHeap<(Position, usize)>,
}

struct Source<'a> {
    reader: &'a Reader<'a>,
    blocks_left: usize,
}

struct RoomMatches {
    cursors: Vec<Cursor>,
    /// The rank of the match that the heap holds.
    rank: f64,
}

struct Cursor {
    room: RoomNid,
    term: u64,
    /// The block that was read last, with its key.
    block: Option<(Position, Vec<Posting>)>,
}

impl<'a> Matches<'a> {
    /// Those at or before a place (before it, where it is excluded).
    pub(super) fn new(
        reader: &'a Reader<'a>,
        rooms: &[RoomNid],
        terms: &[u64],
        upper: Bound<Position>,
    ) -> Result<Self, kv::Error> {
        let source = Source { reader, blocks_left: BLOCKS_MAX };
        let rooms = rooms.iter().map(|&room| RoomMatches {
            cursors: terms.iter().map(|&term| Cursor { room, term, block: None }).collect(),
            rank: 0.0,
        });
        let mut matches = Self { source, rooms: rooms.collect(), next: BinaryHeap::new() };
        for room in 0..matches.rooms.len() {
            matches.advance(room, upper)?;
        }
        Ok(matches)
    }

    /// The next match back in time.
    pub(super) fn next(&mut self) -> Result<Option<Match>, kv::Error> {
        let Some((position, room)) = self.next.pop() else { return Ok(None) };
        let rank = self.rooms[room].rank;
        self.advance(room, Bound::Excluded(position))?;
        Ok(Some(Match { room, position, rank }))
    }

    fn advance(&mut self, room: usize, upper: Bound<Position>) -> Result<(), kv::Error> {
        if let Some(position) = self.rooms[room].find(&mut self.source, upper)? {
            self.next.push((position, room));
        }
        Ok(())
    }
}

impl RoomMatches {
    /// The newest place that all cursors share.
    fn find(
        &mut self,
        source: &mut Source<'_>,
        upper: Bound<Position>,
    ) -> Result<Option<Position>, kv::Error> {
        let mut upper = upper;
        'again: loop {
            let mut candidate: Option<Position> = None;
            let mut rank = 0.0;
            for cursor in &mut self.cursors {
                let bound = candidate.map_or(upper, Bound::Included);
                let Some(posting) = cursor.last(source, bound)? else { return Ok(None) };
                if candidate.is_some_and(|candidate| posting.position < candidate) {
                    upper = Bound::Included(posting.position);
                    continue 'again;
                }
                candidate = Some(posting.position);
                rank += weight(posting);
            }
            #[expect(clippy::cast_precision_loss, reason = "a query has few terms")]
            let terms = self.cursors.len().max(1) as f64;
            self.rank = rank / terms;
            return Ok(candidate);
        }
    }
}

/// How much one term adds, from 0 to 1: more where it is frequent, less where the text is long.
fn weight(posting: Posting) -> f64 {
    let count = f64::from(posting.count);
    let length = f64::from(posting.length) / LENGTH_USUAL;
    count / (count + SATURATION * (1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * length))
}

impl Cursor {
    /// The last posting within the bound; bounds only go back from call to call.
    fn last(
        &mut self,
        source: &mut Source<'_>,
        bound: Bound<Position>,
    ) -> Result<Option<Posting>, kv::Error> {
        let mut wanted = bound;
        loop {
            if let Some((from, postings)) = &self.block {
                let end = postings.partition_point(|posting| within(posting.position, bound));
                if end > 0 {
                    return Ok(Some(postings[end - 1]));
                }
                // Further back than this block, and not further than asked for.
                if within(*from, bound) {
                    wanted = Bound::Excluded(*from);
                }
            }
            if source.blocks_left == 0 {
                return Ok(None);
            }
            source.blocks_left -= 1;
            let start = (self.room, self.term);
            let key = |from| PostingKey { room: self.room, term: self.term, from };
            let end = match wanted {
                Bound::Unbounded => Bound::Included(key(Position::MAX)),
                bound => bound.map(key),
            };
            let range = SEARCH_POSTINGS.range(Bound::Included(&start), end.as_ref());
            let block = source.reader.scan(&SEARCH_POSTINGS, &range, Direction::Backward, 1)?;
            match block.into_iter().next() {
                Some((key, block)) => self.block = Some((key.from, block.0)),
                None => return Ok(None),
            }
        }
    }
}

fn within(position: Position, bound: Bound<Position>) -> bool {
    match bound {
        Bound::Included(bound) => position <= bound,
        Bound::Excluded(bound) => position < bound,
        Bound::Unbounded => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kv::{Batch, Durability, Store};
    use proptest::prelude::*;

    use super::*;
    use crate::{search::postings::Blocks, storage::schema::FAMILIES};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn matches_are_the_intersection_newest_first(
            documents in prop::collection::btree_map(1_u64..900, (0_u64..3, 1_u8..8), 0..700),
            upper in 1_u64..1_000,
        ) {
            let store = Store::memory(&FAMILIES);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut batch = Batch::new();
            {
                let reader = store.reader();
                for room in 0..3 {
                    let mut blocks = Blocks::new(&reader, RoomNid(room));
                    for (&number, &(_, terms)) in documents.iter().filter(|(_, d)| d.0 == room) {
                        let position = Position::from_u64(number);
                        for term in (0..3).filter(|term| terms & (1 << term) != 0) {
                            let posting = Posting { position, count: 1, length: 3 };
                            blocks.insert(term, posting).unwrap();
                        }
                    }
                    blocks.write(&mut batch);
                }
            }
            runtime.block_on(store.commit(batch, Durability::Buffered)).unwrap();
            let reader = store.reader();
            for terms in [vec![0], vec![0, 1], vec![2, 0, 1]] {
                let rooms = [RoomNid(0), RoomNid(2)];
                let bound = Bound::Included(Position::from_u64(upper));
                let mut matches = Matches::new(&reader, &rooms, &terms, bound).unwrap();
                let mut found = Vec::new();
                while let Some(next) = matches.next().unwrap() {
                    prop_assert!(next.rank > 0.0 && next.rank < 1.0);
                    found.push((next.position.as_u64(), rooms[next.room].0));
                }
                let all = |mask: u8| terms.iter().all(|term| mask & (1 << term) != 0);
                let expected: BTreeSet<(u64, u64)> = documents
                    .iter()
                    .filter(|(number, (room, mask))| **number <= upper && *room != 1 && all(*mask))
                    .map(|(number, (room, _))| (*number, *room))
                    .collect();
                prop_assert_eq!(found, expected.into_iter().rev().collect::<Vec<_>>());
            }
        }
    }
}
