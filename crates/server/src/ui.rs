//! The page at `/`.

use std::sync::Arc;

use axum::Router;

use crate::app::App;

/// No page yet.
pub fn router() -> Router<Arc<App>> {
    Router::new()
}
