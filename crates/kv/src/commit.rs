//! The sequencer: one thread gives batches their order and their positions, and writes them.
//!
//! It takes what waits as one group, so that a group shares one write and one sync, however slow
//! the disk is. Invariants: a position is given once, also across restarts and failed writes; what
//! a failed write held is never visible; nobody is answered before what he wrote is published.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    Batch, Commit, CommitError, Durability, Error, Position, Status,
    batch::{Check, Operation, Pending},
    engine::{Fault, add_to_counter},
    store::Core,
    table::{ColumnFamily, FAMILY_TAG_RESERVED},
};

const VALUE_BYTES_MAX: usize = 100_000;
const BATCH_BYTES_MAX: usize = 10_000_000;
const GROUP_BYTES_MAX: usize = 1_000_000;
const GROUP_BATCHES_MAX: usize = 256;
/// More than this waiting means that the disk does not keep up: better to refuse than to grow.
const QUEUE_BYTES_MAX: usize = 64_000_000;
/// How often a full disk is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How long a write may wait for the disk to keep up.
const PATIENCE: Duration = Duration::from_secs(10);

type Answer = Result<Position, CommitError>;

/// A batch that waits for its turn.
pub(crate) struct Submission {
    batch: Batch,
    durability: Durability,
    size_bytes: usize,
    answer: oneshot::Sender<Answer>,
}

/// The batches that wait, in the order that they will be committed in.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    size_bytes: usize,
    closed: bool,
}

impl Queue {
    /// Queues a batch. What breaks a limit is refused here.
    pub(crate) fn submit(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> Result<oneshot::Receiver<Answer>, CommitError> {
        let size_bytes = checked_size(&batch)?;
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        if state.size_bytes + size_bytes > QUEUE_BYTES_MAX {
            return Err(Error::Unavailable("too many writes wait for the disk".to_owned()).into());
        }
        state.size_bytes += size_bytes;
        state.submissions.push_back(Submission { batch, durability, size_bytes, answer });
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Takes no more; what waits is still committed.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }

    /// The next group; empty when the time came first; `None` once closed and drained.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Submission>> {
        let mut state = self.state.lock();
        while state.submissions.is_empty() {
            if state.closed {
                return None;
            }
            match until {
                None => self.arrived.wait(&mut state),
                Some(until) => {
                    if self.arrived.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        let (mut group, mut size_bytes) = (Vec::new(), 0);
        while group.len() < GROUP_BATCHES_MAX
            && let Some(submission) = state.submissions.pop_front_if(|next| {
                size_bytes == 0 || size_bytes + next.size_bytes <= GROUP_BYTES_MAX
            })
        {
            size_bytes += submission.size_bytes;
            group.push(submission);
        }
        state.size_bytes -= size_bytes;
        Some(group)
    }
}

/// What is said to those who come after the end.
pub(crate) fn closed() -> CommitError {
    Error::Unavailable("it is closed".to_owned()).into()
}

/// The bytes of a batch, when it keeps the limits.
fn checked_size(batch: &Batch) -> Result<usize, CommitError> {
    let mut size_bytes = 0;
    for operation in &batch.operations {
        size_bytes += match operation {
            Operation::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
                return Err(CommitError::TooLarge(format!("a value of {} bytes", value.len())));
            }
            Operation::Put { key, value, .. } => key.len() + value.len(),
            Operation::Delete { key, .. } | Operation::Add { key, .. } => key.len() + 8,
            Operation::DeleteRange { start, end, .. } => start.len() + end.len(),
        };
    }
    if size_bytes > BATCH_BYTES_MAX {
        return Err(CommitError::TooLarge(format!("a batch of {size_bytes} bytes")));
    }
    Ok(size_bytes)
}

/// The row that holds the last position given, in the first family.
pub(crate) fn position_row(family: ColumnFamily, position: u64) -> Operation {
    Operation::Put {
        family,
        key: vec![FAMILY_TAG_RESERVED],
        value: position.to_be_bytes().to_vec(),
    }
}

/// What one group comes to.
#[derive(Default)]
struct Group {
    operations: Vec<Operation>,
    commits: Vec<Commit>,
    sync: bool,
    accepted: Vec<(oneshot::Sender<Answer>, Position)>,
    refused: Vec<(oneshot::Sender<Answer>, CommitError)>,
    written: Option<Written>,
}

/// The one thread's own knowledge.
pub(crate) struct Sequencer {
    core: Arc<Core>,
    family: ColumnFamily,
    /// The last position given, also to batches that failed.
    last: u64,
    /// When to see again whether a full disk has space.
    probe_at: Option<Instant>,
}

/// A panic here would leave writers without an answer and the order without a keeper: stop.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Sequencer {
    pub(crate) fn new(core: Arc<Core>, family: ColumnFamily) -> Self {
        let last = core.bulletin.position().as_u64();
        Self { core, family, last, probe_at: None }
    }

    /// Commits until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _abort = AbortOnPanic;
        while let Some(submissions) = self.core.queue.take(self.probe_at) {
            if self.core.status() != Status::Ready {
                self.probe();
            }
            if let Status::ReadOnly(reason) = self.core.status() {
                for submission in submissions {
                    let _ = submission.answer.send(Err(Error::Unavailable(reason.clone()).into()));
                }
            } else if !submissions.is_empty() {
                self.commit(submissions);
            }
        }
        self.core.finish();
    }

