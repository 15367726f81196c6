//! Thumbnails: which one is asked for, whether it is there, and keeping it once it is made.
//!
//! A thumbnail belongs to a content, not to a file, and is made once however many ask for it at the
//! same time. That a content is no picture is kept too, for a day. A picture that is small enough is
//! its own thumbnail.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use kv::{Batch, Json};

use super::{
    Media,
    download::{Content, Found, not_found},
    picture::{PIXELS_MAX, Sniffed, sniff},
    worker::Made,
};
use crate::{
    config::{MediaConfig, ThumbnailMethod, ThumbnailSize},
    error::ApiError,
    storage::{
        rows::media::{BlobRow, ThumbnailRow},
        schema::media::{BLOBS, THUMBNAILS, ThumbnailKey, UNSETTLED_FILES},
    },
};

/// How much of a file is looked at to see what it is: the header of a JPEG may stand behind much
/// else.
const HEAD_BYTES_MAX: u64 = 256 * 1024;
/// The largest thumbnail that may be asked for where any size is made.
const SIDE_MAX: u32 = 2_048;
/// How long it is believed that a content is no picture.
const REFUSAL_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The size and how to come to it.
    pub size: ThumbnailSize,
    /// Whether it may move.
    pub animated: bool,
}

/// What is served for it.
#[derive(Clone, Debug)]
pub enum Thumbnail {
    /// The file itself, under the type that its bytes have.
    Original {
        /// The type.
        content_type: &'static str,
    },
    /// A file that was made.
    Made {
        /// The type.
        content_type: String,
        /// How large it is, in bytes.
        size_bytes: u64,
        /// Its name in the store.
        file: String,
    },
}

/// A thumbnail of a content, exactly. `None` for the size: still, but as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    hash: [u8; 32],
    size: Option<ThumbnailSize>,
    moves: bool,
}

impl Target {
    fn key(self) -> ThumbnailKey {
        let (width, height) = self.size.map_or((0, 0), |size| (size.width, size.height));
        let is_cut = self.size.is_some_and(|size| size.method == ThumbnailMethod::Crop);
        let method = u8::from(is_cut) + if self.moves { 2 } else { 0 };
        ThumbnailKey { hash: self.hash, width, height, method }
    }
}

