//! Rows of the event graph. The hot ones are encoded by hand, a version byte first.

use kv::{DecodeError, Key, KeyReader, KeyWriter, Position, Value, ValueReader, ValueWriter};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId};
use serde::{Deserialize, Serialize};

use crate::{
    id::{BranchNid, EventNid, StateKeyNid, UserNid},
    storage::schema::rooms::EventKey,
};

/// The canonical JSON of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBytes(pub Box<str>);

impl Value for EventBytes {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.raw(self.0.as_bytes());
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        std::str::from_utf8(reader.rest())
            .map(|text| Self(text.into()))
            .map_err(|_| DecodeError("an event is not UTF-8"))
    }
}

/// A place in a room's timeline: first the history that was fetched later, then what came live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelinePosition {
    /// 0: fetched history, counted down from the middle of the numbers; 1: live.
    pub line: u8,
    /// The place in the line.
    pub position: Position,
}

impl TimelinePosition {
    /// Before every event.
    pub const START: Self = Self { line: 0, position: Position::ZERO };
    /// After every event.
    pub const END: Self = Self::live(Position::MAX);

    /// A place in the live line.
    pub const fn live(position: Position) -> Self {
        Self { line: 1, position }
    }
}

impl Key for TimelinePosition {
    fn encode(&self, writer: &mut KeyWriter) {
        self.line.encode(writer);
        Key::encode(&self.position, writer);
    }

    fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { line: u8::decode(reader)?, position: Key::decode(reader)? })
    }
}

/// A state of a room: a version of a branch, or an overlay (whose version is 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateRef {
    /// The branch or overlay.
    pub branch: BranchNid,
    /// The version; version 0 of the trunk is the empty state.
    pub version: u32,
}

impl StateRef {
    /// The state of a room before its first event.
    pub const EMPTY: Self = Self { branch: BranchNid(0), version: 0 };

    /// A version of the trunk.
    pub const fn trunk(version: u32) -> Self {
        Self { branch: BranchNid(0), version }
    }

    fn write(self, writer: &mut ValueWriter) {
        writer.u32(self.branch.0);
        writer.u32(self.version);
    }

    fn read(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { branch: BranchNid(reader.u32()?), version: reader.u32()? })
    }
}

impl Value for StateRef {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        self.write(writer);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Self::read(reader)
    }
}

/// Memberships, as they are numbered in keys and records; 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Membership {
    /// Not a member event, or no membership at all.
    #[default]
    None = 0,
    /// `ban`
    Ban = 1,
    /// `invite`
    Invite = 2,
    /// `join`
    Join = 3,
    /// `knock`
    Knock = 4,
    /// `leave`
    Leave = 5,
}

impl Membership {
    /// By its name in events.
    pub fn from_name(name: &str) -> Self {
        match name {
            "ban" => Self::Ban,
            "invite" => Self::Invite,
            "join" => Self::Join,
            "knock" => Self::Knock,
            "leave" => Self::Leave,
            _ => Self::None,
        }
    }

    /// By its number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Ban,
            2 => Self::Invite,
            3 => Self::Join,
            4 => Self::Knock,
            5 => Self::Leave,
            _ => return None,
        })
    }

    /// Its name in events; "leave" for none.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Invite => "invite",
            Self::Join => "join",
            Self::Knock => "knock",
            Self::None | Self::Leave => "leave",
        }
    }

    fn read(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        Self::from_number(reader.u8()?).ok_or(DecodeError("a membership is unknown"))
    }
}

/// What is known of an event, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFlags(pub u16);

