//! Answering a search: which events it finds, in which order, and where it goes on.
//!
//! Matches are looked at newest first, a bounded number of them. Each is shown only when its event
//! still says the words, the reader may see it (and the edit that says them), does not ignore its
//! sender, and the filter wants it; nothing else is counted either. By rank, the best of those that
//! were looked at come first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search>

use std::{
    collections::{BTreeMap, HashSet},
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use kv::{Direction, Position, Reader};
use ruma::{OwnedRoomId, OwnedUserId, api::client::filter::RoomEventFilter};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Inner, Kind,
    answer::{Answering, FoundEvent},
    document::text_now,
    matches::{Match, Matches},
    terms::Query,
    token::Token,
};
use crate::{
    error::ApiError,
    id::{RoomNid, UserNid},
    rooms::{Room, StoredEvent, erasure, filter::Filter, history::Asker, visibility::Viewer},
    storage::{
        rows::{Membership, TimelinePosition},
        schema::rooms::{MEMBERSHIPS, TIMELINE, TimelineKey},
    },
};

/// The longest search term in bytes, and how many words it has at most.
const TERM_BYTES_MAX: usize = 512;
const TERM_WORDS_MAX: usize = 32;

/// How many matches are looked at.
const EXAMINED_MAX: usize = 1_000;
/// How many are looked at for the count alone, once a page of recent ones is full.
const COUNTED_MAX: usize = 250;

/// How many results a page has, by default and at most.
const RESULTS_DEFAULT: usize = 10;
const RESULTS_MAX: usize = 100;

/// How many words are told to be highlighted.
const HIGHLIGHTS_MAX: usize = 100;

/// The order of the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The best first.
    #[default]
    Rank,
    /// The newest first.
    Recent,
}

/// What results are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// By room.
    RoomId,
    /// By sender.
    Sender,
}

/// How much of a result's surroundings is shown.
#[derive(Clone, Copy, Debug)]
pub struct ContextSize {
    /// Events before it.
    pub before: usize,
    /// Events after it.
    pub after: usize,
    /// Whether the senders' profiles of that time are shown.
    pub profiles: bool,
}

/// A search.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who searches.
    pub asker: Asker,
    /// Whom they ignore.
    pub ignored: HashSet<OwnedUserId>,
    /// The words: all must be there.
    pub term: String,
    /// What is searched; nothing: everything.
    pub kinds: Vec<Kind>,
    /// Which events.
    pub filter: RoomEventFilter,
    /// In which order.
    pub order: Order,
    /// With which surroundings.
    pub context: Option<ContextSize>,
    /// Whether the state of the rooms is shown.
    pub state: bool,
    /// In which groups.
    pub groups: Vec<GroupBy>,
    /// Where to go on.
    pub next_batch: Option<String>,
}

/// What a search found, as clients are told it.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// How many results there are, as far as they were counted.
    pub count: u64,
    /// The words to highlight.
    pub highlights: Vec<String>,
    /// The results.
    pub results: Vec<FoundEvent>,
    /// The state of their rooms.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    /// Their groups.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<GroupBy, BTreeMap<String, Group>>,
    /// Where to go on; `None`: this is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// Results that belong together.
#[derive(Debug, Default, Serialize)]
pub struct Group {
    /// Its place among the groups.
    pub order: usize,
    /// The ids of the events.
    pub results: Vec<String>,
    /// Where to go on within the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// A checked search.
pub(super) struct Prepared {
    pub(super) request: Request,
    query: Query,
    terms: Vec<u64>,
    filter: Filter,
    pub(super) ignored: HashSet<UserNid>,
    limit: usize,
    token: Option<Token>,
}

pub(super) fn prepare(search: &Inner, request: Request) -> Result<Prepared, ApiError> {
    if request.term.len() > TERM_BYTES_MAX {
        let text = format!("`search_term` has at most {TERM_BYTES_MAX} bytes");
        return Err(ApiError::invalid_param(text));
    }
    let query = search.analyzer.query(&request.term);
    if query.words.len() > TERM_WORDS_MAX {
        let text = format!("`search_term` has at most {TERM_WORDS_MAX} words");
        return Err(ApiError::invalid_param(text));
    }
    let interner = search.rooms.interner();
    let filter = Filter::compile(&request.filter, interner)?;
    let limit = filter.limit().map_or(RESULTS_DEFAULT, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, RESULTS_MAX)
    });
    Ok(Prepared {
        terms: query.terms.iter().map(|term| interner.term(term)).collect(),
        query,
        filter,
        ignored: request.ignored.iter().map(|user_id| interner.user(user_id)).collect(),
        limit,
        token: request.next_batch.as_deref().map(Token::parse).transpose()?,
        request,
    })
}

