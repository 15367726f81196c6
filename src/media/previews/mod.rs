//! Previews: what is behind an address, as `OpenGraph` has it.
//!
//! The page is fetched through `egress`, which reaches public addresses alone; here stand the
//! operator's patterns, the caps on time and size, the cache, and that one address is fetched once
//! however many ask. What a page says is only text; its picture is stored as a file of this server.
//!
//! Attack cases T101, T103, T104.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

mod page;
mod patterns;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use kv::{Batch, Durability, Json};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};
use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use self::{page::Page, patterns::Patterns};
use super::{Media, NewMedia, flights::Flights, picture::sniff, uri};
use crate::{
    config::UrlPreviewsConfig,
    egress::{Call, Egress, EgressError, Incoming, Limits, Reach},
    error::ApiError,
    storage::{
        rows::media::{MediaKind, PreviewRow},
        schema::media::PREVIEWS,
    },
};

/// How many previews are made at once, and how many more wait.
const RUNNING_MAX: usize = 8;
const WAITING_MAX: usize = 64;
/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 2_048;
/// The most that a site may say of a page in the form of oEmbed, in bytes.
const OEMBED_BYTES_MAX: usize = 64 * 1024;
/// How much of a picture is looked at to see what it is.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// The largest preview that is kept; a value has at most 100 kB.
const ROW_BYTES_MAX: usize = 64 * 1024;

type Fields = Map<String, Value>;

/// Makes previews.
pub(super) struct Previews {
    egress: Egress,
    config: UrlPreviewsConfig,
    patterns: Patterns,
    flights: Flights<[u8; 32], Result<Arc<Fields>, ApiError>>,
    running: Semaphore,
    waiting: Semaphore,
}

impl Previews {
    pub(super) fn new(egress: Egress, config: &UrlPreviewsConfig) -> Self {
        Self {
            egress,
            patterns: Patterns::new(&config.allowed_urls, &config.denied_urls),
            config: config.clone(),
            flights: Flights::default(),
            running: Semaphore::new(RUNNING_MAX),
            waiting: Semaphore::new(RUNNING_MAX + WAITING_MAX),
        }
    }

    pub(super) fn lifetime_ms(&self) -> u64 {
        self.config.cache_lifetime_ms
    }

    /// An address that may be fetched, without the part that servers never see.
    fn address(&self, text: &str) -> Result<Url, ApiError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(ApiError::invalid_param("The address is too long"));
        }
        let mut url = Url::parse(text)
            .map_err(|_| ApiError::invalid_param("`url` is not an address that can be fetched"))?;
        url.set_fragment(None);
        if !matches!(url.scheme(), "http" | "https") || !self.patterns.allow(&url) {
            return Err(forbidden());
        }
        Ok(url)
    }

    async fn open(
        &self,
        url: Url,
        accept: &'static str,
        (deadline, bytes_max): (Instant, usize),
    ) -> Result<Incoming, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let limits = Limits {
            duration_max: deadline.saturating_duration_since(Instant::now()),
            bytes_max,
            redirects_max: self.config.redirects_max,
        };
        let call = Call {
            method: Method::GET,
            url,
            headers,
            body: Bytes::new(),
            reach: Reach::Public,
            limits,
        };
        let incoming = self.egress.open_where(call, |url| self.patterns.allow(url)).await;
        let incoming = incoming.map_err(|error| refusal(&error))?;
        if !incoming.status.is_success() {
            return Err(failed("The page cannot be read"));
        }
        Ok(incoming)
    }
}

