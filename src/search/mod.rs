//! Full-text search of messages, names and topics of rooms that are not encrypted.
//!
//! `worker` keeps the index: it follows the commits and writes postings (`index`, `postings`) of
//! the terms (`terms`) that a text is cut into. `query` answers searches from it; each result is
//! compared with what its event says now and with what the reader may see now. So the index decides
//! where to look and never what is shown.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

mod answer;
mod document;
mod index;
mod matches;
mod postings;
mod query;
pub mod terms;
mod token;
mod worker;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use self::{
    answer::{Context, FoundEvent, Profile},
    document::Kind,
    query::{ContextSize, Found, Group, GroupBy, Order, Request},
};
use self::{document::Types, terms::Analyzer};
use crate::{config::SearchConfig, error::ApiError, rooms::Rooms, tasks::Tasks};

/// How many searches run at once; others wait.
const SEARCHES_AT_ONCE: usize = 4;

/// The search; cheap to clone.
#[derive(Clone)]
pub struct Search {
    inner: Arc<Inner>,
    enabled: bool,
}

struct Inner {
    rooms: Rooms,
    analyzer: Analyzer,
    types: Types,
    running: Semaphore,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Search({:?})", self.inner.analyzer)
    }
}

impl Search {
    /// Begins to keep the index, on a task that ends with the server.
    pub fn start(rooms: Rooms, config: &SearchConfig, tasks: &Tasks) -> Self {
        let types = Types::new(rooms.interner());
        let analyzer = Analyzer::new(config.language);
        let running = Semaphore::new(SEARCHES_AT_ONCE);
        let inner = Arc::new(Inner { rooms, analyzer, types, running });
        if config.enabled {
            // Before anything can be written that the worker would not hear of.
            let feed = inner.rooms.store().feed();
            let worker = inner.clone();
            tasks.spawn(move |stop| worker::run(worker, feed, stop));
        }
        Self { inner, enabled: config.enabled }
    }

    /// The events that a request finds.
    ///
    /// # Errors
    /// 400 when the request asks for too much or its token is not one, 403 without an index.
    pub async fn search(&self, request: Request) -> Result<Found, ApiError> {
        if !self.enabled {
            return Err(ApiError::forbidden("The search is disabled on this server"));
        }
        let query = query::prepare(&self.inner, request)?;
        let _running = self.inner.running.acquire().await.map_err(ApiError::internal)?;
        let inner = self.inner.clone();
        worker::blocking(&self.inner, move |reader| query::run(&inner, reader, &query)).await
    }
}
