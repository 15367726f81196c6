//! Event filters, compiled: what a client wants to be told.
//!
//! Exact names become interned numbers, so most entries of a timeline are decided without reading
//! their event. Wildcards and `contains_url` need the event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

mod related;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use kv::Reader;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::filter::{Filter as PlainFilter, LazyLoadOptions, RoomEventFilter, UrlFilter},
};

use self::related::Related;
pub use self::related::RelatedBy;
use super::StoredEvent;
use crate::{
    error::ApiError,
    id::{Interner, RoomNid, UserNid},
    storage::rows::TimelineEntry,
};

/// The most entries of one list: enough for who names each room.
const ENTRIES_MAX: usize = 1_000;

/// The most names with `*` of one list: each is tried on each event.
const PATTERNS_MAX: usize = 50;

/// A compiled filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    types: Option<Types>,
    not_types: Types,
    senders: Option<HashSet<UserNid>>,
    not_senders: HashSet<UserNid>,
    rooms: Option<HashSet<OwnedRoomId>>,
    not_rooms: HashSet<OwnedRoomId>,
    contains_url: Option<bool>,
    limit: Option<u64>,
    lazy_load: LazyLoadOptions,
    related: Option<Related>,
}

/// Names of event types, with and without `*`.
#[derive(Clone, Debug, Default)]
struct Types {
    exact: HashSet<u64>,
    patterns: Vec<String>,
}

impl Types {
    fn compile(names: &[String], interner: &Interner) -> Result<Self, ApiError> {
        check_length(names)?;
        let (patterns, exact): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.contains('*'));
        if patterns.len() > PATTERNS_MAX {
            return Err(ApiError::invalid_param(format!(
                "A list of a filter has at most {PATTERNS_MAX} names with wildcards"
            )));
        }
        Ok(Self {
            exact: exact.into_iter().map(|name| interner.event_type(name)).collect(),
            patterns: patterns.into_iter().cloned().collect(),
        })
    }

    /// `None`: the patterns decide, on the name.
    fn holds_number(&self, event_type: u64) -> Option<bool> {
        if self.exact.contains(&event_type) {
            return Some(true);
        }
        if self.patterns.is_empty() { Some(false) } else { None }
    }

    fn holds(&self, event_type: u64, name: &str) -> bool {
        self.exact.contains(&event_type)
            || self.patterns.iter().any(|pattern| matches_pattern(pattern, name))
    }
}

impl Filter {
    /// Compiles a filter of room events.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when a list is too long.
    pub fn compile(filter: &RoomEventFilter, interner: &Interner) -> Result<Self, ApiError> {
        Ok(Self {
            types: types(filter.types.as_deref(), interner)?,
            not_types: Types::compile(&filter.not_types, interner)?,
            senders: filter.senders.as_ref().map(|list| users(list, interner)).transpose()?,
            not_senders: users(&filter.not_senders, interner)?,
            rooms: filter.rooms.as_deref().map(rooms).transpose()?,
            not_rooms: rooms(&filter.not_rooms)?,
            contains_url: filter
                .url_filter
                .map(|wanted| matches!(wanted, UrlFilter::EventsWithUrl)),
            limit: filter.limit.map(u64::from),
            lazy_load: filter.lazy_load_options,
            related: None,
        })
    }

    /// Compiles a filter of events that belong to no room.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when a list is too long.
    pub fn compile_plain(filter: &PlainFilter, interner: &Interner) -> Result<Self, ApiError> {
        Ok(Self {
            types: types(filter.types.as_deref(), interner)?,
            not_types: Types::compile(&filter.not_types, interner)?,
            senders: filter.senders.as_ref().map(|list| users(list, interner)).transpose()?,
            not_senders: users(&filter.not_senders, interner)?,
            limit: filter.limit.map(u64::from),
            ..Self::default()
        })
    }

    /// Adds what is asked of the events that relate to one.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when a list is too long.
    pub fn with_related(
        mut self,
        related: &RelatedBy,
        interner: &Interner,
    ) -> Result<Self, ApiError> {
        self.related = Related::compile(related, interner)?;
        Ok(self)
    }

    /// Whether the events that relate to an event are as they were asked for.
    pub fn admits_related(
        &self,
        reader: &Reader<'_>,
        room: RoomNid,
        event: &StoredEvent,
    ) -> Result<bool, ApiError> {
        self.related.as_ref().map_or(Ok(true), |related| related.admits(reader, room, event))
    }

