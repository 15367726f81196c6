//! Random histories with forks, merges, refused events, resolutions that change and remove many
//! keys, and fetched history, in batches of several steps; everything compared with plain maps.

use kv::{Direction, EngineOptions, Position, Store};
use proptest::prelude::*;

use super::{Changes, Fixture, ROOM, State, changed, key, naive_diff, trunk};
use crate::{
    id::EventNid,
    rooms::state::{OVERLAY_CHANGES_MAX, PendingState, StateBuilder, StateView, view::is_overlay},
    storage::{
        rows::StateRef,
        schema::{FAMILIES, rooms::STATE_OVERLAYS},
    },
};

const KEYS: u64 = 12;
/// Keys that only large changes touch.
const MANY: u64 = 150;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// An accepted event.
    Accept { key: u64 },
    /// An event at an earlier state that is not accepted as current: soft-failed, or of a fork.
    Refuse { at: prop::sample::Index, key: u64 },
    /// An event of no effect.
    Reject { at: prop::sample::Index },
    /// A change of many keys at some state: fetched history, or a fork that was resolved there.
    Large { at: prop::sample::Index, first: u64, count: u64, removes: bool },
    /// Two states are merged; perhaps the room's current state becomes that.
    Merge { one: prop::sample::Index, other: prop::sample::Index, salt: u64, current: bool },
    /// The batch ends; perhaps readers do not see it yet.
    Batch { delayed: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => (0..KEYS).prop_map(|key| Step::Accept { key }),
        6 => (at(), 0..KEYS).prop_map(|(at, key)| Step::Refuse { at, key }),
        1 => at().prop_map(|at| Step::Reject { at }),
        2 => (at(), 0..MANY, 30..100_u64, any::<bool>())
            .prop_map(|(at, first, count, removes)| Step::Large { at, first, count, removes }),
        3 => (at(), at(), any::<u64>(), any::<bool>())
            .prop_map(|(one, other, salt, current)| Step::Merge { one, other, salt, current }),
        3 => any::<bool>().prop_map(|delayed| Step::Batch { delayed }),
    ];
    prop::collection::vec(step, 1..60)
}

/// The room and, beside it, every state it had as a map.
struct Model {
    fixture: Fixture,
    builder: StateBuilder,
    in_flight: PendingState,
    waiting: Vec<crate::rooms::state::BuiltState>,
    states: Vec<(StateRef, State)>,
    current: State,
    next_event: u32,
    collide: bool,
}

impl Model {
    fn new(store: Store, collide: bool) -> Self {
        let fixture = Fixture::on(store);
        let builder = fixture.builder();
        let mut model = Self {
            fixture,
            builder,
            in_flight: PendingState::new(),
            waiting: Vec::new(),
            states: vec![(StateRef::EMPTY, State::new())],
            current: State::new(),
            next_event: 1,
            collide,
        };
        model.begin(0, 0);
        model
    }

    fn begin(&mut self, state_version: u32, next_branch: u32) {
        let builder = StateBuilder::new(ROOM, state_version, next_branch)
            .with_pending(self.in_flight.clone());
        self.builder = if self.collide { builder.with_hash(|_| 1) } else { builder };
    }

    fn event(&mut self) -> EventNid {
        self.next_event += 1;
        EventNid(self.next_event)
    }

    fn advance(&mut self, changes: &Changes) {
        let reader = self.fixture.store.reader();
        let made = self.builder.advance(&reader, &trunk(changes), Position::pending(0)).unwrap();
        self.current = changed(&self.current, changes);
        self.states.push((made, self.current.clone()));
    }

