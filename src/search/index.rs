//! Writing the index: one bounded step of one room at a time.
//!
//! A step goes on where the room's row says, takes some entries of the timeline, brings each
//! document they touch up to date, and commits all of it with the new place. Each document is
//! compared with what stands in the index for it: so an edit takes the words of the text before it
//! out, and a redaction takes all of them (attack case T47). What may be redacted is read from the
//! store, for the cache may not know of it yet.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use kv::{Batch, Direction, Position, Reader};
use ruma::EventId;

use super::{
    Inner,
    document::{Types, counts, target_of_edit, text_now},
    postings::Blocks,
};
use crate::{
    error::ApiError,
    id::{EventNid, RoomNid},
    rooms::{Room, Rooms, StoredEvent, timeline},
    storage::{
        rows::{TimelineEntry, TimelinePosition},
        schema::search::{
            DocumentKey, DocumentRow, IndexedRow, Posting, SEARCH_DOCUMENTS, SEARCH_ROOMS,
        },
    },
};

/// How many entries of a timeline one step takes.
const ENTRIES_PER_STEP: usize = 64;

/// After how many changed blocks a step takes no further entry: a batch stays below a few MB.
const BLOCKS_PER_STEP: usize = 2_000;

/// What a step would write.
pub(super) struct Step {
    pub(super) batch: Batch,
    /// Whether the room has more to index.
    pub(super) has_more: bool,
}

/// The next step of a room. `None`: all of it is indexed.
pub(super) fn next_step(
    search: &Inner,
    reader: &Reader<'_>,
    room: RoomNid,
) -> Result<Option<Step>, ApiError> {
    let before = reader.get(&SEARCH_ROOMS, &room)?;
    let indexed = before.unwrap_or_default();
    let from = Bound::Excluded(TimelinePosition::live(indexed.position));
    let limit = ENTRIES_PER_STEP + 1;
    let range = (from, Bound::Unbounded);
    let mut entries = timeline::entries(reader, room, range, Direction::Forward, limit)?;
    let Some(room) = search.rooms.room_by_nid(reader, room)? else { return Ok(None) };
    let mut has_more = entries.len() > ENTRIES_PER_STEP;
    entries.truncate(ENTRIES_PER_STEP);
    if entries.is_empty() {
        return Ok(None);
    }
    let mut writer = Writer::new(search, reader, &room, indexed);
    for (position, entry) in entries {
        if writer.blocks.len() >= BLOCKS_PER_STEP {
            has_more = true;
            break;
        }
        writer.take(position.position, &entry)?;
    }
    let (mut batch, row) = writer.finish();
    batch.check(&SEARCH_ROOMS, &room.nid, before.as_ref());
    batch.put(&SEARCH_ROOMS, &room.nid, &row);
    Ok(Some(Step { batch, has_more }))
}

struct Writer<'a> {
    search: &'a Inner,
    rooms: &'a Rooms,
    reader: &'a Reader<'a>,
    room: &'a Room,
    types: Types,
    blocks: Blocks<'a>,
    batch: Batch,
    row: IndexedRow,
    /// The documents as this step leaves them.
    documents: std::collections::HashMap<Position, Option<DocumentRow>>,
}

impl<'a> Writer<'a> {
    fn new(search: &'a Inner, reader: &'a Reader<'a>, room: &'a Room, row: IndexedRow) -> Self {
        Self {
            search,
            rooms: &search.rooms,
            reader,
            room,
            types: search.types,
            blocks: Blocks::new(reader, room.nid),
            batch: Batch::new(),
            row,
            documents: std::collections::HashMap::new(),
        }
    }

    /// Brings up to date what an entry of the timeline touches.
    fn take(&mut self, position: Position, entry: &TimelineEntry) -> Result<(), ApiError> {
        self.row.position = position;
        let redaction = self.types.is_redaction(entry.event_type);
        if !redaction && self.types.kind(entry.event_type).is_none() {
            return Ok(());
        }
        let Some(event) = self.rooms.event(self.reader, self.room, entry.event)? else {
            return Ok(());
        };
        if redaction {
            return self.redact(&event);
        }
        match target_of_edit(&event) {
            Some(target) => {
                let target = self.event_by_id(&target)?;
                match target {
                    Some(target) if counts(&event, target.pdu.sender()) => {
                        self.edit(position, &target)
                    }
                    _ => Ok(()),
                }
            }
            None => self.refresh(position, &event),
        }
    }

