//! A request of sliding sync, checked and made small: what is kept of it while it waits.
//!
//! Names of state become numbers, so that what a connection keeps has a bound whatever a client
//! sends.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ruma::{
    UserId, api::client::sync::sync_events::v5::request as v5, directory::RoomTypeFilter,
    events::StateEventType,
};

use crate::{
    error::ApiError,
    id::{Interner, RoomNid, StateKeyNid},
};

/// Lists of one request.
const LISTS_MAX: usize = 20;
/// Ranges of one list.
const RANGES_MAX: usize = 20;
/// Rooms that are subscribed to.
const SUBSCRIPTIONS_MAX: usize = 500;
/// Entries of one `required_state`.
const REQUIRED_MAX: usize = 200;
/// Entries of all `required_state` of one request together, but that which repeats the one before
/// counts nothing: it is kept once.
const REQUIRED_ALL_MAX: usize = 2_000;
/// Room types of one filter, lists and rooms of one extension.
const NAMES_MAX: usize = 500;
/// The longest id of a connection; the proposal says 16 characters.
const CONN_ID_BYTES_MAX: usize = 255;
/// The longest `txn_id`, and name of a list.
const NAME_BYTES_MAX: usize = 255;
/// The most events of one timeline.
const TIMELINE_LIMIT_MAX: u64 = 100;
/// Changes of thread subscriptions in one answer, at most and where the client does not say.
const THREADS_MAX: usize = 100;

/// Messages for the device in one answer, at most and where the client does not say.
const MESSAGES_MAX: usize = crate::sync::streams::to_device::PAGE_MAX;

/// Which state of a room is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Required {
    /// Single entries, sorted.
    pub(super) exact: Vec<StateKeyNid>,
    /// Those of them that are members, sorted: they are not found by going through the other state.
    pub(super) members: Vec<StateKeyNid>,
    /// Whole types, sorted.
    pub(super) types: Vec<u64>,
    /// One state key of every type, sorted: numbered as of a type `*`.
    pub(super) keys: Vec<StateKeyNid>,
    /// Everything; with lazy loading all but members.
    pub(super) all: bool,
    /// Members as far as they matter to the timeline.
    pub(super) lazy: bool,
}

/// What is wanted of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// How many events of the timeline.
    pub(super) limit: usize,
    /// The state.
    pub(super) required: Required,
}

/// A list of rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// Its name.
    pub(super) name: String,
    /// First and last place of each range.
    pub(super) ranges: Vec<(usize, usize)>,
    /// What is wanted of its rooms.
    pub(super) wish: Arc<Wish>,
    /// Which rooms are in it.
    pub(super) filter: ListFilter,
}

/// Which rooms are in a list; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListFilter {
    pub(super) is_dm: Option<bool>,
    pub(super) is_encrypted: Option<bool>,
    pub(super) is_invite: Option<bool>,
    /// Empty: any. `None` is a room without a type.
    pub(super) room_types: Vec<Option<String>>,
    pub(super) not_room_types: Vec<Option<String>>,
}

/// For which rooms an extension is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// The lists, as bits in their order.
    pub(super) lists: u32,
    /// All rooms that are subscribed to.
    pub(super) subscribed: bool,
    /// Rooms by themselves, sorted.
    pub(super) rooms: Vec<RoomNid>,
}

/// The extensions that are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// How many messages at most.
    pub(super) to_device: Option<usize>,
    pub(super) e2ee: bool,
    pub(super) account_data: Option<Scope>,
    pub(super) receipts: Option<Scope>,
    pub(super) typing: Option<Scope>,
    /// How many changes at most.
    pub(super) threads: Option<usize>,
}

/// All that a request wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) lists: Vec<List>,
    pub(super) subscriptions: BTreeMap<RoomNid, Arc<Wish>>,
    pub(super) extensions: Extensions,
}

