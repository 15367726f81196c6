//! The part of a filter that looks at what relates to an event (MSC3440): clients that know no list
//! of threads find roots by it.
//!
//! Read from the index, for each event that the rest of the filter admits; events that are no
//! parents cost nothing where only what is aggregated is asked for.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/3440-threading-via-relations.md>

use std::{collections::HashSet, ops::ControlFlow};

use kv::{Direction, Reader};
use ruma::OwnedUserId;
use serde::Deserialize;

use super::{check_length, users};
use crate::{
    error::ApiError,
    id::{Interner, RoomNid, UserNid},
    rooms::StoredEvent,
    storage::{
        rows::{EventFlags, RelationKind},
        schema::rooms::RELATIONS,
    },
};

/// How many of the events that relate to one are looked at, for each kind.
const CHILDREN_MAX: usize = 200;

/// What a client asks of the events that relate to one.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RelatedBy {
    /// One of them is by one of these.
    #[serde(alias = "io.element.relation_senders")]
    pub related_by_senders: Option<Vec<OwnedUserId>>,
    /// One of them relates in one of these ways.
    #[serde(alias = "io.element.relation_types")]
    pub related_by_rel_types: Option<Vec<String>>,
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub(super) struct Related {
    senders: Option<HashSet<UserNid>>,
    rel_types: Option<HashSet<String>>,
    kinds: Vec<RelationKind>,
}

impl Related {
    /// `None`: nothing is asked.
    pub(super) fn compile(
        filter: &RelatedBy,
        interner: &Interner,
    ) -> Result<Option<Self>, ApiError> {
        let RelatedBy { related_by_senders: senders, related_by_rel_types: rel_types } = filter;
        if senders.is_none() && rel_types.is_none() {
            return Ok(None);
        }
        rel_types.as_deref().map(check_length).transpose()?;
        let senders = senders.as_deref().map(|list| users(list, interner)).transpose()?;
        let rel_types: Option<HashSet<String>> =
            rel_types.as_ref().map(|list| list.iter().cloned().collect());
        let is_wanted = |kind: &RelationKind| {
            rel_types
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| RelationKind::from_name(name) == *kind))
        };
        let kinds = RelationKind::ALL.into_iter().filter(is_wanted).collect();
        Ok(Some(Self { senders, rel_types, kinds }))
    }

    /// Whether something relates to an event in the way that is asked for.
    pub(super) fn admits(
        &self,
        reader: &Reader<'_>,
        room: RoomNid,
        event: &StoredEvent,
    ) -> Result<bool, ApiError> {
        let is_parent = event.record.flags.has(EventFlags::PARENT);
        for kind in self.kinds.iter().filter(|kind| is_parent || !kind.is_aggregated()) {
            let all = RELATIONS.prefix(&(room, event.record.hash, *kind as u8));
            let (mut found, mut seen) = (false, 0);
            reader.for_each(&RELATIONS, &all, Direction::Backward, |_, row| {
                seen += 1;
                found = self.senders.as_ref().is_none_or(|users| users.contains(&row.sender))
                    && self.rel_types.as_ref().is_none_or(|names| names.contains(&row.rel_type));
                if found || seen == CHILDREN_MAX {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
