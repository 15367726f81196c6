//! The reference engine: ordered maps, copied when written while somebody looks at them.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;

use crate::{
    Direction,
    batch::Operation,
    engine::{Fault, Visit, add_to_counter},
    table::ColumnFamily,
};

type Rows = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// Everything in memory; nothing survives.
#[derive(Debug)]
pub(crate) struct Memory {
    families: RwLock<Vec<Arc<Rows>>>,
}

impl Memory {
    pub(crate) fn new(families: &[ColumnFamily]) -> Self {
        let count = families.iter().map(|family| usize::from(family.index) + 1).max();
        Self { families: RwLock::new(vec![Arc::default(); count.unwrap_or(0)]) }
    }

    pub(crate) fn view(&self) -> View {
        View { families: self.families.read().clone() }
    }

    pub(crate) fn write(&self, operations: &[Operation]) {
        let mut families = self.families.write();
        for operation in operations {
            match operation {
                Operation::Put { family, key, value } => {
                    rows(&mut families, *family)
                        .insert(key.as_slice().into(), value.as_slice().into());
                }
                Operation::Delete { family, key } => {
                    rows(&mut families, *family).remove(key.as_slice());
                }
                Operation::DeleteRange { family, start, end } => {
                    let rows = rows(&mut families, *family);
                    let mut tail = rows.split_off(start.as_slice());
                    if start < end {
                        rows.append(&mut tail.split_off(end.as_slice()));
                    } else {
                        rows.append(&mut tail);
                    }
                }
                Operation::Add { family, key, delta } => {
                    let rows = rows(&mut families, *family);
                    let existing = rows.get(key.as_slice()).map(AsRef::as_ref);
                    let sum = add_to_counter(existing, *delta);
                    rows.insert(key.as_slice().into(), sum.into());
                }
            }
        }
    }
}

fn rows(families: &mut [Arc<Rows>], family: ColumnFamily) -> &mut Rows {
    Arc::make_mut(&mut families[usize::from(family.index)])
}

/// The maps of one moment.
pub(crate) struct View {
    families: Vec<Arc<Rows>>,
}

impl View {
    #[expect(clippy::unnecessary_wraps, reason = "the engines' contract")]
    pub(crate) fn get<T>(
        &self,
        family: ColumnFamily,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Fault> {
        Ok(self.families[usize::from(family.index)].get(key).map(|value| read(value)))
    }

    /// `range.0` must be before `range.1`.
    pub(crate) fn visit(
        &self,
        family: ColumnFamily,
        range: (&[u8], &[u8]),
        direction: Direction,
        visit: Visit<'_>,
    ) {
        let mut rows = self.families[usize::from(family.index)].range::<[u8], _>((
            std::ops::Bound::Included(range.0),
            std::ops::Bound::Excluded(range.1),
        ));
        while let Some((key, value)) = match direction {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.next_back(),
        } {
            if visit(key, value).is_break() {
                return;
            }
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        let rows = self.families.iter().flat_map(|rows| rows.iter());
        rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}