impl Media {
    /// The thumbnail that fits best; made now if it has to be and `may_make` allows it.
    pub async fn thumbnail(
        &self,
        found: &Found,
        wanted: Wanted,
        may_make: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<Arc<Thumbnail>, ApiError> {
        let size = chosen(&self.0.config, wanted.size);
        // What was made before needs no look at the file.
        let before = Target { hash: found.hash, size, moves: wanted.animated };
        if let Some(thumbnail) = self.kept(before).await? {
            return thumbnail.map(Arc::new).ok_or_else(no_picture);
        }
        let head = self.0.files.read_head(&found.blob.file, found.blob.size_bytes, HEAD_BYTES_MAX);
        let Some(sniffed) = sniff(&head.await?) else { return Err(no_picture()) };
        if u64::from(sniffed.width) * u64::from(sniffed.height) > PIXELS_MAX {
            return Err(too_many_pixels());
        }
        let Some(target) = target(found.hash, sniffed, size, wanted) else {
            return Ok(Arc::new(Thumbnail::Original { content_type: sniffed.content_type }));
        };
        if let Some(thumbnail) = self.kept(target).await? {
            return thumbnail.map(Arc::new).ok_or_else(no_picture);
        }
        may_make()?;
        let (media, blob) = (self.clone(), found.blob.clone());
        let work = || async move { media.make(target, blob).await.map(Arc::new) };
        let made = self.0.thumbnails.join(target, work).await;
        made.unwrap_or_else(|| Err(ApiError::internal_text("a thumbnail was broken off")))
    }

    /// Reads a thumbnail that was made.
    pub async fn read_thumbnail(&self, file: &str, range: Range<u64>) -> Result<Content, ApiError> {
        let size_bytes = range.end.saturating_sub(range.start);
        let parts = self.0.files.read(file, range).await?;
        Ok(Content { size_bytes, parts })
    }

    /// What is known of a thumbnail: nothing, that there is none, or what it is.
    async fn kept(&self, target: Target) -> Result<Option<Option<Thumbnail>>, ApiError> {
        let key = target.key();
        let row = self.0.store.read(move |reader| reader.get(&THUMBNAILS, &key)).await?;
        let Some(Json(row)) = row else { return Ok(None) };
        let is_refusal = row.file.is_none();
        if is_refusal && self.now_ms().saturating_sub(row.created_ts) > REFUSAL_MS {
            return Ok(None);
        }
        let (content_type, size_bytes) = (row.content_type, row.size_bytes);
        Ok(Some(row.file.map(|file| Thumbnail::Made { content_type, size_bytes, file })))
    }

    /// Makes a thumbnail and keeps it.
    async fn make(&self, target: Target, blob: BlobRow) -> Result<Thumbnail, ApiError> {
        let source = self.0.files.read(&blob.file, 0..blob.size_bytes).await?;
        let made = self.0.workshop.make(target.size, target.moves, source).await?;
        metrics::counter!("media_thumbnails_total", "made" => made.is_some().to_string())
            .increment(1);
        let Some(Made { content_type, bytes }) = made else {
            self.keep(target, self.refusal()).await?;
            return Err(no_picture());
        };
        let file = self.begin_file().await?;
        let kept = async {
            let size_bytes = bytes.len() as u64;
            let mut body = futures::stream::iter([Ok::<Bytes, ApiError>(bytes)]).boxed();
            self.0.files.write(&file, &mut body, u64::MAX).await?;
            let row = ThumbnailRow {
                created_ts: self.now_ms(),
                file: Some(file.clone()),
                size_bytes,
                content_type: content_type.to_owned(),
            };
            self.keep(target, row).await?;
            let content_type = content_type.to_owned();
            Ok(Thumbnail::Made { content_type, size_bytes, file: file.clone() })
        };
        match kept.await {
            Ok(thumbnail) => {
                self.0.busy_files.lock().remove(&file);
                Ok(thumbnail)
            }
            Err(error) => {
                self.discard(vec![file]).await;
                Err(error)
            }
        }
    }

    fn refusal(&self) -> ThumbnailRow {
        let created_ts = self.now_ms();
        ThumbnailRow { created_ts, file: None, size_bytes: 0, content_type: String::new() }
    }

    /// Writes a row, as long as the content is there: it takes its thumbnails along.
    async fn keep(&self, target: Target, row: ThumbnailRow) -> Result<(), ApiError> {
        for _ in 0..super::ATTEMPTS {
            let (hash, key) = (target.hash, target.key());
            let read = key.clone();
            let (blob, old) = self
                .0
                .store
                .read(move |reader| {
                    let blob = reader.get(&BLOBS, &hash)?;
                    Ok::<_, ApiError>((blob, reader.get(&THUMBNAILS, &read)?))
                })
                .await?;
            let Some(blob) = blob else { return Err(not_found()) };
            let mut batch = Batch::new();
            batch.check(&BLOBS, &hash, Some(&blob));
            batch.check(&THUMBNAILS, &key, old.as_ref());
            batch.put(&THUMBNAILS, &key, &Json(row.clone()));
            if let Some(file) = &row.file {
                batch.delete(&UNSETTLED_FILES, file);
            }
            if self.commit(batch).await? {
                return Ok(());
            }
        }
        Err(super::busy())
    }
}

/// The size that is made for what a client asks for: the smallest that is large enough, or the
/// largest there is. `None`: only the file itself is large enough.
fn chosen(config: &MediaConfig, wanted: ThumbnailSize) -> Option<ThumbnailSize> {
    if config.dynamic_thumbnails {
        return (wanted.width <= SIDE_MAX && wanted.height <= SIDE_MAX).then_some(wanted);
    }
    let fits = |size: &&ThumbnailSize| size.width >= wanted.width && size.height >= wanted.height;
    let area = |size: &&ThumbnailSize| u64::from(size.width) * u64::from(size.height);
    let sizes = config.thumbnail_sizes.iter();
    let of_method = sizes.filter(|size| size.method == wanted.method);
    if let Some(size) = of_method.filter(fits).min_by_key(area) {
        return Some(*size);
    }
    let side = wanted.width.max(wanted.height);
    let largest = config.thumbnail_sizes.iter().map(|size| size.width.max(size.height)).max();
    if wanted.method == ThumbnailMethod::Scale || largest.is_none_or(|largest| side > largest) {
        return None;
    }
    // Cut to the shape that is asked for, in one of a few sizes.
    // The shape in eighths, so that a content has few of them, whatever is asked for.
    let grown = u64::from(side.next_power_of_two());
    let of = |length: u32| {
        let eighths = (u64::from(length) * 8).div_ceil(u64::from(side.max(1))).max(1);
        u32::try_from((grown * eighths).div_ceil(8)).ok()
    };
    Some(ThumbnailSize { width: of(wanted.width)?, height: of(wanted.height)?, ..wanted })
}

/// What has to be made of a picture; `None`: nothing, it is as asked for.
fn target(
    hash: [u8; 32],
    sniffed: Sniffed,
    size: Option<ThumbnailSize>,
    wanted: Wanted,
) -> Option<Target> {
    let is_small =
        size.is_none_or(|size| sniffed.width <= size.width && sniffed.height <= size.height);
    let moves = wanted.animated && sniffed.may_move;
    match (is_small, sniffed.may_move && !wanted.animated) {
        (true, false) => None,
        (true, true) => Some(Target { hash, size: None, moves: false }),
        (false, _) => Some(Target { hash, size, moves }),
    }
}

fn no_picture() -> ApiError {
    ApiError::unknown("There is no thumbnail of this file: it is no picture that can be read")
}

/// Such a file, of 65,535 by 65,535 pixels say, is refused by its header alone. 413 is what the
/// specification has for "too large for the server to thumbnail"; 400 is for no picture at all.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>
fn too_many_pixels() -> ApiError {
    ApiError::too_large("The picture is too large for a thumbnail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_size_that_is_large_enough_is_taken() {
        use ThumbnailMethod::{Crop, Scale};
        let mut config = MediaConfig::default();
        let size = |width, height, method| ThumbnailSize { width, height, method };
        let cases = [
            (size(10, 10, Crop), Some(size(32, 32, Crop))),
            (size(64, 64, Crop), Some(size(96, 96, Crop))),
            (size(64, 64, Scale), Some(size(320, 240, Scale))),
            (size(640, 481, Scale), Some(size(800, 600, Scale))),
            (size(200, 200, Crop), Some(size(256, 256, Crop))),
            (size(200, 100, Crop), Some(size(256, 128, Crop))),
            (size(200, 99, Crop), Some(size(256, 128, Crop))),
            (size(101, 200, Crop), Some(size(160, 256, Crop))),
            (size(801, 600, Crop), None),
            (size(801, 600, Scale), None),
        ];
        for (wanted, expected) in cases {
            assert_eq!(chosen(&config, wanted), expected, "{wanted:?}");
        }
        config.dynamic_thumbnails = true;
        assert_eq!(chosen(&config, size(65, 64, Crop)), Some(size(65, 64, Crop)));
        assert_eq!(chosen(&config, size(65, 4_000, Crop)), None);
    }
}