    fn commit(&mut self, submissions: Vec<Submission>) {
        let before = self.last;
        let checks = submissions.iter().skip(1).any(|next| !next.batch.checks.is_empty());
        let mut group = Group { written: checks.then(Written::default), ..Group::default() };
        for submission in submissions {
            self.decide(submission, &mut group);
        }
        if self.last != before || !group.operations.is_empty() || group.sync {
            group.operations.push(position_row(self.family, self.last));
            if let Err(fault) = self.write(&group.operations, group.sync, PATIENCE) {
                self.fail(fault, group);
                return;
            }
            self.count(&group);
        }
        self.core.bulletin.publish(self.visible(&group), &group.commits);
        for (answer, position) in group.accepted {
            let _ = answer.send(Ok(position));
        }
        // Only now, so that a writer who reads again sees what he was in conflict with.
        for (answer, error) in group.refused {
            let _ = answer.send(Err(error));
        }
    }

    /// The position of the last commit, this group's included. Numbers that a failed group was given
    /// are no positions: a reader who waited for one would wait for ever.
    fn visible(&self, group: &Group) -> Position {
        group.commits.last().map_or_else(|| self.core.bulletin.position(), |commit| commit.last)
    }

    /// Gives the batch its place in the group, or refuses it.
    fn decide(&mut self, submission: Submission, group: &mut Group) {
        let Submission { mut batch, durability, answer, .. } = submission;
        if let Err(error) = self.check(&batch.checks, group) {
            group.refused.push((answer, error));
            return;
        }
        let first = self.last + 1;
        patch(&mut batch.operations, &batch.pending, first);
        group.sync |= durability == Durability::Synced;
        if batch.positions == 0 {
            group.accepted.push((answer, self.visible(group)));
        } else {
            self.last += u64::from(batch.positions);
            let first = Position::from_u64(first);
            group.commits.push(Commit {
                first,
                last: Position::from_u64(self.last),
                topics: batch.topics.into(),
            });
            group.accepted.push((answer, first));
        }
        for operation in batch.operations {
            if let Some(written) = &mut group.written {
                written.note(&operation, group.operations.len());
            }
            group.operations.push(operation);
        }
    }

    fn check(&self, checks: &[Check], group: &Group) -> Result<(), CommitError> {
        let faults = self.core.faults.as_ref();
        if !checks.is_empty() && faults.is_some_and(crate::IoFault::takes_conflict) {
            return Err(CommitError::Conflict);
        }
        for check in checks {
            let stored = || self.core.engine.current(check.family, &check.key);
            let found = match &group.written {
                Some(written) => written.current(check, &group.operations, stored),
                None => stored(),
            };
            if found.map_err(Error::from)? != check.expected {
                return Err(CommitError::Conflict);
            }
        }
        Ok(())
    }

    fn write(&self, operations: &[Operation], sync: bool, patience: Duration) -> Result<(), Fault> {
        if let Some(faults) = &self.core.faults {
            faults.before_write(sync)?;
        }
        self.core.engine.write(operations, sync, patience)
    }

