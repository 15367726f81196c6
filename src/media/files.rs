//! The object store: a folder or an S3 bucket. Files have random names and are never changed.
//!
//! What [`Files::write`] has answered is on disk: the folder's files are synced and then renamed into
//! place, and so are the folders around them; S3 promises it. Neither writing nor reading holds
//! more of a file than a few parts of it.

use std::{
    io::{self, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload,
    WriteMultipart, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as ObjectPath,
};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::{config::MediaConfig, error::ApiError};

/// How much of a file in a folder is written or read at once.
const FOLDER_PART_BYTES: usize = 256 * 1024;
/// How much of a file in S3 is written at once; S3 wants at least 5 MiB.
const S3_PART_BYTES: usize = 6 * 1024 * 1024;
/// How many parts of a file are on their way at once.
const PARTS_MAX: usize = 2;

/// The object store that holds the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder cannot be made.
    #[error("the folder {0} for media cannot be made")]
    Folder(PathBuf, #[source] io::Error),
    /// The settings do not make a store.
    #[error("the store for media cannot be opened")]
    Store(#[source] object_store::Error),
}

/// Where contents lie.
#[derive(Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    /// Where the folder is, if it is one.
    folder: Option<PathBuf>,
    prefix: String,
    part_bytes: usize,
}

/// How full a disk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    /// What this server may use of it, used or not, in bytes.
    pub(super) size_bytes: u64,
    /// What of that is free.
    pub(super) free_bytes: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) hash: [u8; 32],
    pub(super) size_bytes: u64,
}

/// A part of a file at a time.
pub type FileParts = BoxStream<'static, io::Result<Bytes>>;

impl Files {
    /// Opens the store that the configuration names.
    pub fn open(config: &MediaConfig, database: &Path) -> Result<Self, FilesError> {
        if let Some(bucket) = &config.s3_bucket {
            return Self::open_s3(config, bucket).map_err(FilesError::Store);
        }
        let folder = config.path.clone().unwrap_or_else(|| database.with_file_name("media"));
        std::fs::create_dir_all(&folder)
            .map_err(|error| FilesError::Folder(folder.clone(), error))?;
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(FilesError::Store)?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            folder: Some(folder),
            prefix: String::new(),
            part_bytes: FOLDER_PART_BYTES,
        })
    }

    fn open_s3(config: &MediaConfig, bucket: &str) -> Result<Self, object_store::Error> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&config.s3_region)
            .with_virtual_hosted_style_request(config.s3_endpoint.is_none());
        if let Some(endpoint) = &config.s3_endpoint {
            let address = endpoint.as_str().trim_end_matches('/');
            builder = builder.with_endpoint(address).with_allow_http(endpoint.scheme() == "http");
        }
        if let (Some(id), Some(secret)) = (&config.s3_access_key_id, &config.s3_secret_access_key) {
            builder =
                builder.with_access_key_id(id.reveal()).with_secret_access_key(secret.reveal());
        }
        let prefix = config.s3_prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let store = Arc::new(builder.build()?);
        Ok(Self { store, folder: None, prefix, part_bytes: S3_PART_BYTES })
    }

    /// Writes a file of at most `bytes_max`, and answers once it is there for good.
    pub(super) async fn write(
        &self,
        name: &str,
        body: &mut (impl Stream<Item = Result<Bytes, ApiError>> + Send + Unpin),
        bytes_max: u64,
    ) -> Result<Written, ApiError> {
        let mut source = Source { body, hash: Context::new(&SHA256), size_bytes: 0, bytes_max };
        // What fits in one part is written at once.
        let mut first = Vec::new();
        let mut ended = false;
        while source.size_bytes < self.part_bytes as u64 {
            let Some(bytes) = source.next().await? else {
                ended = true;
                break;
            };
            first.push(bytes);
        }
        let path = self.path(name);
        if ended {
            let payload: PutPayload = first.into_iter().collect();
            self.store.put(&path, payload).await.map_err(failed)?;
        } else {
            let upload = self.store.put_multipart(&path).await.map_err(failed)?;
            let mut writer = WriteMultipart::new_with_chunk_size(upload, self.part_bytes);
            if let Err(error) = write_parts(&mut writer, first, &mut source).await {
                let _ = writer.abort().await;
                return Err(error);
            }
            writer.finish().await.map_err(failed)?;
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(source.hash.finish().as_ref());
        Ok(Written { hash, size_bytes: source.size_bytes })
    }

    /// Reads a part of a file; an error when it is not there.
    pub(super) async fn read(&self, name: &str, range: Range<u64>) -> Result<FileParts, ApiError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let length = range.end - range.start;
        let start = range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let result = self.store.get_opts(&self.path(name), options).await.map_err(failed)?;
        match result.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(SeekFrom::Start(start)).await.map_err(ApiError::internal)?;
                Ok(read_file(file, length).boxed())
            }
            GetResultPayload::Stream(stream) => {
                Ok(stream.map(|part| part.map_err(io::Error::other)).boxed())
            }
        }
    }

    /// The first bytes of a file, at most so many.
    pub(super) async fn read_head(
        &self,
        name: &str,
        size_bytes: u64,
        bytes_max: u64,
    ) -> Result<Bytes, ApiError> {
        let mut parts = self.read(name, 0..size_bytes.min(bytes_max)).await?;
        let mut head = BytesMut::new();
        while let Some(part) = parts.next().await {
            head.extend_from_slice(&part.map_err(ApiError::internal)?);
        }
        Ok(head.freeze())
    }

    /// Whether there is such a file.
    pub(super) async fn contains(&self, name: &str) -> Result<bool, ApiError> {
        match self.store.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes a file, finished or not; one that is not there is no error.
    pub(super) async fn remove(&self, name: &str) -> Result<(), ApiError> {
        let path = self.path(name);
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        if let Some(folder) = &self.folder {
            // What the store calls a file that it has not finished; a crash leaves it.
            let unfinished = folder.join(format!("{path}#1"));
            if let Err(error) = tokio::fs::remove_file(unfinished).await
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(ApiError::internal(error));
            }
        }
        Ok(())
    }

    /// How full the disk of the folder is; `None` where the files are in a bucket.
    pub(super) async fn disk(&self) -> io::Result<Option<Disk>> {
        let Some(folder) = self.folder.clone() else { return Ok(None) };
        let stat = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder));
        let stat = stat.await.map_err(io::Error::other)??;
        // As `df` has it: what is kept for the superuser is nobody's.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let size_bytes = bytes(used.saturating_add(stat.f_bavail));
        Ok(Some(Disk { size_bytes, free_bytes: bytes(stat.f_bavail) }))
    }

    /// Two levels, so that no folder grows too large.
    fn path(&self, name: &str) -> ObjectPath {
        let (first, rest) = name.split_at_checked(2).unwrap_or((name, ""));
        ObjectPath::from(format!("{}{first}/{rest}", self.prefix))
    }
}

