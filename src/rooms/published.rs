//! The rooms that the directory shows, page by page: those with the most members first.
//!
//! A page reads one row for each listed room, to bring them in order; names and topics come from the
//! summaries in memory, and only for rooms on the page, unless they are searched. Listing a room is
//! a deliberate act of its administrators, so there are far fewer than rooms.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::{cmp::Reverse, ops::ControlFlow, str::FromStr, sync::Arc};

use kv::{Direction, Reader};
use ruma::{directory::RoomTypeFilter, room::RoomSummary};

use super::Rooms;
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::{
        rows::HeadRow,
        schema::rooms::{PUBLIC_ROOMS, ROOM_HEADS},
    },
};

/// How many listed rooms are looked at.
const LISTED_MAX: usize = 50_000;

/// How many heads are looked up at once.
const HEADS_AT_ONCE: usize = 256;

/// The longest search term.
const TERM_BYTES_MAX: usize = 512;

/// A page of the directory that is asked for.
#[derive(Clone, Debug)]
pub struct PublishedRequest {
    /// What a room's name, topic or alias must hold.
    pub term: Option<String>,
    /// The types of rooms; nothing: all.
    pub types: Vec<RoomTypeFilter>,
    /// Where the page begins or ends.
    pub since: Option<PublishedToken>,
    /// How many rooms at most.
    pub limit: usize,
    /// Whether the rooms that are listed for everybody are among them.
    pub general: bool,
    /// Rooms that are listed in another way; sorted.
    pub others: Vec<RoomNid>,
}

/// A page of the directory.
#[derive(Debug, Default)]
pub struct Published {
    /// The rooms.
    pub rooms: Vec<Arc<RoomSummary>>,
    /// Where the next page begins.
    pub next: Option<PublishedToken>,
    /// Where the page before ends.
    pub previous: Option<PublishedToken>,
    /// How many rooms there are on all pages.
    pub total: usize,
}

/// A place among the rooms, which stand with the most members first: just after a room (`n`), or
/// just before it (`p`), for pages back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedToken {
    back: bool,
    place: Place,
}

/// What the rooms are ordered by.
type Place = (Reverse<u64>, RoomNid);

impl std::fmt::Display for PublishedToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = if self.back { 'p' } else { 'n' };
        let (Reverse(members), RoomNid(room)) = self.place;
        write!(formatter, "{side}{members}_{room:x}")
    }
}

impl FromStr for PublishedToken {
    type Err = ApiError;

    fn from_str(token: &str) -> Result<Self, ApiError> {
        let parse = || {
            let back = token.starts_with('p');
            let (members, room) = token.strip_prefix(['n', 'p'])?.split_once('_')?;
            let room = RoomNid(u64::from_str_radix(room, 16).ok()?);
            Some(Self { back, place: (Reverse(members.parse().ok()?), room) })
        };
        parse().ok_or_else(|| ApiError::invalid_param("`since` is not a token of the directory"))
    }
}

impl Rooms {
    /// A page of the directory.
    ///
    /// # Errors
    /// 400 when the term is too long.
    pub async fn published(&self, request: PublishedRequest) -> Result<Published, ApiError> {
        let term = request.term.as_deref().map(str::trim).filter(|term| !term.is_empty());
        if term.is_some_and(|term| term.len() > TERM_BYTES_MAX) {
            let text = format!("`generic_search_term` has at most {TERM_BYTES_MAX} bytes");
            return Err(ApiError::invalid_param(text));
        }
        let wanted = Wanted {
            term: term.map(str::to_lowercase),
            types: request.types,
            general: request.general,
            others: request.others,
        };
        let (since, limit) = (request.since, request.limit);
        self.read(move |rooms, reader| {
            let listed = rooms.listed(reader, &wanted)?;
            rooms.page_of(reader, &listed, (since, limit))
        })
        .await
    }

    /// The rooms that are wanted, in their order.
    fn listed(
        &self,
        reader: &Reader<'_>,
        wanted: &Wanted,
    ) -> Result<Vec<(Place, HeadRow)>, ApiError> {
        let mut nids = wanted.others.clone();
        nids.truncate(LISTED_MAX / 2);
        if wanted.general {
            let range = PUBLIC_ROOMS.prefix(&());
            reader.for_each(&PUBLIC_ROOMS, &range, Direction::Forward, |nid, _| {
                nids.push(nid);
                if nids.len() < LISTED_MAX {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        nids.sort_unstable();
        nids.dedup();
        let mut listed = Vec::with_capacity(nids.len());
        for nids in nids.chunks(HEADS_AT_ONCE) {
            for (&nid, head) in nids.iter().zip(reader.get_many(&ROOM_HEADS, nids)?) {
                // A room that all have left is nowhere to go to.
                let Some(head) = head.filter(|head| head.joined_members > 0) else { continue };
                if wanted.is_all() || wanted.admits(&*self.summary_of(reader, nid, &head)?) {
                    listed.push(((Reverse(head.joined_members), nid), head));
                }
            }
        }
        listed.sort_by_key(|(place, _)| *place);
        Ok(listed)
    }

    fn summary_of(
        &self,
        reader: &Reader<'_>,
        nid: RoomNid,
        head: &HeadRow,
    ) -> Result<Arc<RoomSummary>, ApiError> {
        let room = self.room_by_nid(reader, nid)?;
        let room = room.ok_or_else(|| ApiError::internal_text("a listed room that is no room"))?;
        self.summary_at(reader, &room, head)
    }

    fn page_of(
        &self,
        reader: &Reader<'_>,
        listed: &[(Place, HeadRow)],
        (since, limit): (Option<PublishedToken>, usize),
    ) -> Result<Published, ApiError> {
        let (start, end) = match since {
            None => (0, limit.min(listed.len())),
            Some(PublishedToken { back: true, place }) => {
                let end = listed.partition_point(|(other, _)| *other < place);
                (end.saturating_sub(limit), end)
            }
            Some(PublishedToken { back: false, place }) => {
                let start = listed.partition_point(|(other, _)| *other <= place);
                (start, start.saturating_add(limit).min(listed.len()))
            }
        };
        let mut page = Published { total: listed.len(), ..Published::default() };
        for ((_, nid), head) in &listed[start..end] {
            page.rooms.push(self.summary_of(reader, *nid, head)?);
        }
        let last = listed[start..end].last().filter(|_| end < listed.len());
        page.next = last.map(|(place, _)| PublishedToken { back: false, place: *place });
        let first = listed[start..end].first().filter(|_| start > 0);
        page.previous = first.map(|(place, _)| PublishedToken { back: true, place: *place });
        Ok(page)
    }
}

struct Wanted {
    term: Option<String>,
    types: Vec<RoomTypeFilter>,
    general: bool,
    others: Vec<RoomNid>,
}

impl Wanted {
    fn is_all(&self) -> bool {
        self.term.is_none() && self.types.is_empty()
    }

    fn admits(&self, room: &RoomSummary) -> bool {
        let room_type = RoomTypeFilter::from(room.room_type.clone());
        let alias = room.canonical_alias.as_ref().map(|alias| alias.as_str());
        let texts = [room.name.as_deref(), room.topic.as_deref(), alias];
        let holds = |term: &String| {
            texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term))
        };
        (self.types.is_empty() || self.types.contains(&room_type))
            && self.term.as_ref().is_none_or(holds)
    }
}
