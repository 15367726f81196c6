//! Whole states. The head of the trunk is stored as such; the others are made from it or, when
//! they are nearer to the beginning, from nothing.

use std::{collections::BTreeMap, ops::ControlFlow};

use kv::{Direction, Error};

use super::{
    diff::Net,
    view::{StateView, TRUNK},
};
use crate::{
    id::{EventNid, StateKeyNid},
    storage::{
        rows::{StateChange, StateRef},
        schema::rooms::{CURRENT_STATE, CurrentStateKey, ROOM_HEADS},
    },
};

type State = BTreeMap<StateKeyNid, EventNid>;

impl StateView<'_> {
    /// A whole state.
    pub fn full(&self, at: StateRef) -> Result<State, Error> {
        let path = self.path(at)?;
        let mut levels = path.levels.iter().rev();
        let trunk = levels.next().map_or(0, |level| level.version);
        let mut state = self.full_of_trunk(trunk)?;
        for level in levels {
            let mut net = Net::default();
            self.walk(level.branch, (0, level.version), &mut net, &mut { usize::MAX })?;
            change(&mut state, &net.changes());
        }
        change(&mut state, &path.overlay);
        Ok(state)
    }

    fn full_of_trunk(&self, version: u32) -> Result<State, Error> {
        if version == 0 {
            return Ok(State::new());
        }
        // The head as this reader sees it: only it fits to the current state that is stored.
        let head = self.reader.get(&ROOM_HEADS, &self.room)?;
        let (newest, members) =
            head.map_or((0, 0), |head| (head.state_version, head.joined_members));
        // From the beginning it costs the changes up to the version; from the head all entries of
        // the current state (the members are most of them) and the changes since.
        let from_head = u64::from(newest.saturating_sub(version)) + members;
        if version < newest
            && u64::from(version) <= from_head
            && let Some(state) = self.replay(version)?
        {
            return Ok(state);
        }
        let mut state = if newest == 0 { State::new() } else { self.current()? };
        let mut net = Net::default();
        self.walk(TRUNK, (newest, version), &mut net, &mut { usize::MAX })?;
        change(&mut state, &net.changes());
        Ok(state)
    }

    fn current(&self) -> Result<State, Error> {
        let mut state = State::new();
        let range = CURRENT_STATE.prefix(&self.room);
        self.reader.for_each(
            &CURRENT_STATE,
            &range,
            Direction::Forward,
            |key: CurrentStateKey, event| {
                state.insert(key.key, event);
                ControlFlow::Continue(())
            },
        )?;
        Ok(state)
    }

    /// The trunk from its beginning; `None` when that is no longer stored.
    fn replay(&self, version: u32) -> Result<Option<State>, Error> {
        let mut state = State::new();
        let mut last = 0;
        let range = (0, version);
        let flow = self.for_each_version(TRUNK, range, Direction::Forward, |next, changes| {
            if next != last + 1 {
                return ControlFlow::Break(());
            }
            last = next;
            change(&mut state, changes);
            ControlFlow::Continue(())
        })?;
        Ok((flow.is_continue() && last == version).then_some(state))
    }
}

fn change(state: &mut State, changes: &[StateChange]) {
    for change in changes {
        match change.new {
            Some(event) => state.insert(change.key, event),
            None => state.remove(&change.key),
        };
    }
}
