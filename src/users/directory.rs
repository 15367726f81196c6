//! The user directory: users of this server by the beginnings of the words of their names.
//!
//! The words stand in an index that is written in the batch that makes an account, changes a profile
//! or ends an account. A search reads one range of it, of bounded length, and then compares each
//! user with what is true now: so it never goes through all users.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    ops::{Bound, ControlFlow},
};

use kv::{Batch, Direction, Durability, Json, Reader, Store};
use ruma::{
    OwnedMxcUri, OwnedUserId, UserId,
    room::{JoinRuleSummary, RoomSummary},
};
use unicode_normalization::UnicodeNormalization;

use super::Profile;
use crate::{
    error::ApiError,
    id::RoomNid,
    rooms::Rooms,
    search::terms::{fold, is_unspaced},
    storage::{
        account_data::ignored_users,
        rows::{
            Membership,
            users::{AccountRow, ProfileRow},
        },
        schema::{
            directory::{DIRECTORY_VERSION, DIRECTORY_WORDS, DirectoryKey},
            rooms::MEMBERSHIPS,
            users::{ACCOUNTS, PROFILES},
        },
    },
};

/// Changes when the same name gives other words than before.
const VERSION: u32 = 1;

/// How long a word is at most, in characters, and how many words a user has.
const WORD_CHARS_MAX: usize = 64;
const WORDS_MAX: usize = 32;

/// The longest search term.
const TERM_BYTES_MAX: usize = 512;

/// How many rows of the index one search reads.
const ROWS_MAX: usize = 500;

/// How many rooms of a user are looked at.
const ROOMS_MAX: usize = 500;
/// How many rooms are read for one search, of all users together.
const ROOMS_READ_MAX: usize = 5_000;

/// How many accounts are indexed in one batch.
const ACCOUNTS_PER_BATCH: usize = 200;

/// A look into the directory.
#[derive(Clone, Debug)]
pub struct DirectorySearch {
    /// Who looks.
    pub user_id: OwnedUserId,
    /// What for.
    pub term: String,
    /// How many users at most.
    pub limit: usize,
    /// Whether everybody may be found, or only who shares a room or is in an open one.
    pub all_users: bool,
}

/// A user as the directory shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUser {
    /// The user.
    pub user_id: OwnedUserId,
    /// The display name.
    pub display_name: Option<String>,
    /// The avatar.
    pub avatar_url: Option<OwnedMxcUri>,
}

/// The users that a search finds, the best first, and whether there are more.
///
/// # Errors
/// 400 when the term is too long.
pub async fn search(
    rooms: &Rooms,
    search: DirectorySearch,
) -> Result<(Vec<ListedUser>, bool), ApiError> {
    if search.term.len() > TERM_BYTES_MAX {
        let text = format!("`search_term` has at most {TERM_BYTES_MAX} bytes");
        return Err(ApiError::invalid_param(text));
    }
    let rooms = rooms.clone();
    let store = rooms.store().clone();
    store
        .read(move |reader| {
            let rooms_left = Cell::new(ROOMS_READ_MAX);
            Look { search: &search, rooms: &rooms, reader, rooms_left }.run()
        })
        .await
}

struct Look<'a> {
    search: &'a DirectorySearch,
    rooms: &'a Rooms,
    reader: &'a Reader<'a>,
    /// How many rooms may still be read.
    rooms_left: Cell<usize>,
}

/// How well a user fits: the smallest comes first.
type Place = (u8, Reverse<bool>, bool, OwnedUserId);