    /// How many events the client wants at most.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// How the client wants member events.
    pub fn lazy_load(&self) -> LazyLoadOptions {
        self.lazy_load
    }

    /// Whether only members who matter to the other events are wanted.
    pub fn lazy_loads_members(&self) -> bool {
        !self.lazy_load.is_disabled()
    }

    /// Whether anything of a room is wanted.
    pub fn admits_room(&self, room_id: &RoomId) -> bool {
        !self.not_rooms.contains(room_id)
            && self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room_id))
    }

    /// Whether an event of this entry is wanted; `None`: only the event itself can tell.
    pub fn admits_entry(&self, entry: &TimelineEntry) -> Option<bool> {
        if !self.admits_sender_number(entry.sender) {
            return Some(false);
        }
        let wanted = match &self.types {
            Some(types) => types.holds_number(entry.event_type),
            None => Some(true),
        };
        let unwanted = self.not_types.holds_number(entry.event_type);
        match (wanted, unwanted) {
            (Some(false), _) | (_, Some(true)) => Some(false),
            (Some(true), Some(false)) if self.contains_url.is_none() => Some(true),
            _ => None,
        }
    }

    /// Whether an event is wanted.
    pub fn admits(&self, event: &StoredEvent) -> bool {
        self.admits_sender_number(event.record.sender)
            && self.admits_type_number(event.record.event_type, event.pdu.event_type())
            && self.contains_url.is_none_or(|wanted| wanted == has_url(event.pdu.content().get()))
    }

    /// Whether events of this type are wanted, for what is no room event.
    pub fn admits_type(&self, event_type: &str, interner: &Interner) -> bool {
        self.admits_type_number(interner.event_type(event_type), event_type)
    }

    /// Whether events of this sender are wanted, for what is no room event.
    pub fn admits_sender(&self, sender: &UserId, interner: &Interner) -> bool {
        self.admits_sender_number(interner.user(sender))
    }

    fn admits_type_number(&self, event_type: u64, name: &str) -> bool {
        !self.not_types.holds(event_type, name)
            && self.types.as_ref().is_none_or(|types| types.holds(event_type, name))
    }

    fn admits_sender_number(&self, sender: UserNid) -> bool {
        !self.not_senders.contains(&sender)
            && self.senders.as_ref().is_none_or(|senders| senders.contains(&sender))
    }
}

fn types(names: Option<&[String]>, interner: &Interner) -> Result<Option<Types>, ApiError> {
    names.map(|names| Types::compile(names, interner)).transpose()
}

fn users(users: &[OwnedUserId], interner: &Interner) -> Result<HashSet<UserNid>, ApiError> {
    check_length(users)?;
    Ok(users.iter().map(|user_id| interner.user(user_id)).collect())
}

fn rooms(rooms: &[OwnedRoomId]) -> Result<HashSet<OwnedRoomId>, ApiError> {
    check_length(rooms)?;
    Ok(rooms.iter().cloned().collect())
}

fn check_length<T>(list: &[T]) -> Result<(), ApiError> {
    if list.len() > ENTRIES_MAX {
        return Err(ApiError::invalid_param(format!(
            "A list of a filter has at most {ENTRIES_MAX} entries"
        )));
    }
    Ok(())
}

/// Whether an event's content has a `url` key.
fn has_url(content: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Content>(content).is_ok_and(|content| content.url.is_some())
}

/// Whether a name fits a pattern, in which `*` stands for any sequence of characters. Takes time
/// in proportion to the product of both lengths at worst.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at_pattern, mut at_name) = (0, 0);
    // Where to go on when what follows the last star does not fit: the star takes one byte more.
    let mut star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        if pattern.get(at_pattern) == Some(&b'*') {
            star = Some((at_pattern, at_name));
            at_pattern += 1;
        } else if pattern.get(at_pattern) == Some(&name[at_name]) {
            at_pattern += 1;
            at_name += 1;
        } else if let Some((star_pattern, star_name)) = star {
            star = Some((star_pattern, star_name + 1));
            at_pattern = star_pattern + 1;
            at_name = star_name + 1;
        } else {
            return false;
        }
    }
    pattern[at_pattern..].iter().all(|&byte| byte == b'*')
}