    fn child(&mut self, at: usize, changes: &Changes) {
        let (base, state) = self.states[at].clone();
        let reader = self.fixture.store.reader();
        let made = self.builder.child(&reader, base, changes).unwrap();
        self.states.push((made, changed(&state, changes)));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Accept { key: number } => {
                let event = self.event();
                self.advance(&vec![(key(number), Some(event))]);
            }
            Step::Refuse { at, key: number } => {
                let event = self.event();
                self.child(at.index(self.states.len()), &vec![(key(number), Some(event))]);
            }
            Step::Reject { at } => self.child(at.index(self.states.len()), &Vec::new()),
            Step::Large { at, first, count, removes } => {
                let event = (!removes).then(|| self.event());
                let changes: Changes = (first..first + count).map(|k| (key(k), event)).collect();
                self.child(at.index(self.states.len()), &changes);
            }
            Step::Merge { one, other, salt, current } => {
                let count = self.states.len();
                self.merge(one.index(count), other.index(count), salt, current);
            }
            Step::Batch { delayed } => self.end_batch(delayed),
        }
    }

    /// The stand-in for resolution: a key is taken from either side.
    fn merge(&mut self, one: usize, other: usize, salt: u64, current: bool) {
        let from = self.states[one].1.clone();
        let to = self.states[other].1.clone();
        let taken = |base: &State| -> Changes {
            let merged = naive_diff(&from, &to)
                .into_iter()
                .filter(|change| !(change.key.0 ^ salt).is_multiple_of(3))
                .fold(from.clone(), |state, change| {
                    changed(&state, &vec![(change.key, change.new)])
                });
            naive_diff(base, &merged).into_iter().map(|change| (change.key, change.new)).collect()
        };
        if current {
            self.advance(&taken(&self.current.clone()));
        }
        let changes = taken(&from);
        self.child(one, &changes);
        if current {
            let (made, state) = self.states.last().unwrap();
            assert_eq!(*state, self.current);
            let reader = self.fixture.store.reader();
            let view = self.builder.view(&reader);
            assert_eq!(view.diff(*made, self.builder.head()).unwrap(), vec![]);
            // The merge brings the room back to the trunk.
            assert_eq!(made.branch, StateRef::EMPTY.branch);
        }
    }

    fn end_batch(&mut self, delayed: bool) {
        self.check_last();
        let builder = std::mem::replace(&mut self.builder, self.fixture.builder());
        let built = builder.finish();
        let (version, next) = (built.state_version, built.next_branch);
        self.in_flight.absorb(&built.writes);
        self.waiting.push(built);
        if !delayed {
            for built in std::mem::take(&mut self.waiting) {
                self.fixture.commit(&built);
            }
            self.in_flight = PendingState::new();
        } else if version % 2 == 0 {
            // Committed, though the builder still holds it as pending.
            for built in std::mem::take(&mut self.waiting) {
                self.fixture.commit(&built);
            }
        }
        self.begin(version, next);
    }

    /// The newest state against the others, pending writes included.
    fn check_last(&self) {
        let reader = self.fixture.store.reader();
        let view = self.builder.view(&reader);
        let (last, state) = self.states.last().unwrap();
        check_one(view, *last, state);
        for (other, other_state) in self.states.iter().step_by(3) {
            assert_eq!(view.diff(*other, *last).unwrap(), naive_diff(other_state, state));
            assert_eq!(view.diff(*last, *other).unwrap(), naive_diff(state, other_state));
        }
    }

    /// Everything, as committed.
    fn check_all(&self) {
        let reader = self.fixture.store.reader();
        let view = StateView::new(&reader, ROOM);
        for (at, state) in &self.states {
            check_one(view, *at, state);
            assert!(view.path(*at).unwrap().levels.len() <= 5);
            for (other, other_state) in &self.states {
                assert_eq!(view.diff(*at, *other).unwrap(), naive_diff(state, other_state));
            }
        }
        let range = STATE_OVERLAYS.prefix(&ROOM);
        let rows = reader.scan(&STATE_OVERLAYS, &range, Direction::Forward, usize::MAX).unwrap();
        for (index, (_, row)) in rows.iter().enumerate() {
            assert!((1..=OVERLAY_CHANGES_MAX).contains(&row.changes.len()));
            assert!(!is_overlay(row.base));
            assert!(rows[..index].iter().all(|(_, other)| other != row), "stored twice");
        }
    }
}

fn check_one(view: StateView<'_>, at: StateRef, state: &State) {
    assert_eq!(view.full(at).unwrap(), *state);
    let keys: Vec<_> = (0..MANY + 100).step_by(7).chain(0..KEYS).map(key).collect();
    let expected: Vec<_> = keys.iter().map(|key| state.get(key).copied()).collect();
    assert_eq!(view.lookup_many(at, &keys).unwrap(), expected);
    for (key, event) in keys.iter().zip(expected).take(5) {
        assert_eq!(view.lookup(at, *key).unwrap(), event);
    }
}

fn run(store: Store, steps: Vec<Step>, collide: bool) {
    let mut model = Model::new(store, collide);
    for step in steps {
        model.step(step);
    }
    model.end_batch(false);
    model.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn states_are_as_maps(steps in steps(), collide in any::<bool>()) {
        run(Store::memory(&FAMILIES), steps, collide);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn states_are_as_maps_on_disk(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &FAMILIES, &EngineOptions::default()).unwrap();
        run(store, steps, false);
    }
}