/// An event that is shown.
pub(super) struct Hit {
    pub(super) event: Arc<StoredEvent>,
    pub(super) at: Match,
    text: String,
}

/// One room that is searched.
pub(super) struct SearchedRoom {
    pub(super) room: Room,
    pub(super) viewer: Viewer,
}

struct Run<'a> {
    search: &'a Inner,
    reader: &'a Reader<'a>,
    query: &'a Prepared,
    /// The rooms with their viewers, made when they are first needed.
    rooms: Vec<(RoomNid, Option<SearchedRoom>)>,
    sender: Option<UserNid>,
}

pub(super) fn run(
    search: &Inner,
    reader: &Reader<'_>,
    query: &Prepared,
) -> Result<Found, ApiError> {
    if query.terms.is_empty() {
        return Ok(Found::default());
    }
    let mut run = Run::new(search, reader, query)?;
    let (hits, next) = match query.request.order {
        Order::Rank => run.by_rank()?,
        Order::Recent => run.recent()?,
    };
    let mut found = Found {
        count: next.count,
        highlights: run.highlights(&hits),
        groups: next.groups,
        next_batch: next.token.map(|token| token.to_string()),
        ..Found::default()
    };
    let rooms = run.rooms.into_iter().map(|(_, room)| room).collect();
    let mut answering = Answering::new(&search.rooms, reader, query, rooms);
    for hit in &hits {
        found.results.push(answering.event(hit)?);
    }
    if query.request.state {
        found.state = answering.states(&hits)?;
    }
    Ok(found)
}

/// What is told beside the results of a page.
struct Rest {
    count: u64,
    token: Option<Token>,
    groups: BTreeMap<GroupBy, BTreeMap<String, Group>>,
}