/// What is to be written, counted and hashed as it passes.
struct Source<'a, B> {
    body: &'a mut B,
    hash: Context,
    size_bytes: u64,
    bytes_max: u64,
}

impl<B: Stream<Item = Result<Bytes, ApiError>> + Send + Unpin> Source<'_, B> {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let Some(bytes) = self.body.next().await.transpose()? else { return Ok(None) };
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        self.hash.update(&bytes);
        Ok(Some(bytes))
    }
}

async fn write_parts<B: Stream<Item = Result<Bytes, ApiError>> + Send + Unpin>(
    writer: &mut WriteMultipart,
    first: Vec<Bytes>,
    source: &mut Source<'_, B>,
) -> Result<(), ApiError> {
    for bytes in first {
        writer.put(bytes);
    }
    while let Some(bytes) = source.next().await? {
        writer.wait_for_capacity(PARTS_MAX).await.map_err(failed)?;
        writer.put(bytes);
    }
    Ok(())
}

fn read_file(file: tokio::fs::File, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(FOLDER_PART_BYTES);
        let mut part = BytesMut::with_capacity(wanted);
        let count = (&mut file).take(wanted as u64).read_buf(&mut part).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let left = left - count as u64;
        Ok(Some((part.freeze(), (file, left))))
    })
}

/// A name that nobody can guess and no other file has.
pub(super) fn random_name() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system always has random bytes once it runs");
    bytes.iter().fold(String::new(), |mut name, byte| {
        use std::fmt::Write;
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The answer to a file that is larger than allowed.
pub(super) fn too_large(bytes_max: u64) -> ApiError {
    ApiError::too_large(format!("The file is larger than {bytes_max} bytes"))
}

fn failed(error: object_store::Error) -> ApiError {
    ApiError::internal(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{EgressConfig, Secret},
        egress::Egress,
    };

    #[tokio::test]
    async fn a_bucket_is_opened_without_asking_it() {
        // It also chooses the library below TLS, as at the start of a server.
        Egress::new(&EgressConfig::default()).unwrap();
        let config = MediaConfig {
            s3_bucket: Some("media".to_owned()),
            s3_endpoint: Some("http://127.0.0.1:9/".parse().unwrap()),
            s3_access_key_id: Some(Secret::new("name")),
            s3_secret_access_key: Some(Secret::new("secret")),
            s3_prefix: "/some/where/".to_owned(),
            ..MediaConfig::default()
        };
        let files = Files::open(&config, Path::new("database")).unwrap();
        assert_eq!(files.path("aabbcc").to_string(), "some/where/aa/bbcc");
        let https = MediaConfig { s3_endpoint: None, ..config };
        Files::open(&https, Path::new("database")).unwrap();
    }
}