impl Look<'_> {
    fn run(&self) -> Result<(Vec<ListedUser>, bool), ApiError> {
        let term = fold(self.search.term.trim());
        let term = term.strip_prefix('@').unwrap_or(&term);
        let words = wanted_words(term);
        let Some(longest) = words.iter().max_by_key(|word| word.chars().count()) else {
            return Ok((Vec::new(), false));
        };
        let (candidates, mut was_cut) = self.candidates(longest)?;
        let own = self.joined(&self.search.user_id)?.into_iter().collect();
        let ignored = ignored_users(self.reader, &self.search.user_id)?;
        let mut found: Vec<(Place, ListedUser)> = Vec::new();
        for user_id in candidates {
            if user_id == self.search.user_id || ignored.contains(&user_id) {
                continue;
            }
            if self.rooms_left.get() == 0 {
                was_cut = true;
                break;
            }
            let Some(profile) = self.profile(&user_id)? else { continue };
            let known = words_of(&user_id, &profile);
            let fits = |word: &String| known.iter().any(|known| known.starts_with(word));
            if !words.iter().all(fits) {
                continue;
            }
            let Some(shares_room) = self.visible(&user_id, &own)? else { continue };
            let profile = Profile::from_row(profile);
            let (display_name, avatar_url) =
                (profile.display_name().map(str::to_owned), profile.avatar_url());
            let class = class(term, &user_id, display_name.as_deref());
            let place = (class, Reverse(shares_room), display_name.is_none(), user_id.clone());
            found.push((place, ListedUser { user_id, display_name, avatar_url }));
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        let limited = was_cut || found.len() > self.search.limit;
        let found = found.into_iter().map(|(_, user)| user).take(self.search.limit);
        Ok((found.collect(), limited))
    }

    /// The users with a word that begins so, and whether there are more of them.
    fn candidates(&self, word: &str) -> Result<(Vec<OwnedUserId>, bool), kv::Error> {
        let from = word.to_owned();
        let to = format!("{word}{}", char::MAX);
        let range = DIRECTORY_WORDS.range(Bound::Included(&from), Bound::Excluded(&to));
        let rows = self.reader.scan(&DIRECTORY_WORDS, &range, Direction::Forward, ROWS_MAX + 1)?;
        let was_cut = rows.len() > ROWS_MAX;
        let mut seen = HashSet::new();
        let user_ids = rows.into_iter().take(ROWS_MAX).map(|(key, ())| key.user_id);
        let user_ids = user_ids.filter(|user_id| seen.insert(user_id.clone()));
        Ok((user_ids.filter_map(|user_id| UserId::parse(user_id).ok()).collect(), was_cut))
    }

    /// The profile of somebody who has an account; `None` when they have none any more.
    fn profile(&self, user_id: &UserId) -> Result<Option<ProfileRow>, kv::Error> {
        let key = user_id.to_string();
        let account = self.reader.get(&ACCOUNTS, &key)?;
        if !account.is_some_and(|Json(account)| is_listed(&account)) {
            return Ok(None);
        }
        let profile = self.reader.get(&PROFILES, &key)?;
        Ok(Some(profile.map(|Json(profile)| profile).unwrap_or_default()))
    }

    fn joined(&self, user_id: &UserId) -> Result<Vec<RoomNid>, kv::Error> {
        let mut joined = Vec::new();
        let mut left = ROOMS_MAX;
        let range = MEMBERSHIPS.prefix(&user_id.to_string());
        self.reader.for_each(&MEMBERSHIPS, &range, Direction::Forward, |key, row| {
            if row.membership == Membership::Join {
                joined.push(key.room);
            }
            left -= 1;
            self.rooms_left.set(self.rooms_left.get().saturating_sub(1));
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(joined)
    }

    /// Whether a user may be found (`None`: not), and whether they share a room.
    fn visible(&self, user_id: &UserId, own: &HashSet<RoomNid>) -> Result<Option<bool>, ApiError> {
        let theirs = self.joined(user_id)?;
        if theirs.iter().any(|room| own.contains(room)) {
            return Ok(Some(true));
        }
        // Somebody who wants to hear nothing of one is shown to them no more than to a stranger.
        if ignored_users(self.reader, user_id)?.contains(&self.search.user_id) {
            return Ok(None);
        }
        if self.search.all_users {
            return Ok(Some(false));
        }
        for nid in theirs {
            self.rooms_left.set(self.rooms_left.get().saturating_sub(1));
            let Some(room) = self.rooms.room_by_nid(self.reader, nid)? else { continue };
            if self.rooms.summary(self.reader, &room)?.is_some_and(|room| is_open(&room)) {
                return Ok(Some(false));
            }
        }
        Ok(None)
    }
}

/// Whether the members of a room are known to everybody.
fn is_open(room: &RoomSummary) -> bool {
    room.world_readable || matches!(room.join_rule, JoinRuleSummary::Public)
}

/// Whether the directory shows an account at all now. All but those that are no more are indexed: a
/// lock may be lifted, and guests may become users.
fn is_listed(account: &AccountRow) -> bool {
    account.deactivated_ts.is_none() && !account.locked && !account.guest
}

/// 0: the name or the id is what was looked for; 1: begins so; 2: has a word that begins so.
fn class(term: &str, user_id: &UserId, display_name: Option<&str>) -> u8 {
    let localpart = fold(user_id.localpart());
    let whole = format!("{localpart}:{}", user_id.server_name());
    let name = display_name.map(fold);
    let names = [Some(localpart), Some(whole), name];
    let mut names = names.iter().flatten();
    if names.clone().any(|name| name == term) {
        0
    } else {
        u8::from(!names.any(|name| name.starts_with(term))) + 1
    }
}

/// What is looked for: a user id, whole or its beginning, or the beginnings of words of a name.
fn wanted_words(term: &str) -> Vec<String> {
    if term.contains(':') && !term.contains(char::is_whitespace) {
        return vec![shortened(term)];
    }
    let mut words: Vec<String> = split(term).map(shortened).collect();
    words.truncate(WORDS_MAX);
    words
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| {
        c.is_whitespace()
            || c.is_ascii_punctuation()
            || matches!(c, '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}')
    };
    text.split(separates).filter(|word| !word.is_empty())
}

fn shortened(word: &str) -> String {
    word.chars().take(WORD_CHARS_MAX).collect()
}

/// The words that a user is found by.
fn words_of(user_id: &UserId, profile: &ProfileRow) -> BTreeSet<String> {
    let localpart = fold(user_id.localpart());
    let name = profile.0.get("displayname").and_then(serde_json::Value::as_str).unwrap_or_default();
    let name = fold(name);
    let mut words = BTreeSet::from([
        shortened(&localpart),
        shortened(&format!("{localpart}:{}", user_id.server_name())),
    ]);
    for word in split(&localpart).chain(split(&name)) {
        for form in forms(word) {
            if words.len() < WORDS_MAX {
                words.insert(form);
            }
        }
    }
    words
}

/// A word, the same without accents, and in scripts without spaces each of its ends.
fn forms(word: &str) -> Vec<String> {
    let plain = word.nfd().filter(|c| !matches!(c, '\u{300}'..='\u{36f}')).nfc();
    let mut forms = vec![shortened(word), shortened(&plain.collect::<String>())];
    if word.chars().next().is_some_and(is_unspaced) {
        let ends = word.char_indices().skip(1).map(|(at, _)| shortened(&word[at..]));
        forms.extend(ends.take(WORD_CHARS_MAX));
    }
    forms
}

/// Makes the directory say of a user what their profile says, within the batch that changes it.
/// `None`: there is no such user before or after.
pub(super) fn update(
    batch: &mut Batch,
    user_id: &UserId,
    old: Option<&ProfileRow>,
    new: Option<&ProfileRow>,
) {
    let words = |profile: Option<&ProfileRow>| {
        profile.map(|profile| words_of(user_id, profile)).unwrap_or_default()
    };
    let (old, new) = (words(old), words(new));
    let key = |word: &String| DirectoryKey { word: word.clone(), user_id: user_id.to_string() };
    for word in old.difference(&new) {
        batch.delete(&DIRECTORY_WORDS, &key(word));
    }
    for word in new.difference(&old) {
        batch.put(&DIRECTORY_WORDS, &key(word), &());
    }
}

/// Indexes all accounts, where an older version of this program made them. Before anything else
/// writes.
pub(super) async fn fill(store: &Store) -> Result<(), ApiError> {
    let version = store.read(|reader| reader.get(&DIRECTORY_VERSION, &0)).await?;
    if version == Some(VERSION) {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.delete_range(&DIRECTORY_WORDS, DIRECTORY_WORDS.prefix(&()));
    let mut after: Option<String> = None;
    loop {
        let from = after.clone();
        let rows = store.read(move |reader| accounts(reader, from.as_ref())).await?;
        let last = rows.last().map(|(user_id, _)| user_id.clone());
        for (user_id, profile) in rows {
            if let (Ok(user_id), Some(profile)) = (UserId::parse(user_id), profile) {
                update(&mut batch, &user_id, None, Some(&profile));
            }
        }
        if last.is_none() {
            batch.put(&DIRECTORY_VERSION, &0, &VERSION);
        }
        store.commit(std::mem::take(&mut batch), Durability::Synced).await?;
        match last {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

type AccountProfile = (String, Option<ProfileRow>);

/// The next accounts, with a profile where the directory shows them.
fn accounts(reader: &Reader<'_>, after: Option<&String>) -> Result<Vec<AccountProfile>, kv::Error> {
    let range = match after {
        Some(after) => ACCOUNTS.range(Bound::Excluded(after), Bound::<&String>::Unbounded),
        None => ACCOUNTS.prefix(&()),
    };
    let rows = reader.scan(&ACCOUNTS, &range, Direction::Forward, ACCOUNTS_PER_BATCH)?;
    let mut accounts = Vec::with_capacity(rows.len());
    for (user_id, Json(account)) in rows {
        let profile = if account.deactivated_ts.is_none() {
            let row = reader.get(&PROFILES, &user_id)?;
            Some(row.map(|Json(row)| row).unwrap_or_default())
        } else {
            None
        };
        accounts.push((user_id, profile));
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn words(user_id: &UserId, name: &str) -> Vec<String> {
        let profile = ProfileRow([("displayname".to_owned(), name.into())].into());
        words_of(user_id, &profile).into_iter().collect()
    }

    #[test]
    fn names_are_cut_into_words() {
        let user_id = user_id!("@j.doe:hs1");
        assert_eq!(
            words(user_id, "José  DOE-Smith (ops)"),
            ["doe", "j", "j.doe", "j.doe:hs1", "jose", "josé", "ops", "smith"]
        );
        assert!(words(user_id, "山田太郎").contains(&"太郎".to_owned()));
        assert!(words(user_id, &"x y ".repeat(500)).len() <= WORDS_MAX);
        assert!(words(user_id, &"x".repeat(500)).iter().all(|word| word.len() <= 64));
        assert_eq!(wanted_words("j.doe:h"), ["j.doe:h"]);
        assert_eq!(wanted_words("jo  do"), ["jo", "do"]);
        assert_eq!(wanted_words(" .-"), Vec::<String>::new());
    }

    #[test]
    fn the_nearest_comes_first() {
        let user_id = user_id!("@ann:hs1");
        let classes = [("ann", 0), ("ann:hs1", 0), ("an", 1), ("ann lee", 0), ("le", 2)];
        for (term, expected) in classes {
            assert_eq!(class(term, user_id, Some("Ann Lee")), expected, "{term}");
        }
    }
}
