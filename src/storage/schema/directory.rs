//! Tables of the user directory. Owner: `users`. Tags 32 to 39 of family `ix`.

use kv::{Table, key_structs};

use super::IX;

key_structs! {
    /// A word that a user is found by.
    pub struct DirectoryKey {
        /// The word, without case.
        word: String,
        /// The user id.
        user_id: String,
    }
}

/// The users of this server by the words of their names.
pub const DIRECTORY_WORDS: Table<DirectoryKey, ()> = Table::new("directory_words", IX, 32, "users");
/// How the words were made, under the key 0: they are made anew when that changes.
pub const DIRECTORY_VERSION: Table<u8, u32> = Table::new("directory_version", IX, 33, "users");