impl Wanted {
    /// Checks a request.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` when something is too long or makes no sense.
    pub(super) fn compile(
        lists: &BTreeMap<String, v5::List>,
        subscriptions: &BTreeMap<ruma::OwnedRoomId, v5::RoomSubscription>,
        extensions: &v5::Extensions,
        (user_id, interner): (&UserId, &Interner),
    ) -> Result<Self, ApiError> {
        check("lists", lists.len(), LISTS_MAX)?;
        check("room subscriptions", subscriptions.len(), SUBSCRIPTIONS_MAX)?;
        let mut wishes = Wishes { user_id, interner, last: None, entries: 0 };
        let names: Vec<&str> = lists.keys().map(String::as_str).collect();
        let lists = lists.iter().map(|(name, list)| {
            check_name("The name of a list", name)?;
            let details = &list.room_details;
            Ok(List {
                name: name.clone(),
                ranges: ranges(&list.ranges)?,
                wish: wishes.wish(details.timeline_limit, &details.required_state)?,
                filter: list
                    .filters
                    .as_ref()
                    .map(ListFilter::compile)
                    .transpose()?
                    .unwrap_or_default(),
            })
        });
        let lists = lists.collect::<Result<_, ApiError>>()?;
        let subscriptions = subscriptions.iter().map(|(room_id, room)| {
            Ok((interner.room(room_id), wishes.wish(room.timeline_limit, &room.required_state)?))
        });
        Ok(Self {
            lists,
            subscriptions: subscriptions.collect::<Result<_, ApiError>>()?,
            extensions: Extensions::compile(extensions, &names, interner)?,
        })
    }
}

/// The limit and the state that were asked for last, and the wish they made.
type LastWish<'a> = (ruma::UInt, &'a [(StateEventType, String)], Arc<Wish>);

/// The wishes of a request, one after the other.
struct Wishes<'a> {
    user_id: &'a UserId,
    interner: &'a Interner,
    /// The last one and what it was made of.
    last: Option<LastWish<'a>>,
    /// Entries of all `required_state` up to now.
    entries: usize,
}

impl<'a> Wishes<'a> {
    fn wish(
        &mut self,
        limit: ruma::UInt,
        required: &'a [(StateEventType, String)],
    ) -> Result<Arc<Wish>, ApiError> {
        if let Some((last_limit, last, wish)) = &self.last
            && *last_limit == limit
            && *last == required
        {
            return Ok(wish.clone());
        }
        self.entries += required.len();
        check("different entries of required_state in all", self.entries, REQUIRED_ALL_MAX)?;
        let clamped = usize::try_from(u64::from(limit).min(TIMELINE_LIMIT_MAX));
        let wish = Arc::new(Wish {
            limit: clamped.expect("the limit was just clamped"),
            required: Required::compile(required, self.user_id, self.interner)?,
        });
        self.last = Some((limit, required, wish.clone()));
        Ok(wish)
    }
}

impl Wanted {
    /// Whether rooms are looked at, be it only to note what an extension does not tell now.
    pub(super) fn looks_at_rooms(&self) -> bool {
        let Extensions { account_data, receipts, typing, .. } = &self.extensions;
        let is_on = [account_data, receipts, typing].into_iter().any(Option::is_some);
        is_on || !self.lists.is_empty() || !self.subscriptions.is_empty()
    }

    /// How much memory it takes, in entries of about 100 bytes.
    pub(super) fn weight(&self) -> usize {
        let list = |list: &List| {
            let filter = &list.filter;
            let names = filter.room_types.len() + filter.not_room_types.len();
            1 + names + list.wish.weight()
        };
        let lists: usize = self.lists.iter().map(list).sum();
        let extensions = &self.extensions;
        let scopes = [&extensions.account_data, &extensions.receipts, &extensions.typing];
        let named: usize = scopes.into_iter().flatten().map(|scope| scope.rooms.len() / 8).sum();
        lists + self.subscriptions.len() + weight_of(self.subscriptions.values()) + named
    }
}

/// The weight of wishes, of which many are the same one.
pub(super) fn weight_of<'a>(wishes: impl Iterator<Item = &'a Arc<Wish>>) -> usize {
    let mut seen = HashSet::new();
    wishes.filter(|wish| seen.insert(Arc::as_ptr(wish))).map(|wish| wish.weight()).sum()
}

/// Refuses an id of a connection that is too long.
pub(super) fn check_ids(conn_id: Option<&str>, txn_id: Option<&str>) -> Result<(), ApiError> {
    if conn_id.is_some_and(|id| id.len() > CONN_ID_BYTES_MAX) {
        return Err(ApiError::invalid_param("conn_id is too long"));
    }
    txn_id.map_or(Ok(()), |id| check_name("txn_id", id))
}

