//! Carries out the faults: before a request is done, and on its answer.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, to_bytes};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;

use crate::entra_error::EntraError;
use crate::faults::FaultKind;
use crate::operation::Operation;
use crate::storage_error::StorageError;

/// A body whose length is not announced is held to find the middle of it. Blobs announce theirs; lists are smaller.
const MAX_HELD: usize = 32 * 1024 * 1024;

/// Cuts the connection: the server closes it without another byte.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
pub struct Cut;

/// What the fault leaves to do.
pub enum Before {
    /// The request is done as if nothing were.
    Proceed,
    /// This is the answer.
    Answer(Box<Response<Body>>),
}

/// The part that comes before the request is done.
pub async fn before(fault: FaultKind, operation: Operation, headers: &HeaderMap) -> Result<Before, Cut> {
    let error = match fault {
        FaultKind::Reset => return Err(Cut),
        FaultKind::ResetAfter | FaultKind::Truncate => return Ok(Before::Proceed),
        FaultKind::Delay { milliseconds } => {
            tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
            return Ok(Before::Proceed);
        }
        FaultKind::ServerBusy { retry_after_seconds } => StorageError::server_busy(retry_after_seconds),
        FaultKind::InternalError => {
            StorageError::internal("Server encountered an internal error. Please try again after some time.")
        }
        FaultKind::TooManyRequests { retry_after_seconds } => StorageError::too_many_requests(retry_after_seconds),
    };
    let response =
        if operation == Operation::Token { transient(fault, error.status()) } else { error.response(headers) };
    Ok(Before::Answer(Box::new(response)))
}

/// The token endpoint speaks JSON also when it is busy.
fn transient(fault: FaultKind, status: StatusCode) -> Response<Body> {
    let mut response = EntraError::Transient(status).response(Timestamp::now(), None);
    if let FaultKind::ServerBusy { retry_after_seconds } | FaultKind::TooManyRequests { retry_after_seconds } = fault {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    }
    response
}

/// The part that comes after.
pub async fn after(fault: FaultKind, response: Response<Body>) -> Result<Response<Body>, Cut> {
    match fault {
        FaultKind::ResetAfter => {
            // To the end, so that the store has surely done it.
            let mut body = response.into_body().into_data_stream();
            while let Some(Ok(_)) = body.next().await {}
            Err(Cut)
        }
        FaultKind::Truncate => truncated(response).await,
        _ => Ok(response),
    }
}

async fn truncated(response: Response<Body>) -> Result<Response<Body>, Cut> {
    let (mut parts, body) = response.into_parts();
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let (length, body) = if let Some(length) = announced {
        (length, body)
    } else {
        let held = to_bytes(body, MAX_HELD).await.map_err(|_| Cut)?;
        (held.len() as u64, Body::from(held))
    };
    if length == 0 {
        return Err(Cut);
    }
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let half = Half { rest: length / 2, body: body.into_data_stream(), cut: false };
    Ok(Response::from_parts(parts, Body::from_stream(futures::stream::unfold(half, Half::next))))
}

struct Half {
    rest: u64,
    body: BodyDataStream,
    cut: bool,
}

impl Half {
    async fn next(mut self) -> Option<(Result<Bytes, axum::Error>, Self)> {
        if self.cut {
            return None;
        }
        if self.rest > 0
            && let Some(Ok(mut bytes)) = self.body.next().await
        {
            bytes.truncate(usize::try_from(self.rest).unwrap_or(usize::MAX));
            self.rest -= bytes.len() as u64;
            return Some((Ok(bytes), self));
        }
        // Once round the executor: the server sends what it has before it hears of the cut.
        tokio::task::yield_now().await;
        self.cut = true;
        Some((Err(axum::Error::new(Cut)), self))
    }
}
