//! Answers that are written page by page as they are read, because nobody knows how large they get:
//! the keys of many devices, a whole backup.
//!
//! The first page is there before the answer begins, so that what is refused is refused with an
//! error. When a later one cannot be read, the answer breaks off.

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::error::ApiError;

/// JSON in pages.
pub struct PagedJson {
    /// The first page.
    pub first: Bytes,
    /// What comes after it.
    pub rest: Option<BoxStream<'static, Result<Bytes, ApiError>>>,
}

impl std::fmt::Debug for PagedJson {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PagedJson")
    }
}
