//! The ends of the thread's news.

use std::sync::{Arc, OnceLock};

use dynamo_backend_common::{KvEventPublisher, SnapshotPublisher};

/// Where the thread tells of its cache; set when Dynamo's runtime has made them, before the first request.
#[derive(Default)]
pub struct Publishers {
    /// For the router that sends requests where their beginning is cached.
    pub pages: OnceLock<Arc<KvEventPublisher>>,
    /// For the router that looks at load.
    pub load: OnceLock<Arc<SnapshotPublisher>>,
}