impl<'a> Run<'a> {
    fn new(
        search: &'a Inner,
        reader: &'a Reader<'a>,
        query: &'a Prepared,
    ) -> Result<Self, ApiError> {
        let interner = search.rooms.interner();
        let token = query.token.as_ref();
        let room_id = token.and_then(|token| token.room.as_deref());
        let only = room_id.and_then(|room_id| <&ruma::RoomId>::try_from(room_id).ok());
        let only = only.map(|room_id| interner.room(room_id));
        let sender = token.and_then(|token| token.sender.as_deref());
        let sender = sender.and_then(|sender| <&ruma::UserId>::try_from(sender).ok());
        let mut rooms = Vec::new();
        let range = MEMBERSHIPS.prefix(&query.request.asker.user_id.to_string());
        reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            let is_joined = row.membership == Membership::Join;
            let was_joined = row.was_joined && !row.forgotten;
            if (is_joined || was_joined) && only.is_none_or(|only| only == key.room) {
                rooms.push((key.room, None));
            }
            ControlFlow::Continue(())
        })?;
        let mut run =
            Self { search, reader, query, rooms, sender: sender.map(|id| interner.user(id)) };
        run.keep_wanted_rooms()?;
        Ok(run)
    }

    /// Drops the rooms that the filter leaves out.
    fn keep_wanted_rooms(&mut self) -> Result<(), ApiError> {
        let filter = &self.query.request.filter;
        if filter.rooms.is_none() && filter.not_rooms.is_empty() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for (nid, _) in &self.rooms {
            let room = self.search.rooms.room_by_nid(self.reader, *nid)?;
            if room.is_some_and(|room| self.query.filter.admits_room(&room.id)) {
                kept.push((*nid, None));
            }
        }
        self.rooms = kept;
        Ok(())
    }

    fn matches(&self, upper: Bound<Position>) -> Result<Matches<'a>, ApiError> {
        let rooms: Vec<RoomNid> = self.rooms.iter().map(|(room, _)| *room).collect();
        Ok(Matches::new(self.reader, &rooms, &self.query.terms, upper)?)
    }

    fn recent(&mut self) -> Result<(Vec<Hit>, Rest), ApiError> {
        let upper = match &self.query.token {
            Some(token) => Bound::Excluded(token.position()),
            None => Bound::Unbounded,
        };
        let mut matches = self.matches(upper)?;
        let mut hits: Vec<Hit> = Vec::new();
        let (mut examined, mut count, mut last) = (0, 0, None);
        let limit = self.query.limit;
        let mut goes_on = false;
        while let Some(at) = matches.next()? {
            let is_full = count > limit;
            if examined == EXAMINED_MAX || (is_full && examined >= COUNTED_MAX) {
                goes_on = true;
                break;
            }
            examined += 1;
            last = Some(at.position);
            if let Some(hit) = self.hit(at)? {
                count += 1;
                if hits.len() < limit {
                    hits.push(hit);
                }
            }
        }
        let token = self.query.token.as_ref();
        let total = token.map_or(count as u64, |token| token.count);
        let end = if count > hits.len() { hits.last().map(|hit| hit.at.position) } else { last };
        let next = end
            .filter(|_| goes_on || count > hits.len())
            .map(|position| Token::new(position, 0, total));
        let groups = self
            .groups(&hits, |_, last| next.as_ref().map(|_| Token::new(last.at.position, 0, total)));
        let token = next.map(|next| self.within_group(next));
        Ok((hits, Rest { count: total, token, groups }))
    }

    fn by_rank(&mut self) -> Result<(Vec<Hit>, Rest), ApiError> {
        // All pages look at the same matches, whatever is sent in between.
        let upper = match &self.query.token {
            Some(token) => token.position(),
            None => self.reader.position(),
        };
        let offset = self.query.token.as_ref().map_or(0, |token| token.offset);
        let mut matches = self.matches(Bound::Included(upper))?;
        let mut hits = Vec::new();
        for _ in 0..EXAMINED_MAX {
            let Some(at) = matches.next()? else { break };
            hits.extend(self.hit(at)?);
        }
        hits.sort_by(|a, b| {
            let order = b.at.rank.total_cmp(&a.at.rank);
            order.then(b.at.position.cmp(&a.at.position))
        });
        let count = hits.len();
        let end = offset.saturating_add(self.query.limit).min(count);
        let later = hits.split_off(end);
        let total = count as u64;
        let next = (end < count).then(|| Token::new(upper, end, total));
        let shown: Vec<Hit> = hits.drain(offset.min(end)..).collect();
        let groups = self.groups(&shown, |same, _| {
            let before = hits.iter().filter(|hit| same(hit)).count();
            let on_page = shown.iter().filter(|hit| same(hit)).count();
            let has_more = later.iter().any(same);
            has_more.then(|| Token::new(upper, before + on_page, total))
        });
        let token = next.map(|next| self.within_group(next));
        Ok((shown, Rest { count: total, token, groups }))
    }

    /// A page of a group is followed by pages of that group.
    fn within_group(&self, mut next: Token) -> Token {
        if let Some(token) = &self.query.token {
            next.room.clone_from(&token.room);
            next.sender.clone_from(&token.sender);
        }
        next
    }

    /// What is shown of a match.
    fn hit(&mut self, at: Match) -> Result<Option<Hit>, ApiError> {
        let nid = self.rooms[at.room].0;
        let key = TimelineKey { room: nid, position: TimelinePosition::live(at.position) };
        let Some(entry) = self.reader.get(&TIMELINE, &key)? else { return Ok(None) };
        let kinds = &self.query.request.kinds;
        let kind = self.search.types.kind(entry.event_type);
        let Some(kind) = kind.filter(|kind| kinds.is_empty() || kinds.contains(kind)) else {
            return Ok(None);
        };
        let admitted = self.query.filter.admits_entry(&entry);
        if admitted == Some(false)
            || self.query.ignored.contains(&entry.sender)
            || self.sender.is_some_and(|sender| sender != entry.sender)
        {
            return Ok(None);
        }
        let (search, reader, query) = (self.search, self.reader, self.query);
        let Some(SearchedRoom { room, viewer }) = self.searched(at.room)? else {
            return Ok(None);
        };
        let Some(event) = search.rooms.event(reader, room, entry.event)? else {
            return Ok(None);
        };
        if (admitted.is_none() && !query.filter.admits(&event)) || !shows(reader, viewer, &event)? {
            return Ok(None);
        }
        let load = |event| search.rooms.event(reader, room, event);
        let Some(text) = text_now(reader, room, (&event, kind), load)? else {
            return Ok(None);
        };
        if let Some(edit) = &text.edit
            && !shows(reader, viewer, edit)?
        {
            return Ok(None);
        }
        let terms = search.analyzer.terms(&text.text);
        let says_all = query.query.terms.iter().all(|term| terms.counts.contains_key(term));
        Ok(says_all.then_some(Hit { event, at, text: text.text }))
    }

    fn searched(&mut self, room: usize) -> Result<Option<&mut SearchedRoom>, ApiError> {
        let (nid, searched) = &mut self.rooms[room];
        if searched.is_none()
            && let Some(room) = self.search.rooms.room_by_nid(self.reader, *nid)?
        {
            let user_id = &self.query.request.asker.user_id;
            let viewer = Viewer::new(&self.search.rooms, self.reader, &room, user_id)?;
            *searched = Some(SearchedRoom { room, viewer });
        }
        Ok(searched.as_mut())
    }

    /// The hits by each key that is asked for. `next` says where a group goes on, by what belongs
    /// to it and its last hit.
    fn groups(
        &self,
        hits: &[Hit],
        next: impl Fn(&dyn Fn(&Hit) -> bool, &Hit) -> Option<Token>,
    ) -> BTreeMap<GroupBy, BTreeMap<String, Group>> {
        let mut groups = BTreeMap::new();
        for &by in &self.query.request.groups {
            let mut of_key: BTreeMap<String, Group> = BTreeMap::new();
            for hit in hits {
                let order = of_key.len();
                let group = of_key.entry(group_value(by, hit).to_owned()).or_default();
                if group.results.is_empty() {
                    group.order = order;
                }
                group.results.push(hit.event.pdu.event_id().to_string());
            }
            for (value, group) in &mut of_key {
                let same = |hit: &Hit| group_value(by, hit) == value;
                let Some(last) = hits.iter().rfind(|hit| same(hit)) else { continue };
                let token = next(&same, last).map(|token| match by {
                    GroupBy::RoomId => Token { room: Some(value.clone()), ..token },
                    GroupBy::Sender => Token { sender: Some(value.clone()), ..token },
                });
                group.next_batch = token.map(|token| token.to_string());
            }
            groups.insert(by, of_key);
        }
        groups
    }

    fn highlights(&self, hits: &[Hit]) -> Vec<String> {
        let mut words = self.query.query.words.clone();
        for hit in hits {
            let found = self.search.analyzer.found_words(&hit.text, &self.query.query);
            words.extend(found.into_iter().map(super::terms::fold));
        }
        words.sort();
        words.dedup();
        words.truncate(HIGHLIGHTS_MAX);
        words
    }
}

/// Whether the reader may know the words of an event.
fn shows(reader: &Reader<'_>, viewer: &mut Viewer, event: &StoredEvent) -> Result<bool, ApiError> {
    Ok(viewer.may_see(reader, event)? && !erasure::hides(reader, viewer, event)?)
}

fn group_value(by: GroupBy, hit: &Hit) -> &str {
    match by {
        GroupBy::RoomId => hit.event.pdu.room_id().as_str(),
        GroupBy::Sender => hit.event.pdu.sender().as_str(),
    }
}
