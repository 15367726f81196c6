//! Timelines: the newest events of a room between two positions.

use std::sync::Arc;

use kv::{Direction, Position};

use super::{ClientEvent, Step};
use crate::{
    error::ApiError,
    rooms::{
        StoredEvent,
        timeline::{PageRequest, PaginationToken, last_entry, page},
        visibility::Viewer,
    },
    storage::rows::{EventFlags, StateRef, TimelinePosition},
};

/// The newest events of a room between two positions.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The events, oldest first.
    pub(crate) events: Vec<(TimelinePosition, Arc<StoredEvent>)>,
    /// Whether there are more between the lower end and the first event.
    pub(crate) limited: bool,
    /// Where `/messages` goes on, backwards.
    pub(crate) prev_batch: Option<PaginationToken>,
}

/// Reads the newest events after `lower` (`None`: all there are) and up to `upper`.
pub(crate) fn window(
    step: &Step<'_>,
    viewer: &mut Viewer,
    lower: Option<Position>,
    upper: TimelinePosition,
) -> Result<Window, ApiError> {
    window_of(step, viewer, (lower, upper), step.filter.timeline_limit)
}

/// The same with another limit than the filter's.
pub(crate) fn window_of(
    step: &Step<'_>,
    viewer: &mut Viewer,
    (lower, upper): (Option<Position>, TimelinePosition),
    limit: usize,
) -> Result<Window, ApiError> {
    let request = PageRequest {
        from: PaginationToken::after(upper),
        to: lower.map(PaginationToken::live),
        direction: Direction::Backward,
        limit,
    };
    if !step.filter.timeline.admits_room(&viewer.room().id) {
        return Ok(Window { prev_batch: Some(request.from), ..Window::default() });
    }
    let mut page = page(step.reader, viewer, &step.filter.timeline, &request)?;
    page.events.reverse();
    page.events.retain(|(_, event)| {
        // State is told whoever sent it, or the room would fall apart.
        event.record.flags.has(EventFlags::STATE) || !step.ignored.contains(&event.record.sender)
    });
    Ok(Window {
        limited: page.has_more,
        prev_batch: Some(page.end.unwrap_or(request.from)),
        events: page.events,
    })
}

impl Window {
    /// The state before the first event; `None` when there is no event.
    pub(crate) fn start(
        &self,
        step: &Step<'_>,
        viewer: &Viewer,
    ) -> Result<Option<StateRef>, ApiError> {
        let Some((position, first)) = self.events.first() else { return Ok(None) };
        let before = std::ops::Bound::Excluded(*position);
        let entry = last_entry(step.reader, viewer.room().nid, before)?;
        // What comes first in a room that others made has a state before it all the same.
        Ok(Some(
            entry.map_or(first.record.state_before, |(_, entry)| {
                StateRef::trunk(entry.state_version)
            }),
        ))
    }

    /// The events in their form for the client.
    pub(crate) fn render(
        &self,
        step: &Step<'_>,
        viewer: &mut Viewer,
    ) -> Result<Vec<ClientEvent>, ApiError> {
        self.events.iter().map(|(_, event)| step.render(viewer, event, self.limited)).collect()
    }
}
