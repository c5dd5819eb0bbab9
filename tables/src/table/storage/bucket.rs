//! Files in an S3 bucket, for callers that are ordinary threads.
//!
//! * All requests run on two threads of this module's own, whoever asks: a caller waits on a channel, and may itself be
//!   a plain thread or a task. The query engine shares the connection through [`Bucket::store`].
//! * An object is whole or absent: S3 shows it once the PUT or the multipart upload is complete.
//! * Everything is bounded: connecting, each request, its retries, and the parts in flight. What fails is told to the
//!   caller, who keeps what it has (the journal) and tries again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::client::SpawnedReqwestConnector;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, RetryConfig,
};

use super::config::{StorageConfig, StorageError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of one request before its caller hears of it.
const REQUEST_RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Objects up to this size go in one request, larger ones in parts of it. S3 takes 10,000 parts: 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one object under way: bounds the memory of a writer.
const PARTS_IN_FLIGHT_MAX: usize = 4;

/// A bucket, below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    url: String,
    store: Arc<dyn ObjectStore>,
    threads: Arc<Threads>,
}

/// The threads that talk to the bucket. They end with the last clone of the bucket, without waiting for anything.
#[derive(Debug)]
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    pub(super) fn open(config: &StorageConfig, bucket: &str, prefix: &str) -> Result<Bucket, StorageError> {
        let url = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("storage")
            .enable_all()
            .build()
            .map_err(|source| StorageError::Threads { source })?;
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_http_connector(SpawnedReqwestConnector::new(runtime.handle().clone()))
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: REQUEST_RETRIES,
                retry_timeout: RETRY_TIMEOUT,
            });
        let is_plain_http = config
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        builder = builder.with_client_options(
            ClientOptions::new()
                .with_allow_http(is_plain_http)
                .with_connect_timeout(CONNECT_TIMEOUT)
                .with_timeout(Duration::from_secs(config.request_timeout_seconds)),
        );
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.reveal());
        }
        let setup = |source| StorageError::Setup {
            url: url.clone(),
            source,
        };
        let store = builder.build().map_err(setup)?;
        let prefix = ObjectPath::parse(prefix).map_err(|source| setup(source.into()))?;
        Ok(Bucket {
            store: Arc::new(PrefixStore::new(store, prefix)),
            threads: Arc::new(Threads(Some(runtime))),
            url,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    pub(super) fn location(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{name}", self.url))
    }

    /// Starts a request; its answer comes through the channel.
    fn start<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Receiver<object_store::Result<T>> {
        let (sender, receiver) = sync_channel(1);
        if let Some(runtime) = &self.threads.0 {
            runtime.spawn(async move {
                // Nobody waits any more when the writer was dropped.
                let _ = sender.send(request.await);
            });
        }
        receiver
    }

    fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        answer(&self.start(request))
    }

    pub(super) fn put(&self, name: &str, content: Bytes) -> io::Result<()> {
        let (store, path) = (self.store.clone(), ObjectPath::from(name));
        self.wait(async move { store.put(&path, content.into()).await.map(|_| ()) })
    }

    pub(super) fn get(&self, name: &str) -> io::Result<Bytes> {
        let (store, path) = (self.store.clone(), ObjectPath::from(name));
        self.wait(async move { store.get(&path).await?.bytes().await })
    }

    /// The first bytes of an object, at most `length`.
    pub(super) fn get_start(&self, name: &str, length: u64) -> io::Result<Bytes> {
        self.get_range(name, 0..length)
    }

    /// A part of an object, as much of it as there is.
    pub(super) fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> io::Result<Bytes> {
        let (store, path) = (self.store.clone(), ObjectPath::from(name));
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        self.wait(async move { store.get_opts(&path, options).await?.bytes().await })
    }

    /// Objects below a folder with their sizes.
    pub(super) fn list(&self, folder: &str) -> io::Result<BTreeMap<String, u64>> {
        let (store, prefix) = (self.store.clone(), ObjectPath::from(folder));
        self.wait(async move {
            store
                .list(Some(&prefix))
                .map_ok(|object| (object.location.to_string(), object.size))
                .try_collect()
                .await
        })
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let (store, path) = (self.store.clone(), ObjectPath::from(name));
        self.wait(async move { store.delete(&path).await })
    }

    /// Objects below a folder that were written before `before_ms`, by their names.
    pub(super) fn list_before(&self, folder: &str, before_ms: i64) -> io::Result<Vec<String>> {
        let (store, prefix) = (self.store.clone(), ObjectPath::from(folder));
        self.wait(async move {
            store
                .list(Some(&prefix))
                .try_filter_map(|object| async move {
                    let is_old = object.last_modified.timestamp_millis() <= before_ms;
                    Ok(is_old.then(|| object.location.to_string()))
                })
                .try_collect()
                .await
        })
    }

    pub(super) fn upload(&self, name: &str) -> Upload {
        Upload {
            bucket: self.clone(),
            path: ObjectPath::from(name),
            buffer: Vec::new(),
            parts: None,
        }
    }
}

fn answer<T>(receiver: &Receiver<object_store::Result<T>>) -> io::Result<T> {
    match receiver.recv() {
        Ok(result) => result.map_err(io::Error::from),
        Err(_) => Err(io::Error::other("the storage's threads ended")),
    }
}

/// An object that is being written: in memory until it is larger than a part.
#[derive(Debug)]
pub(super) struct Upload {
    bucket: Bucket,
    path: ObjectPath,
    buffer: Vec<u8>,
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    upload: Box<dyn MultipartUpload>,
    in_flight: VecDeque<Receiver<object_store::Result<()>>>,
}

impl Upload {
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.buffer.len() + bytes.len() > PART_BYTES {
            let (now, later) = bytes.split_at(PART_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.send_part(PARTS_IN_FLIGHT_MAX)?;
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what is gathered, then waits until fewer than `in_flight_max` parts are under way.
    fn send_part(&mut self, in_flight_max: usize) -> io::Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let (store, path) = (self.bucket.store.clone(), self.path.clone());
                let upload = self.bucket.wait(async move { store.put_multipart(&path).await })?;
                self.parts.insert(Parts {
                    upload,
                    in_flight: VecDeque::new(),
                })
            }
        };
        let content = Bytes::from(std::mem::take(&mut self.buffer));
        let part = parts.upload.put_part(content.into());
        parts.in_flight.push_back(self.bucket.start(part));
        while parts.in_flight.len() >= in_flight_max {
            let Some(oldest) = parts.in_flight.pop_front() else {
                break;
            };
            answer(&oldest)?;
        }
        Ok(())
    }

    /// From here on the object exists, or the upload failed and it does not.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.parts.is_none() {
            let content = Bytes::from(std::mem::take(&mut self.buffer));
            let (store, path) = (self.bucket.store.clone(), self.path.clone());
            return self
                .bucket
                .wait(async move { store.put(&path, content.into()).await.map(|_| ()) });
        }
        if !self.buffer.is_empty() {
            self.send_part(1)?;
        }
        while let Some(oldest) = self.parts.as_mut().and_then(|parts| parts.in_flight.pop_front()) {
            answer(&oldest)?;
        }
        let Some(mut parts) = self.parts.take() else {
            return Ok(());
        };
        self.bucket
            .wait(async move { parts.upload.complete().await.map(|_| ()) })
    }
}

impl Drop for Upload {
    /// Parts of an object that never came to be cost money until they are removed.
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            drop(self.bucket.start(async move { parts.upload.abort().await }));
        }
    }
}
