//! How far a connection's request has come, for the end of the server: a running answer is waited for, half a request is not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};

const COMING: u8 = 0;
const ANSWERING: u8 = 1;
const ANSWERED: u8 = 2;

/// How far the request of a connection has come.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<AtomicU8>);

/// A body that tells when its end was reached.
pub struct Followed<B> {
    body: B,
    standing: Standing,
    is_answer: bool,
}

impl Standing {
    /// A request's head has come.
    pub fn begin<B: Body>(&self, request: Request<B>) -> Request<Followed<B>> {
        let is_whole = request.body().is_end_stream();
        self.set(if is_whole { ANSWERING } else { COMING });
        request.map(|body| self.follow(body, false))
    }

    /// Its answer has begun.
    pub fn answer<B: Body>(&self, response: Response<B>) -> Response<Followed<B>> {
        response.map(|body| self.follow(body, true))
    }

    /// A whole request has come, and its answer has not ended.
    pub fn is_answering(&self) -> bool {
        self.0.load(Ordering::Acquire) == ANSWERING
    }

    /// The last bytes of an answer may not have been written yet.
    pub fn is_answered(&self) -> bool {
        self.0.load(Ordering::Acquire) == ANSWERED
    }

    fn follow<B>(&self, body: B, is_answer: bool) -> Followed<B> {
        Followed {
            body,
            standing: self.clone(),
            is_answer,
        }
    }

    fn set(&self, standing: u8) {
        self.0.store(standing, Ordering::Release);
    }
}

impl<B: Body + Unpin> Body for Followed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if !self.is_answer && matches!(frame, Poll::Ready(None)) {
            self.standing.set(ANSWERING);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Followed<B> {
    fn drop(&mut self) {
        if self.is_answer {
            self.standing.set(ANSWERED);
        }
    }
}