fn check(what: &str, count: usize, most: usize) -> Result<(), ApiError> {
    if count <= most {
        return Ok(());
    }
    Err(ApiError::invalid_param(format!("There are {count} {what}; {most} are allowed")))
}

fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::invalid_param(format!("{what} is too long")))
}

fn ranges(ranges: &[(ruma::UInt, ruma::UInt)]) -> Result<Vec<(usize, usize)>, ApiError> {
    check("ranges of a list", ranges.len(), RANGES_MAX)?;
    let place = |place: ruma::UInt| usize::try_from(u64::from(place)).unwrap_or(usize::MAX);
    let ranges = ranges.iter().map(|&(first, last)| {
        if first > last {
            return Err(ApiError::invalid_param("A range ends before it begins"));
        }
        Ok((place(first), place(last)))
    });
    ranges.collect()
}

impl ListFilter {
    fn compile(filter: &v5::ListFilters) -> Result<Self, ApiError> {
        let types = |types: &[RoomTypeFilter]| {
            check("room types", types.len(), NAMES_MAX)?;
            let name = |room_type: &RoomTypeFilter| {
                room_type.as_str().filter(|name| name.len() <= NAME_BYTES_MAX).map(str::to_owned)
            };
            Ok::<Vec<_>, ApiError>(types.iter().map(name).collect())
        };
        Ok(Self {
            is_dm: filter.is_dm,
            is_encrypted: filter.is_encrypted,
            is_invite: filter.is_invite,
            room_types: types(&filter.room_types)?,
            not_room_types: types(&filter.not_room_types)?,
        })
    }
}

impl Extensions {
    fn compile(
        extensions: &v5::Extensions,
        lists: &[&str],
        interner: &Interner,
    ) -> Result<Self, ApiError> {
        let scope = |enabled: Option<bool>, wanted: Names<'_>| {
            let wanted = enabled.unwrap_or_default().then_some(wanted);
            wanted.map(|wanted| Scope::compile(wanted, lists, interner)).transpose()
        };
        let v5::Extensions { to_device, account_data, receipts, typing, .. } = extensions;
        if let Some(since) = &to_device.since {
            check_name("The token of the extension to_device", since)?;
        }
        let threads = &extensions.thread_subscriptions;
        Ok(Self {
            to_device: to_device
                .enabled
                .unwrap_or_default()
                .then(|| clamped(to_device.limit, MESSAGES_MAX)),
            e2ee: extensions.e2ee.enabled.unwrap_or_default(),
            account_data: scope(
                account_data.enabled,
                (account_data.lists.as_deref(), account_data.rooms.as_deref()),
            )?,
            receipts: scope(
                receipts.enabled,
                (receipts.lists.as_deref(), receipts.rooms.as_deref()),
            )?,
            typing: scope(typing.enabled, (typing.lists.as_deref(), typing.rooms.as_deref()))?,
            threads: threads
                .enabled
                .unwrap_or_default()
                .then(|| clamped(threads.limit, THREADS_MAX)),
        })
    }
}

/// A limit: at least one and at most `most`, which is also that of a client that does not say.
fn clamped(limit: Option<ruma::UInt>, most: usize) -> usize {
    let limit = limit.and_then(|limit| usize::try_from(u64::from(limit)).ok());
    limit.unwrap_or(most).clamp(1, most)
}

/// The lists and rooms that an extension names.
type Names<'a> = (Option<&'a [String]>, Option<&'a [v5::ExtensionRoomConfig]>);

impl Scope {
    fn compile(
        (lists, rooms): Names<'_>,
        known: &[&str],
        interner: &Interner,
    ) -> Result<Self, ApiError> {
        check("lists of an extension", lists.map_or(0, <[_]>::len), NAMES_MAX)?;
        check("rooms of an extension", rooms.map_or(0, <[_]>::len), NAMES_MAX)?;
        let is_in = |name: &str| {
            lists.is_none_or(|lists| lists.iter().any(|list| list == name || list == "*"))
        };
        let bits = (0..).zip(known).filter(|(_, name)| is_in(name));
        let mut named: Vec<RoomNid> = Vec::new();
        let mut subscribed = rooms.is_none();
        for room in rooms.unwrap_or_default() {
            match room {
                v5::ExtensionRoomConfig::Room(room_id) => named.push(interner.room(room_id)),
                _ => subscribed = true,
            }
        }
        named.sort_unstable();
        Ok(Self {
            lists: bits.fold(0, |bits, (place, _): (u32, _)| bits | 1 << place),
            subscribed,
            rooms: named,
        })
    }
}