impl Media {
    /// The preview of an address.
    pub async fn preview(&self, address: &str) -> Result<Arc<Fields>, ApiError> {
        let previews = &self.0.previews;
        if !previews.config.enabled {
            return Err(ApiError::forbidden("This server makes no previews"));
        }
        let url = previews.address(address)?;
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, url.as_str().as_bytes()).as_ref());
        let row = self.0.store.read(move |reader| reader.get(&PREVIEWS, &key)).await?;
        if let Some(Json(row)) = row
            && self.now_ms().saturating_sub(row.created_ts) < previews.config.cache_lifetime_ms
        {
            return Ok(Arc::new(row.fields));
        }
        let media = self.clone();
        let work = || async move { media.fetch_preview(key, url).await.map(Arc::new) };
        let done = previews.flights.join(key, work).await;
        done.unwrap_or_else(|| Err(ApiError::internal_text("a preview was broken off")))
    }

    async fn fetch_preview(&self, key: [u8; 32], url: Url) -> Result<Fields, ApiError> {
        let previews = &self.0.previews;
        let busy = |_| ApiError::limit_exceeded(Duration::from_secs(5));
        let _waiting = previews.waiting.try_acquire().map_err(busy)?;
        let _running = previews.running.acquire().await.map_err(ApiError::internal)?;
        let deadline = Instant::now() + Duration::from_millis(previews.config.timeout_ms);
        let mut fields = self.describe(url, deadline).await?;
        while serde_json::to_vec(&fields).is_ok_and(|json| json.len() > ROW_BYTES_MAX) {
            let Some(last) = fields.keys().next_back().cloned() else { break };
            fields.remove(&last);
        }
        let mut batch = Batch::new();
        let row = PreviewRow { created_ts: self.now_ms(), fields: fields.clone() };
        batch.put(&PREVIEWS, &key, &Json(row));
        self.0.store.commit(batch, Durability::Buffered).await?;
        Ok(fields)
    }

    async fn describe(&self, url: Url, deadline: Instant) -> Result<Fields, ApiError> {
        let previews = &self.0.previews;
        let bytes_max = previews.config.page_size_bytes_max;
        let accept = "text/html, application/xhtml+xml, image/*;q=0.5";
        let incoming = previews.open(url.clone(), accept, (deadline, bytes_max)).await?;
        let (url, content_type) = (incoming.url.clone(), essence(&incoming.headers));
        if content_type.starts_with("image/") {
            // Again, since a picture may be larger than a page.
            drop(incoming);
            let mut page = Page { image: Some(url.to_string()), ..Page::default() };
            self.attach_image(&mut page, &url, deadline).await;
            return Ok(page.fields);
        }
        if !matches!(content_type.as_str(), "text/html" | "application/xhtml+xml") {
            return Ok(Fields::new());
        }
        let header = incoming.headers.get(CONTENT_TYPE).cloned();
        let body = read_prefix(incoming).await?;
        let header = header.and_then(|header| header.to_str().ok().map(str::to_owned));
        let parsed = tokio::task::spawn_blocking(move || Page::parse(&body, header.as_deref()));
        let mut page = parsed.await.map_err(ApiError::internal)?;
        if let Some(oembed) = page.oembed.take().and_then(|href| url.join(&href).ok()) {
            self.attach_oembed(&mut page, oembed, deadline).await;
        }
        self.attach_image(&mut page, &url, deadline).await;
        Ok(page.fields)
    }

    /// Adds what a site says in the form of oEmbed; nothing where that fails.
    async fn attach_oembed(&self, page: &mut Page, url: Url, deadline: Instant) {
        let limits = (deadline, OEMBED_BYTES_MAX);
        let Ok(mut incoming) = self.0.previews.open(url, "application/json", limits).await else {
            return;
        };
        let mut body = BytesMut::new();
        loop {
            match incoming.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if let Ok(Value::Object(said)) = serde_json::from_slice(&body) {
            page.add_oembed(&said);
        }
    }

    /// Stores the picture of a page and names it; nothing where that fails.
    async fn attach_image(&self, page: &mut Page, base: &Url, deadline: Instant) {
        let image = page.image.take().and_then(|href| base.join(&href).ok());
        let Some(url) = image.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            return;
        };
        if let Err(error) = self.store_image(page, url, deadline).await {
            tracing::debug!(%error, "the picture of a page was left out");
        }
    }

    async fn store_image(
        &self,
        page: &mut Page,
        url: Url,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let previews = &self.0.previews;
        let bytes_max = previews.config.image_size_bytes_max;
        let mut incoming = previews.open(url, "image/*", (deadline, bytes_max)).await?;
        if !essence(&incoming.headers).starts_with("image/") {
            return Err(failed("This is no picture"));
        }
        let mut head = BytesMut::new();
        while head.len() < HEAD_BYTES_MAX {
            let Some(chunk) = incoming.chunk().await.map_err(|error| refusal(&error))? else {
                break;
            };
            head.extend_from_slice(&chunk);
        }
        let sniffed = sniff(&head).ok_or_else(|| failed("This is no picture"))?;
        let rest = futures::stream::try_unfold(incoming, |mut incoming| async move {
            let chunk = incoming.chunk().await.map_err(|error| refusal(&error))?;
            Ok::<_, ApiError>(chunk.map(|chunk| (chunk, incoming)))
        });
        let body = futures::stream::iter([Ok(head.freeze())]).chain(rest).boxed();
        let new = NewMedia {
            kind: MediaKind::Preview,
            uploader: None,
            content_type: Some(sniffed.content_type.to_owned()),
            filename: None,
            announced_bytes: None,
        };
        let stored = self.upload(new, body).await?;
        let row = self.row(&stored).await?;
        let fields = &mut page.fields;
        fields.insert("og:image".to_owned(), uri(&stored).into());
        fields.insert("og:image:type".to_owned(), sniffed.content_type.into());
        fields.insert("og:image:width".to_owned(), sniffed.width.into());
        fields.insert("og:image:height".to_owned(), sniffed.height.into());
        if let Some(row) = row {
            fields.insert("matrix:image:size".to_owned(), row.size_bytes.into());
        }
        Ok(())
    }
}

/// As much of a page as may be read; what comes later is not missed.
async fn read_prefix(mut incoming: Incoming) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    loop {
        match incoming.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(EgressError::TooLarge) => return Ok(body.freeze()),
            Err(error) => return Err(refusal(&error)),
        }
    }
}

/// The type in a header without its parameters.
fn essence(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn forbidden() -> ApiError {
    ApiError::forbidden("There are no previews of this address")
}

fn failed(text: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text)
}

/// What a client learns of a request that failed: nothing of what stands in this network.
fn refusal(error: &EgressError) -> ApiError {
    match error {
        EgressError::Blocked(_) => forbidden(),
        EgressError::Timeout => failed("The page took too long"),
        EgressError::TooLarge => failed("The page is too large"),
        EgressError::Redirects => failed("The page leads nowhere"),
        EgressError::NoAddress(..) | EgressError::Failed(_) => failed("The page cannot be reached"),
    }
}
