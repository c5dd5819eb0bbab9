//! A real S3 server in the test's own process, which can go away and come back with what it holds.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const BUCKET: &str = "flows";
const PREFIX: &str = "site/nyc1";
const ACCESS_KEY: &str = "EZSCALETEST";
/// Must never be shown.
pub(crate) const SECRET_KEY: &str = "a-secret-of-the-test";

/// The server. It ends when dropped.
#[derive(Debug)]
pub(crate) struct S3Server {
    root: TempDir,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(root.path().join(BUCKET)).expect("the bucket can be made");
        let (runtime, address) = serve(root.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
        Self {
            root,
            address,
            runtime: Some(runtime),
        }
    }

    /// Ends it, with every connection.
    pub(crate) fn stop(&mut self) {
        let runtime = self.runtime.take().expect("a server that runs");
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Starts it again at the same address.
    pub(crate) fn resume(&mut self) {
        let (runtime, _) = serve(self.root.path(), self.address);
        assert!(self.runtime.replace(runtime).is_none(), "it was stopped");
    }

    /// The `[storage]` section that leads here.
    pub(crate) fn config(&self) -> String {
        format!(
            "[storage]\nurl = 's3://{BUCKET}/{PREFIX}'\nendpoint = 'http://{}'\nregion = 'us-east-1'\n\
             access_key_id = '{ACCESS_KEY}'\nsecret_access_key = '{SECRET_KEY}'\nrequest_timeout_seconds = 5\n",
            self.address
        )
    }

    /// Names of the objects of a table, relative to it.
    pub(crate) fn objects(&self, table: &str) -> Vec<String> {
        let folder = self.root.path().join(BUCKET).join(PREFIX).join(table);
        let mut names = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).into_iter().flatten() {
                let path = entry.expect("the folder can be read").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&folder).expect("below the folder");
                    names.push(name.to_string_lossy().into_owned());
                }
            }
        }
        names
    }
}

fn serve(root: &Path, address: SocketAddr) -> (Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads can be started");
    let listener = runtime
        .block_on(TcpListener::bind(address))
        .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    let address = listener.local_addr().expect("a listener has an address");
    let files = FileSystem::new(root).expect("the folder can be served");
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = builder.build();
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                // A client that hangs up is the client's business.
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    (runtime, address)
}