    /// Nothing of the group counts. The positions it was given are not given again, because its
    /// bytes may be in the log and come back with the next start.
    fn fail(&mut self, fault: Fault, group: Group) {
        self.probe_at = matches!(fault, Fault::Temporary(_)).then(|| Instant::now() + PROBE_EVERY);
        let reason = fault.reason();
        tracing::error!(%reason, "the store is read-only: a write failed");
        self.core.set_status(Status::ReadOnly(reason.clone()));
        for (answer, _) in group.accepted {
            let _ = answer.send(Err(Error::Io(reason.clone()).into()));
        }
        for (answer, error) in group.refused {
            let _ = answer.send(Err(error));
        }
    }

    /// Tries whether the disk has space again, when it is time to.
    fn probe(&mut self) {
        let now = Instant::now();
        if self.probe_at.is_none_or(|at| now < at) {
            return;
        }
        self.probe_at = Some(now + PROBE_EVERY);
        match self.write(&[position_row(self.family, self.last)], true, Duration::ZERO) {
            Ok(()) => {
                tracing::info!("the store takes writes again");
                self.probe_at = None;
                self.core.set_status(Status::Ready);
            }
            Err(Fault::Temporary(_)) => {}
            Err(fault) => {
                self.probe_at = None;
                self.core.set_status(Status::ReadOnly(fault.reason()));
            }
        }
    }

    fn count(&self, group: &Group) {
        let tally = &self.core.tally;
        let deletes = group
            .operations
            .iter()
            .filter(|o| matches!(o, Operation::Delete { .. } | Operation::DeleteRange { .. }))
            .count();
        let puts = group.operations.len() - deletes - 1;
        tally.groups.fetch_add(1, Relaxed);
        tally.batches.fetch_add(group.accepted.len() as u64, Relaxed);
        tally.puts.fetch_add(puts as u64, Relaxed);
        tally.deletes.fetch_add(deletes as u64, Relaxed);
        tally.syncs.fetch_add(u64::from(group.sync), Relaxed);
    }
}

/// Writes the real positions over the pending ones.
fn patch(operations: &mut [Operation], pending: &[Pending], first: u64) {
    for place in pending {
        let bytes = match &mut operations[place.operation] {
            Operation::Put { value, .. } if !place.in_key => value,
            Operation::Put { key, .. }
            | Operation::Delete { key, .. }
            | Operation::Add { key, .. } => key,
            Operation::DeleteRange { start, .. } => start,
        };
        let position = first + u64::from(place.index);
        bytes[place.offset..place.offset + 8].copy_from_slice(&position.to_be_bytes());
    }
}

/// Which operations of the group write a key, so that a later batch's checks see them.
#[derive(Default)]
struct Written {
    keys: HashMap<(u8, Vec<u8>), Vec<usize>>,
    ranges: Vec<usize>,
}

impl Written {
    fn note(&mut self, operation: &Operation, index: usize) {
        match operation {
            Operation::Put { family, key, .. }
            | Operation::Delete { family, key }
            | Operation::Add { family, key, .. } => {
                self.keys.entry((family.index, key.clone())).or_default().push(index);
            }
            Operation::DeleteRange { .. } => self.ranges.push(index),
        }
    }

    /// The row that a check names, after the operations of the group.
    fn current(
        &self,
        check: &Check,
        operations: &[Operation],
        stored: impl FnOnce() -> Result<Option<Vec<u8>>, Fault>,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let covers = |index: &&usize| match &operations[**index] {
            Operation::DeleteRange { family, start, end } => {
                family.index == check.family.index && *start <= check.key && check.key < *end
            }
            _ => false,
        };
        let keyed = self.keys.get(&(check.family.index, check.key.clone()));
        let mut indexes: Vec<usize> = keyed.into_iter().flatten().copied().collect();
        indexes.extend(self.ranges.iter().filter(covers));
        indexes.sort_unstable();
        let mut row = if indexes.first().is_none_or(|first| is_add(&operations[*first])) {
            stored()?
        } else {
            None
        };
        for index in indexes {
            row = match &operations[index] {
                Operation::Put { value, .. } => Some(value.clone()),
                Operation::Delete { .. } | Operation::DeleteRange { .. } => None,
                Operation::Add { delta, .. } => Some(add_to_counter(row.as_deref(), *delta)),
            };
        }
        Ok(row)
    }
}

const fn is_add(operation: &Operation) -> bool {
    matches!(operation, Operation::Add { .. })
}