impl EventFlags {
    /// It has a state key.
    pub const STATE: Self = Self(1);
    /// Its content is redacted.
    pub const REDACTED: Self = Self(2);
    /// The authorization rules refused it.
    pub const REJECTED: Self = Self(4);
    /// The current state refused it: not shown, not built upon.
    pub const SOFT_FAILED: Self = Self(8);
    /// It came without the state before it.
    pub const OUTLIER: Self = Self(16);
    /// The default push rules notify somebody of it.
    pub const NOTIFIES: Self = Self(32);
    /// Other events relate to it in a way that is aggregated: only then there is something to look
    /// up when it is told to a client. Stays when they are gone.
    pub const PARENT: Self = Self(1 << 15);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` cleared.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// With the bits of `other` set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which transaction of which device made an event: told to that device alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionMark {
    /// The device's id.
    pub device_id: String,
    /// The client's transaction id.
    pub transaction_id: String,
}

/// All that is known of an event but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// The reference hash, which the event id spells.
    pub hash: [u8; 32],
    /// What is known of it.
    pub flags: EventFlags,
    /// The event's type, interned.
    pub event_type: u64,
    /// The sender, interned.
    pub sender: UserNid,
    /// The state key, interned; meaningless without [`EventFlags::STATE`].
    pub state_key: StateKeyNid,
    /// The membership, of a member event.
    pub membership: Membership,
    /// When its server says that it was sent, in milliseconds.
    pub origin_server_ts: u64,
    /// Its depth.
    pub depth: u64,
    /// Its place in the timeline; `TimelinePosition::START` when it has none.
    pub position: TimelinePosition,
    /// The state before it.
    pub state_before: StateRef,
    /// The state after it.
    pub state_after: StateRef,
    /// The events that authorize it.
    pub auth_events: Vec<EventNid>,
    /// The events it follows, as far as they are known.
    pub prev_events: Vec<EventNid>,
    /// The redaction that redacted it.
    pub redacted_by: Option<EventNid>,
    /// The transaction that made it.
    pub transaction: Option<TransactionMark>,
}

fn write_events(writer: &mut ValueWriter, events: &[EventNid]) {
    writer.u16(u16::try_from(events.len()).expect("a list of events has a cap"));
    for event in events {
        writer.u32(event.0);
    }
}

fn read_events(reader: &mut ValueReader<'_>) -> Result<Vec<EventNid>, DecodeError> {
    let count = reader.u16()?;
    (0..count).map(|_| reader.u32().map(EventNid)).collect()
}

impl Value for EventRecord {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.raw(&self.hash);
        writer.u16(self.flags.0);
        writer.u64(self.event_type);
        writer.u64(self.sender.0);
        writer.u64(self.state_key.0);
        writer.u8(self.membership as u8);
        writer.u64(self.origin_server_ts);
        writer.u64(self.depth);
        writer.u8(self.position.line);
        writer.position(self.position.position);
        self.state_before.write(writer);
        self.state_after.write(writer);
        write_events(writer, &self.auth_events);
        write_events(writer, &self.prev_events);
        writer.u32(self.redacted_by.map_or(0, |event| event.0));
        match &self.transaction {
            None => writer.u8(0),
            Some(mark) => {
                writer.u8(1);
                writer.bytes(mark.device_id.as_bytes());
                writer.bytes(mark.transaction_id.as_bytes());
            }
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            hash: reader.array()?,
            flags: EventFlags(reader.u16()?),
            event_type: reader.u64()?,
            sender: UserNid(reader.u64()?),
            state_key: StateKeyNid(reader.u64()?),
            membership: Membership::read(reader)?,
            origin_server_ts: reader.u64()?,
            depth: reader.u64()?,
            position: TimelinePosition { line: reader.u8()?, position: reader.position()? },
            state_before: StateRef::read(reader)?,
            state_after: StateRef::read(reader)?,
            auth_events: read_events(reader)?,
            prev_events: read_events(reader)?,
            redacted_by: Some(EventNid(reader.u32()?)).filter(|event| event.0 != 0),
            transaction: match reader.u8()? {
                0 => None,
                _ => Some(TransactionMark {
                    device_id: reader.string()?,
                    transaction_id: reader.string()?,
                }),
            },
        })
    }
}

/// One line of a timeline: enough for filters, so that they read no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The event.
    pub event: EventNid,
    /// Its type, interned.
    pub event_type: u64,
    /// Its sender, interned.
    pub sender: UserNid,
    /// What is known of it.
    pub flags: EventFlags,
    /// The trunk's version once this event was committed: the current state at that time.
    pub state_version: u32,
}

impl Value for TimelineEntry {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u32(self.event.0);
        writer.u64(self.event_type);
        writer.u64(self.sender.0);
        writer.u16(self.flags.0);
        writer.u32(self.state_version);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            event: EventNid(reader.u32()?),
            event_type: reader.u64()?,
            sender: UserNid(reader.u64()?),
            flags: EventFlags(reader.u16()?),
            state_version: reader.u32()?,
        })
    }
}

/// A change of one key of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateChange {
    /// The key.
    pub key: StateKeyNid,
    /// What it was; `None`: absent.
    pub old: Option<EventNid>,
    /// What it is; `None`: removed.
    pub new: Option<EventNid>,
}

/// What a version of a branch changed, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChanges {
    /// The position of the commit that made the version; zero for branches other than the trunk.
    pub position: Position,
    /// The changes, sorted by key, each key once.
    pub changes: Vec<StateChange>,
}

fn write_changes(writer: &mut ValueWriter, changes: &[StateChange]) {
    for change in changes {
        writer.u64(change.key.0);
        writer.u32(change.old.map_or(0, |event| event.0));
        writer.u32(change.new.map_or(0, |event| event.0));
    }
}

fn read_changes(reader: &mut ValueReader<'_>) -> Result<Vec<StateChange>, DecodeError> {
    let mut changes = Vec::new();
    while !reader.is_empty() {
        let key = StateKeyNid(reader.u64()?);
        let old = Some(EventNid(reader.u32()?)).filter(|event| event.0 != 0);
        let new = Some(EventNid(reader.u32()?)).filter(|event| event.0 != 0);
        changes.push(StateChange { key, old, new });
    }
    Ok(changes)
}

impl Value for StateChanges {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.position(self.position);
        write_changes(writer, &self.changes);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { position: reader.position()?, changes: read_changes(reader)? })
    }
}

/// An overlay: another state with some keys changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayRow {
    /// The other state: a version of a branch, never an overlay.
    pub base: StateRef,
    /// What differs from it, sorted by key, each key once.
    pub changes: Vec<StateChange>,
}

impl Value for OverlayRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        self.base.write(writer);
        write_changes(writer, &self.changes);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { base: StateRef::read(reader)?, changes: read_changes(reader)? })
    }
}

/// The type and the state key behind a [`StateKeyNid`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKeyName {
    /// The event type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
}

impl Value for StateKeyName {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.bytes(self.event_type.as_bytes());
        writer.bytes(self.state_key.as_bytes());
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { event_type: reader.string()?, state_key: reader.string()? })
    }
}

/// A room's head: where the next event goes. It holds no position: each commit checks the row that
/// it was decided on, also when that one is still on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRow {
    /// The number of the next event.
    pub next_event: EventNid,
    /// The trunk's newest version: the current state.
    pub state_version: u32,
    /// The number of the next branch.
    pub next_branch: u32,
    /// The events that no event follows yet; never empty.
    pub extremities: Vec<EventNid>,
    /// How many users have joined.
    pub joined_members: u64,
    /// How many users are invited.
    pub invited_members: u64,
}

impl Value for HeadRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u32(self.next_event.0);
        writer.u32(self.state_version);
        writer.u32(self.next_branch);
        write_events(writer, &self.extremities);
        writer.u64(self.joined_members);
        writer.u64(self.invited_members);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            next_event: EventNid(reader.u32()?),
            state_version: reader.u32()?,
            next_branch: reader.u32()?,
            extremities: read_events(reader)?,
            joined_members: reader.u64()?,
            invited_members: reader.u64()?,
        })
    }
}

/// What a room is: known when it is made and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// The room's id.
    pub room_id: OwnedRoomId,
    /// The room's version.
    pub version: RoomVersionId,
}

/// An alias of this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRow {
    /// The room it names.
    pub room_id: OwnedRoomId,
    /// Who made it.
    pub creator: OwnedUserId,
    /// The alias itself.
    pub alias: OwnedRoomAliasId,
    /// Servers that can help to join.
    #[serde(default)]
    pub servers: Vec<OwnedServerName>,
}

/// A user's place in a room, by the room's current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipRow {
    /// The membership.
    pub membership: Membership,
    /// The member event.
    pub event: EventNid,
    /// When it became so.
    pub position: Position,
    /// Whether the user was ever joined before (a left room is then shown with its history).
    pub was_joined: bool,
    /// Whether the user forgot the room.
    pub forgotten: bool,
    /// Whether somebody else made it so: a kick and not a leave.
    pub by_other: bool,
}

impl Value for MembershipRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u8(self.membership as u8);
        writer.u32(self.event.0);
        writer.position(self.position);
        let bits = [self.was_joined, self.forgotten, self.by_other];
        writer.u8((0..).zip(bits).fold(0, |all, (place, bit)| all | u8::from(bit) << place));
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        let membership = Membership::read(reader)?;
        let event = EventNid(reader.u32()?);
        let position = reader.position()?;
        let bits = reader.u8()?;
        Ok(Self {
            membership,
            event,
            position,
            was_joined: bits & 1 != 0,
            forgotten: bits & 2 != 0,
            by_other: bits & 4 != 0,
        })
    }
}

/// An event that relates to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationRow {
    /// The event that relates.
    pub event: EventNid,
    /// Its type, interned.
    pub event_type: u64,
    /// Its sender, interned.
    pub sender: UserNid,
    /// The relation's type.
    pub rel_type: String,
}

impl Value for RelationRow {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u32(self.event.0);
        writer.u64(self.event_type);
        writer.u64(self.sender.0);
        writer.bytes(self.rel_type.as_bytes());
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self {
            event: EventNid(reader.u32()?),
            event_type: reader.u64()?,
            sender: UserNid(reader.u64()?),
            rel_type: reader.string()?,
        })
    }
}

impl Value for EventNid {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u32(self.0);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.u32().map(Self)
    }
}

impl Value for EventKey {
    fn encode(&self, writer: &mut ValueWriter) {
        writer.u8(1);
        writer.u64(self.room.0);
        writer.u32(self.event.0);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, DecodeError> {
        reader.version(1)?;
        Ok(Self { room: crate::id::RoomNid(reader.u64()?), event: EventNid(reader.u32()?) })
    }
}
