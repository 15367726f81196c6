//! Causerie, a Matrix homeserver. The modules in the order of dependency: each may use those below.

pub mod error;
pub mod http;
pub mod id;
pub mod storage;
