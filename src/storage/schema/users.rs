//! Tables of accounts and all that is a user's. Owner: `users`. Tags 64 and up of family `us`.