impl Required {
    fn compile(
        required: &[(StateEventType, String)],
        user_id: &UserId,
        interner: &Interner,
    ) -> Result<Self, ApiError> {
        check("entries of required_state", required.len(), REQUIRED_MAX)?;
        let mut compiled = Self::default();
        for (event_type, state_key) in required {
            let event_type = event_type.to_string();
            match (event_type.as_str(), state_key.as_str()) {
                ("*", "*") => compiled.all = true,
                ("m.room.member", "$LAZY") => compiled.lazy = true,
                (event_type, "*") => compiled.types.push(interner.event_type(event_type)),
                (event_type, "$ME") => {
                    compiled.add(event_type, user_id.as_str(), interner);
                }
                (event_type, state_key) => compiled.add(event_type, state_key, interner),
            }
        }
        compiled.tidy();
        Ok(compiled)
    }

    fn add(&mut self, event_type: &str, state_key: &str, interner: &Interner) {
        let key = interner.state_key(event_type, state_key);
        if event_type == "m.room.member" {
            self.members.push(key);
        }
        if event_type == "*" { self.keys.push(key) } else { self.exact.push(key) }
    }

    fn tidy(&mut self) {
        self.exact.sort_unstable();
        self.exact.dedup();
        self.members.sort_unstable();
        self.members.dedup();
        self.types.sort_unstable();
        self.types.dedup();
        self.keys.sort_unstable();
        self.keys.dedup();
    }

    fn join(&mut self, other: &Self) {
        self.exact.extend(&other.exact);
        self.members.extend(&other.members);
        self.types.extend(&other.types);
        self.keys.extend(&other.keys);
        self.all |= other.all;
        self.lazy |= other.lazy;
        self.tidy();
    }

    /// What is wanted here and was not there. Members that are loaded lazily come with a timeline.
    pub(super) fn beyond(&self, other: &Self) -> Self {
        if other.all && !other.lazy {
            return Self::default();
        }
        // Without lazy loading "everything" takes in all members.
        let all = self.all && !(other.all && self.lazy);
        let is_new = |key: &&StateKeyNid| other.exact.binary_search(key).is_err();
        Self {
            exact: self.exact.iter().filter(is_new).copied().collect(),
            members: self.members.iter().filter(is_new).copied().collect(),
            types: self
                .types
                .iter()
                .filter(|kind| other.types.binary_search(kind).is_err())
                .copied()
                .collect(),
            keys: self
                .keys
                .iter()
                .filter(|key| other.keys.binary_search(key).is_err())
                .copied()
                .collect(),
            all,
            lazy: self.lazy,
        }
    }

    /// Whether nothing is wanted but what comes with a timeline.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && !self.needs_scan()
    }

    /// Whether the state must be looked through.
    pub(super) fn needs_scan(&self) -> bool {
        self.all || !self.types.is_empty() || !self.keys.is_empty()
    }
}

impl Wish {
    /// How much memory it takes, in entries of about 100 bytes.
    fn weight(&self) -> usize {
        let Required { exact, members, types, keys, .. } = &self.required;
        1 + (exact.len() + members.len() + types.len() + keys.len()) / 8
    }

    /// All that any of the wishes wants.
    pub(super) fn union<'a>(wishes: impl Iterator<Item = &'a Arc<Self>>) -> Arc<Self> {
        let mut union: Option<Arc<Self>> = None;
        for wish in wishes {
            match &mut union {
                None => union = Some(Arc::clone(wish)),
                Some(all) => {
                    let all = Arc::make_mut(all);
                    all.limit = all.limit.max(wish.limit);
                    all.required.join(&wish.required);
                }
            }
        }
        union.unwrap_or_default()
    }
}