    /// An edit brings its target up to date, and is remembered for when it is redacted.
    fn edit(&mut self, position: Position, target: &StoredEvent) -> Result<(), ApiError> {
        let place = target.record.position;
        if place.line != 1 {
            return Ok(());
        }
        self.put(position, Some(DocumentRow::EditOf(place.position)));
        self.refresh(place.position, target)
    }

    fn redact(&mut self, redaction: &StoredEvent) -> Result<(), ApiError> {
        let Some(target) = redaction.pdu.redacts() else { return Ok(()) };
        let Some(target) = self.event_by_id(target)? else { return Ok(()) };
        let place = target.record.position;
        if place.line != 1 {
            return Ok(());
        }
        if let Some(DocumentRow::EditOf(original)) = self.document(place.position)? {
            if counts(&target, target.pdu.sender()) {
                // The redaction was not allowed.
                return Ok(());
            }
            self.put(place.position, None);
            let place = TimelinePosition::live(original);
            let bounds = (Bound::Included(place), Bound::Included(place));
            let entry =
                timeline::entries(self.reader, self.room.nid, bounds, Direction::Forward, 1)?;
            let Some((_, entry)) = entry.first() else { return Ok(()) };
            let event = self.event(entry.event)?;
            return event.map_or(Ok(()), |event| self.refresh(original, &event));
        }
        self.refresh(place.position, &target)
    }

    fn event(&self, event: EventNid) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        self.rooms.event_uncached(self.reader, self.room, event)
    }

    fn event_by_id(&self, event_id: &EventId) -> Result<Option<Arc<StoredEvent>>, ApiError> {
        let event = self.rooms.event_nid(self.reader, self.room, event_id)?;
        event.map_or(Ok(None), |event| self.event(event))
    }

    /// Makes the index say of a document what the document says now.
    fn refresh(&mut self, position: Position, event: &StoredEvent) -> Result<(), ApiError> {
        let Some(kind) = self.types.kind(event.record.event_type) else { return Ok(()) };
        let old = match self.document(position)? {
            Some(DocumentRow::Text { terms, .. }) => Some(terms),
            _ => None,
        };
        let load = |event| self.event(event);
        let text = text_now(self.reader, self.room, (event, kind), load)?;
        let mut terms = Vec::new();
        if let Some(text) = &text {
            let found = self.search.analyzer.terms(&text.text);
            let length = u8::try_from(found.words).unwrap_or(u8::MAX);
            for (term, count) in found.counts {
                let term = self.rooms.interner().term(&term);
                let count = u8::try_from(count).unwrap_or(u8::MAX);
                self.blocks.insert(term, Posting { position, count, length })?;
                terms.push(term);
            }
        }
        terms.sort_unstable();
        terms.dedup();
        let kept: BTreeSet<u64> = terms.iter().copied().collect();
        for term in old.iter().flatten().filter(|term| !kept.contains(term)) {
            self.blocks.remove(*term, position)?;
        }
        let new = (!terms.is_empty()).then(|| DocumentRow::Text {
            edit: text.and_then(|text| text.edit).map(|edit| edit.nid),
            terms,
        });
        if old.is_some() || new.is_some() {
            self.put(position, new);
        }
        Ok(())
    }

    fn document(&self, position: Position) -> Result<Option<DocumentRow>, kv::Error> {
        if let Some(document) = self.documents.get(&position) {
            return Ok(document.clone());
        }
        self.reader.get(&SEARCH_DOCUMENTS, &DocumentKey { room: self.room.nid, position })
    }

    fn put(&mut self, position: Position, document: Option<DocumentRow>) {
        let key = DocumentKey { room: self.room.nid, position };
        match &document {
            Some(row) => self.batch.put(&SEARCH_DOCUMENTS, &key, row),
            None => self.batch.delete(&SEARCH_DOCUMENTS, &key),
        }
        self.documents.insert(position, document);
    }

    fn finish(mut self) -> (Batch, IndexedRow) {
        self.blocks.write(&mut self.batch);
        (self.batch, self.row)
    }
}
